"""`DecodeStep`: the one moment that engines and decoding methods share.

An engine stops between "final hidden states" and "sample", describes that moment as a `DecodeStep`, asks the method
which states to project, projects them all with one call of its own LM head, and hands the logits back to be combined:

    steering = method.steer(step)                       # which states need logits
    logits = engine.project(stack(steering.states))     # one projection, the engine's own post-processing
    combined = steering.combine(*logits)                # what the sampler gets
    tokens = engine.sample(combined)
    method.observe(step, tokens, live)                  # learn, off the critical path
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor

from esamp.decoding.layout import RowLayout


class Head(Protocol):
    """The LM head as a method may use it outside the engine's own projection. V is the vocabulary size."""

    @property
    def is_linear(self) -> bool:
        """Whether logits are a linear (affine) function of the state, so that mixing states mixes logits exactly."""

    @property
    def has_rows(self) -> bool:
        """Whether the rows of the head can be read; a quantised head may not offer them."""

    def rows(self, tokens: Tensor) -> Tensor:
        """LM-head rows w_z of `tokens` `[R]` int64, as `[R, d]` float32."""

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        """Expected LM-head rows sum_v p_v w_v of `probabilities` `[R, V]`, as `[R, d]` float32."""


@dataclass(eq=False)
class Rows:
    """Properties of R rows besides their states; int64 `[R]` unless another type is given."""

    index: Tensor
    """which of its group's n samples a row is, from 0 on"""
    count: Tensor
    """n; 0 where the engine does not know it"""
    position: Tensor
    """tokens that the sample has; 0 where its first one is to be drawn"""
    limit: Tensor
    """tokens after which it is cut off"""
    seed: Tensor
    """the group's random seed: equal for all its samples, and in every run of the same request"""
    stops: Tensor
    """`[R, k]`: tokens that end the row, filled up with -1"""
    temperature: Tensor
    """`[R]` float32: by what the engine divides the row's logits; 0 where it takes the best token"""

    def at(self, position: Tensor) -> "Rows":
        """The same rows when their samples have `position` `[R]` tokens."""
        return Rows(self.index, self.count, position, self.limit, self.seed, self.stops, self.temperature)

    def ends(self, tokens: Tensor) -> Tensor:
        """`[R]` bool: whether these `tokens` `[R]` are the last ones of their rows. Stop texts are not seen."""
        return (tokens.unsqueeze(1) == self.stops).any(1) | (self.position + 1 >= self.limit)


class InputTokens(NamedTuple):
    """The input of the model in this forward pass: whole prompts at prefill, then one token of each row a step."""

    ids: Tensor
    """`[R, L]` int64, prompts padded on the left"""
    mask: Tensor
    """`[R, L]`: 0 where there is padding"""


@dataclass(eq=False)
class DecodeStep:
    """R rows, one per sample that decodes a token now, in the engine's order."""

    final: Tensor
    """`[R, d]`: the final hidden states, which the LM head projects"""
    residuals: Mapping[int, Tensor]
    """`[R, d]` for each layer that the method asked for: the residual stream after that many transformer layers"""
    layout: RowLayout
    """which of the method's slots each row belongs to"""
    live: Tensor
    """`[R]` bool: False for rows that are finished or do not take part"""
    head: Head
    rows: Rows
    input_tokens: InputTokens | None = None
    """the model's input in this pass; None unless the method needs `Need.TOKENS`"""

    @cached_property
    def active(self) -> Tensor:
        """`[R]` bool: live rows that have a slot."""
        return self.live & self.layout.placed


class Combined(NamedTuple):
    """What the sampler gets: `logits` `[R, V]`, to which the engine applies the request's own processors and filters.

    With `rescore` `[R, V]` those logits only decide which tokens survive; survivors then get ``rescore / T`` added.
    `late` takes the rows' float32 logits as they are after all that, and gives those that the token is drawn from.
    """

    logits: Tensor
    rescore: Tensor | None = None
    late: Callable[[Tensor], Tensor] | None = None


class Steering(NamedTuple):
    """A method's answer to a step: the states to project, `[R, d]` each, and how to combine their logits."""

    states: tuple[Tensor, ...]
    combine: Callable[..., Combined] = Combined
    """takes one `[R, V]` tensor per state, in order; by default the only one goes to the sampler as it is"""

    @property
    def plain(self) -> bool:
        """Whether the logits of the one state are the answer, so that the engine may project it instead of its own."""
        return self.combine is Combined
