"""`BeamMethod`: the base of methods that decode the samples of a prompt as hypotheses competing for places."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeAlias

import torch
from torch import Tensor

from esamp.methods.base import Method, Need
from esamp.options import Options

Ends: TypeAlias = Callable[[Tensor], Tensor]
"""Which hypotheses `[P, H]` bool end with the last of their tokens `[P, H, t]`, by a stop token or text."""

NOWHERE = float("-inf")
"""The score of an empty place."""


@dataclass(frozen=True)
class Hypotheses:
    """H places for hypotheses for each of P prompts. A place whose score is minus infinity is empty."""

    tokens: Tensor
    """`[P, H, T]` int64, padded on the right"""
    length: Tensor
    """`[P, H]` int64: the number of tokens, including a final stop token"""
    log_probability: Tensor
    """`[P, H]` float64: log p of the tokens, given the prompt, under the distribution that a sampler would draw from"""
    score: Tensor
    """`[P, H]` float64: the score that the method ranks by"""

    @classmethod
    def roots(cls, score: Tensor, limit: int, pad: int) -> Self:
        """Empty hypotheses with the given `score` `[P, H]` and room for `limit` tokens."""
        tokens = torch.full((*score.shape, limit), pad, dtype=torch.int64, device=score.device)
        return cls(tokens, torch.zeros_like(score, dtype=torch.int64), torch.zeros_like(score), score)

    @property
    def exist(self) -> Tensor:
        """`[P, H]` bool: places that hold a hypothesis."""
        return self.score > NOWHERE

    def at(self, places: Tensor) -> Self:
        """The hypotheses at `places` `[P, M]` int64."""
        tokens = self.tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, self.tokens.shape[-1]))
        columns = (self.length, self.log_probability, self.score)
        return type(self)(tokens, *(column.gather(1, places) for column in columns))

    def only(self, kept: Tensor) -> Self:
        """A copy in which places that are not in `kept` `[P, H]` bool are empty."""
        return replace(self, score=self.score.masked_fill(~kept, NOWHERE))

    def extended(self, token: Tensor, step: int, log_probability: Tensor, score: Tensor) -> Self:
        """Each hypothesis with `token` `[P, H]` as its token number `step`, and new sums `[P, H]`."""
        tokens = self.tokens.clone()
        tokens[:, :, step] = token
        return type(self)(tokens, self.length + 1, log_probability, score)

    def joined(self, other: Self) -> Self:
        """Both, side by side `[P, H + H']`."""
        return type(self)(*(torch.cat(pair, 1) for pair in zip(self._columns, other._columns, strict=True)))

    def best(self, count: int) -> Self:
        """The `count` hypotheses of the highest score, best first."""
        return self.at(self.score.topk(count).indices)

    @property
    def _columns(self) -> tuple[Tensor, ...]:
        return self.tokens, self.length, self.log_probability, self.score


@dataclass(frozen=True)
class Beams:
    """The state of P independent searches, one per prompt, which are all at the same step."""

    rows: Hypotheses
    """`[P, K]`: the hypotheses in the model's rows"""
    live: Tensor
    """`[P, K]` bool: hypotheses that continue. A search without any is over and does not change any more"""
    finished: Hypotheses
    """`[P, F]`: complete hypotheses that are no longer in the model's rows; F = 0 if the method leaves them there"""
    seeds: Tensor
    """`[P]` int64: random numbers that are the same for the same request in every run"""
    generated: Tensor
    """`[P]` int64: tokens appended to hypotheses so far, including hypotheses that were discarded later"""
    step: int = 0
    """the number of tokens of every live hypothesis"""


class BeamMethod(Method, ABC):
    """Decides which hypotheses continue with which token, by pure functions of tensors, for many prompts at once.

    An engine gets the initial `Beams` from `start`. At each token it passes the model's distributions to `advance` and
    copies its own state of each row to the rows that continue it, until no hypothesis is live; `ranked` is the result.
    No function synchronises with the host, and the results of a prompt do not depend on the other prompts.
    """

    kind: ClassVar[str] = "beams"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.BEAMS})

    def __init__(self, options: Options, *, pad: int, stops: int) -> None:
        """Set up for one set of options.

        Args:
            options: the options of the method.
            pad: the padding token.
            stops: the number of different tokens that end a text.
        """
        self.pad, self.stops = pad, stops

    @abstractmethod
    def start(self, seeds: Tensor, n: int, limit: int) -> Beams:
        """The initial state for each of `seeds` `[P]` int64: n places with room for `limit` tokens."""

    @abstractmethod
    def advance(self, beams: Beams, log_probabilities: Tensor, ends: Ends) -> tuple[Beams, Tensor]:
        """Extend the hypotheses by one token.

        Args:
            beams: the searches.
            log_probabilities: `[P, K, V]` float, normalised over V, minus infinity for tokens that were filtered out;
                those of rows that are not live are ignored.
            ends: tells which hypotheses are complete; all are at the limit.

        Returns:
            The searches after the step, and the row `[P, K]` int64 that each of the new rows continues.
        """

    @abstractmethod
    def ranked(self, beams: Beams) -> Hypotheses:
        """The resulting hypotheses `[P, n]`, best first, followed by empty places."""

    @abstractmethod
    def described(self, ranked: Hypotheses) -> Mapping[str, Tensor]:
        """Measurements of each hypothesis of a result, `[P, n]` each, by name."""
