"""`DecodeMethod`: what a decoding method promises to every engine. Knows torch by its types only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Self

from esamp.errors import OptionError
from esamp.options import Options
from esamp.sampling import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from esamp.decoding.step import DecodeStep, Rows, Steering


class Need(StrEnum):
    """What a method needs of an engine beyond the plain decode step."""

    TOKENS = "the tokens of the prompt and of every step"
    BEAMS = "several hypotheses of a sample side by side"


def _unknown() -> tuple[int, ...]:
    raise OptionError("this method must know which tokens break lines: pass the model's tokenizer")


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
    head_obstacle: str = ""
    """why the rows of the LM head cannot be read, as the end of a sentence ("is quantised"); empty if they can"""
    vocabulary: int = 0
    """V, the number of logits; 0 where nobody knows before the first step"""
    line_breaks: Callable[[], tuple[int, ...]] = _unknown
    """the tokens whose text has a line break in it; raises `OptionError` where there is no tokenizer to ask"""
    tokens: Callable[[], Mapping[str, int]] | None = None
    """the ids of all tokens by their text; None where there is no tokenizer to ask"""
    tied: bool = False
    """whether the LM head is the matrix of the token embedding"""
    head_scale: float = 1.0
    """mean of ||w_v - mean w||^2 over the rows w_v of the LM head; 1 where they cannot be read"""


@dataclass(frozen=True)
class Detail:
    """Per-row measurements of one step, for token traces. Each `[R]` float32, NaN where not measured."""

    novelty: Tensor
    """norm of the steering error"""
    kl: Tensor
    """KL(steered || reference) in nats"""
    reference: Tensor | None
    """`[R, V]` reference logits, if the method had them formed"""
    error: Tensor | None = None
    """`[R, d]` the steering error e itself, if the method has one"""
    residual: Tensor | None = None
    """norm of the prediction error before any gate"""
    explained: Tensor | None = None
    """1 - ||hL - y||^2 / ||hL - running mean||^2 of the row"""


class Method:
    """A named way to decode, with its options.

    What it does is told by which of its subclasses it derives from. One that derives from `Method` alone sets the
    engine's own sampler and nothing else.
    """

    name: ClassVar[str]
    """as requests, commands and entry points call it"""
    summary: ClassVar[str]
    """one line for lists"""
    citation: ClassVar[str]
    """who described it and where"""
    options: ClassVar[type[Options]]
    """its options; field names differ from those of all other methods that it may be combined with"""
    kind: ClassVar[str] = "sampler"
    """where it acts, in a word"""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """what an engine must offer for it"""
    above_engines: ClassVar[bool] = False
    """whether it makes requests of its own, so that no engine can run it by itself"""
    one_request: ClassVar[bool] = False
    """whether its groups must be the samples of one request, each with an index of its own"""

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """How many of a group's n samples start together, wave by wave.

        Raises:
            OptionError: the options are not for so many samples; says what to change.
        """
        return (n,)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """What the engine's own sampler is set to for a request with these settings.

        Raises:
            OptionError: the method makes no sense together with them; says why and what to change.
        """
        return sampling


class Filter(Method, ABC):
    """A function of the logits that keeps no state: it drops or moves tokens. Combines with every other method.

    It acts on every token of a sample, the first one included.
    """

    kind = "filter"

    @classmethod
    @abstractmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Set up for one model and one set of options.

        Raises:
            OptionError: the options do not fit the model.
        """

    @abstractmethod
    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """New logits `[R, V]` for `logits` `[R, V]`, which stay as they are; minus infinity drops a token."""


class EarlyFilter(Filter):
    """Sees the model's (or the method's) logits before penalties, temperature, top-k, top-p and min-p."""


class LateFilter(Filter):
    """Sees the float32 logits behind all of those: their softmax is what would be drawn from."""


class Draw(Method, ABC):
    """Chooses the tokens itself, for each group by what its other samples drew. Combines with every method but others.

    It acts on every token of a sample, the first one included. Slots are numbers from 0 on that the caller gives out.
    """

    kind = "draw"
    one_request = True

    @classmethod
    @abstractmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int) -> Self:
        """Allocate for `slots` groups."""

    @classmethod
    @abstractmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes that `build` would allocate for so many groups, told without allocating any."""

    @abstractmethod
    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""

    @abstractmethod
    def clear(self, slot: int) -> None:
        """A new group has this slot: forget the last one's samples."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the memory that the slots take."""

    @abstractmethod
    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        """Tokens `[R]` int64 drawn from the softmax of `logits` `[R, V]` float32, filtered and at temperature.

        Must not synchronise with the host. Rows that are not in ``step.live`` may get any token.
        """

    @abstractmethod
    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """The tokens `[R]` that were sampled after the latest `choose`; those of rows in `live` `[R]` bool count.

        A grammar or a forced token may have made them others than those that were chosen.
        """


class DecodeMethod(Method, ABC):
    """A method that takes part in decode steps, set up for one model and one set of options.

    Life of a group: `admit` claims a slot; then, at each decode step, `steer` and `observe`; `release` frees the slot.
    """

    kind = "step"
    first_token: bool = False
    """whether it takes part in the step that ends a prompt's prefill and gives a sample its first token"""

    @classmethod
    @abstractmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """Residual-stream depths whose states the method needs, in a model of `depth` layers if that is known.

        Raises:
            OptionError: the options leave it to the model's depth, which is not known.
        """

    @classmethod
    def takes_first(cls, options: Options) -> bool:
        """`first_token` of a method built with these options."""
        return cls.first_token

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
