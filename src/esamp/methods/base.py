"""`DecodeMethod`: what a decoding method promises to every engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from esamp.options import Options
from esamp.step import DecodeStep, Steering


@dataclass(frozen=True)
class ModelShape:
    """What a method must know of the model to allocate its state."""

    hidden_size: int
    """d, the size of the states that the LM head projects"""
    layer_sizes: Mapping[int, int]
    """size of the residual stream after each layer that the method asked for"""
    layers: int
    """number of transformer layers"""
    device: torch.device
    """where the LM head's input lives"""
    head_rows: bool = True
    """whether the rows of the LM head can be read"""


@dataclass(frozen=True)
class Detail:
    """Per-row measurements of one step, for token traces. Each `[R]` float32, NaN where not measured."""

    novelty: Tensor
    """norm of the steering error"""
    kl: Tensor
    """KL(steered || reference) in nats"""
    reference: Tensor | None
    """`[R, V]` reference logits, if the method had them formed"""


class Method:
    """A named way to decode, with its options. Engines run one that is no `DecodeMethod` with their sampler alone."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """one line for lists"""
    citation: ClassVar[str]
    options: ClassVar[type[Options]]

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """How many of a group's n samples start together, wave by wave."""
        return (n,)


class DecodeMethod(Method, ABC):
    """A method that takes part in decode steps, set up for one model and one set of options.

    Life of a group: `admit` claims a slot; then, at each decode step, `steer` and `observe`; `release` frees the slot.
    """

    @classmethod
    @abstractmethod
    def layers(cls, options: Options) -> tuple[int, ...]:
        """Residual-stream depths whose states the method needs, with these options."""

    @classmethod
    @abstractmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate for `slots` groups. `full` asks for telemetry that costs a second set of logits."""

    @classmethod
    @abstractmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes that `build` would allocate for the state of so many groups, told without allocating any."""

    @abstractmethod
    def admit(self) -> int | None:
        """Claim a slot for a new group; None when all are taken, in which case the group runs without the method."""

    @abstractmethod
    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""

    @abstractmethod
    def release(self, slot: int) -> None:
        """The group is gone: free its slot."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the memory that the method's slots take."""

    @abstractmethod
    def steer(self, step: DecodeStep) -> Steering:
        """Say which states to project and how to combine their logits."""

    @abstractmethod
    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Learn from the tokens `[R]` sampled after the latest `steer`, on the rows in `live` `[R]` bool."""

    @abstractmethod
    def detail(self) -> Detail:
        """Measurements of the latest step."""

    @classmethod
    @abstractmethod
    def steers(cls, options: Options) -> bool:
        """Whether these options are meant to change anything: ``beta = 0`` is not, and may honestly do nothing."""

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """Whether, with these options, requests that are not in one group influence each other."""
        return False

    @abstractmethod
    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """What the method did so far for one group, or for all: taken now, read from the device when called."""

    def telemetry(self, slot: int | None = None) -> Mapping[str, float]:
        """What the method did for one group, or for all. Synchronises with the device."""
        return self.report(slot)()
