"""`Method` and its subclasses: the interface between decoding methods and engines. Imports torch for types only."""

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
    """A capability of an engine, beyond the plain decode step, that a method may require."""

    TOKENS = "the tokens of the prompt and of every step"
    BEAMS = "several hypotheses of a sample side by side"


def _no_tokenizer() -> tuple[int, ...]:
    raise OptionError("this method must know which tokens contain a line break: pass the model's tokenizer")


def called_out_of_order(call: str) -> OptionError:
    """The error of a `call` that is only valid between `DecodeMethod.steer` and `DecodeMethod.observe` of a step."""
    return OptionError(f"{call} must be called between steer() and observe() of the same step")


@dataclass(frozen=True)
class ModelShape:
    """The properties of a model that a method needs to allocate its state."""

    hidden_size: int
    """d, the size of the states that the LM head projects"""
    layer_sizes: Mapping[int, int]
    """size of the residual stream after each layer that the method requested"""
    layers: int
    """number of transformer layers"""
    device: torch.device
    """the device of the LM head's input"""
    head_obstacle: str = ""
    """why the rows of the LM head cannot be read, as a predicate ("is quantised"); empty if they can be read"""
    vocabulary: int = 0
    """V, the number of logits; 0 if the engine does not know it before the first step"""
    line_breaks: Callable[[], tuple[int, ...]] = _no_tokenizer
    """the tokens whose text contains a line break; raises `OptionError` if there is no tokenizer"""
    tokens: Callable[[], Mapping[str, int]] | None = None
    """the ids of all tokens by their text; None if there is no tokenizer"""
    tied: bool = False
    """whether the LM head is the matrix of the token embedding"""
    head_scale: float = 1.0
    """mean of ||w_v - mean w||^2 over the rows w_v of the LM head; 1 if they cannot be read"""
    captures: bool = False
    """whether methods may capture their steps in CUDA graphs"""

    def __post_init__(self) -> None:
        if self.captures and self.device.type != "cuda":
            raise OptionError(f"capture = True needs a CUDA GPU, and this model is on {self.device}: leave it out")


@dataclass(frozen=True)
class Detail:
    """Per-row measurements of one step, for token traces. Each `[R]` float32, NaN where not measured."""

    novelty: Tensor
    """norm of the steering error"""
    kl: Tensor
    """KL(steered || reference) in nats"""
    reference: Tensor | None
    """`[R, V]` the model's own logits, if the method requested them"""
    error: Tensor | None = None
    """`[R, d]` the steering error e itself, if the method has one"""
    residual: Tensor | None = None
    """norm of the prediction error before any gate"""
    explained: Tensor | None = None
    """1 - ||hL - y||^2 / ||hL - running mean||^2 of the row"""


class Method:
    """A named way to decode, with its options.

    Engines handle a method according to the subclass of `Method` that it derives from. A method that derives from
    `Method` directly only changes the settings of the engine's own sampler.
    """

    name: ClassVar[str]
    """the name used in requests, commands and entry points"""
    summary: ClassVar[str]
    """one line, shown in lists of methods"""
    citation: ClassVar[str]
    """authors, year, title and identifier of the publication"""
    options: ClassVar[type[Options]]
    """the options class; its field names must differ from those of all methods that this one can be combined with"""
    kind: ClassVar[str] = "sampler"
    """where it acts, in one word, for lists of methods"""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """capabilities that it requires of an engine"""
    above_engines: ClassVar[bool] = False
    """whether it makes several requests to an engine, so that no engine can run it by itself"""
    one_request: ClassVar[bool] = False
    """whether a group must consist of the samples of one request, each with a distinct index"""

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """The sizes of the waves in which a group's n samples start; they add up to n.

        Raises:
            OptionError: the options do not allow n samples.
        """
        return (n,)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The settings of the engine's own sampler for a request that asks for `sampling`.

        Raises:
            OptionError: the method cannot be used with these settings.
        """
        return sampling


class Filter(Method, ABC):
    """A stateless function of the logits that drops or reweights tokens. Combines with any method.

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
        """New logits `[R, V]` for `logits` `[R, V]`, which are not modified; minus infinity drops a token."""


class EarlyFilter(Filter):
    """A filter of the model's (or a `DecodeMethod`'s) logits, before penalties, temperature, top-k, top-p and min-p."""


class LateFilter(Filter):
    """A filter of the float32 logits after all of those, whose softmax is the sampling distribution."""


class Draw(Method, ABC):
    """Draws the tokens itself, depending on what the group's other samples drew. Combines with any but another `Draw`.

    It acts on every token of a sample, the first one included. The caller assigns the slots, numbered from 0.
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
        """Bytes that `build` would allocate for `slots` groups, computed without allocating them."""

    @abstractmethod
    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""

    @abstractmethod
    def clear(self, slot: int) -> None:
        """Forget the samples of the slot's previous group, for a new one."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory of all slots."""

    @abstractmethod
    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        """Draw tokens `[R]` int64 from the softmax of `logits` `[R, V]` float32, to which temperature has been applied.

        Must not synchronise with the host. Rows that are not in ``step.live`` may get any token.
        """

    @abstractmethod
    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Record the tokens `[R]` sampled after the latest `choose`, for the rows in `live` `[R]` bool.

        They may differ from the chosen ones, because of a grammar or a forced token.
        """


class DecodeMethod(Method, ABC):
    """A method that acts on the hidden states or logits of decode steps, built for one model and one set of options.

    Life of a group: `admit` claims a slot; then, at each decode step, `steer` and `observe`; `release` frees the slot.
    Methods with per-group state usually derive from the base classes in `esamp.methods.slotted`.
    """

    kind = "step"
    first_token: bool = False
    """whether it acts on a sample's first token, i.e. on the step that ends the prompt's prefill"""

    @classmethod
    @abstractmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """The layers whose residual stream the method needs, in a model of `depth` layers (None: unknown).

        Raises:
            OptionError: the layers depend on the model's depth, which is not known.
        """

    @classmethod
    def takes_first(cls, options: Options) -> bool:
        """`first_token` of a method built with these options."""
        return cls.first_token

    @classmethod
    @abstractmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate for `slots` groups. `full` adds telemetry that costs a second set of logits.

        Raises:
            OptionError: the options do not fit the model.
        """

    @classmethod
    @abstractmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of state that `build` would allocate for `slots` groups, computed without allocating them."""

    @abstractmethod
    def admit(self) -> int | None:
        """Claim a slot for a new group; None when all are taken, and the group then runs without the method."""

    @abstractmethod
    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""

    @abstractmethod
    def release(self, slot: int) -> None:
        """Free the slot of a group that has ended."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory of all slots and of what they share."""

    @abstractmethod
    def steer(self, step: DecodeStep) -> Steering:
        """The states to project at this step, and how to combine their logits."""

    @abstractmethod
    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Learn from the tokens `[R]` sampled after the latest `steer`, on the rows in `live` `[R]` bool."""

    @abstractmethod
    def detail(self) -> Detail:
        """Measurements of the latest step."""

    @classmethod
    @abstractmethod
    def steers(cls, options: Options) -> bool:
        """Whether a method with these options changes any distribution; False for strength 0, such as ``beta = 0``."""

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """Whether, with these options, requests of different groups influence each other."""
        return False

    @abstractmethod
    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """Telemetry of one slot, or of all groups so far: taken now, read from the device when the result is called."""

    def telemetry(self, slot: int | None = None) -> Mapping[str, float]:
        """Telemetry of one slot, or of all groups so far. Synchronises with the device."""
        return self.report(slot)()
