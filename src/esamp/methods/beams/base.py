"""`BeamMethod`: methods that decode the samples of a prompt as hypotheses side by side which compete for places."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeAlias

import torch
from torch import Tensor

from esamp.methods.base import Method, Need
from esamp.options import Options

Ends: TypeAlias = Callable[[Tensor], Tensor]
"""Which hypotheses `[P, H]` bool end with the last of their tokens `[P, H, t]`: by a token or a text, not the limit."""

NOWHERE = float("-inf")
"""The score of a place that holds no hypothesis."""


@dataclass(frozen=True)
class Hypotheses:
    """H hypotheses for each of P prompts. A place whose score is minus infinity holds none."""

    tokens: Tensor
    """`[P, H, T]` int64, filled up with padding"""
    length: Tensor
    """`[P, H]` int64: tokens, the one that ends it included"""
    log_probability: Tensor
    """`[P, H]` float64: log p of the tokens, given the prompt, under the distribution that a sampler would draw from"""
    score: Tensor
    """`[P, H]` float64: what the method ranks by"""

    @classmethod
    def roots(cls, score: Tensor, limit: int, pad: int) -> Self:
        """No tokens yet, and room for `limit` of them, in each place of `score` `[P, H]`."""
        tokens = torch.full((*score.shape, limit), pad, dtype=torch.int64, device=score.device)
        return cls(tokens, torch.zeros_like(score, dtype=torch.int64), torch.zeros_like(score), score)

    @property
    def exist(self) -> Tensor:
        """Which places `[P, H]` hold a hypothesis."""
        return self.score > NOWHERE

    def at(self, places: Tensor) -> Self:
        """Those in `places` `[P, M]`."""
        tokens = self.tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, self.tokens.shape[-1]))
        others = (self.length, self.log_probability, self.score)
        return type(self)(tokens, *(each.gather(1, places) for each in others))

    def only(self, kept: Tensor) -> Self:
        """The same with the places emptied that are not in `kept` `[P, H]` bool."""
        return replace(self, score=self.score.masked_fill(~kept, NOWHERE))

    def extended(self, token: Tensor, step: int, log_probability: Tensor, score: Tensor) -> Self:
        """Each with one `token` `[P, H]` more, its token number `step`; new sums `[P, H]` instead of the old ones."""
        tokens = self.tokens.clone()
        tokens[:, :, step] = token
        return type(self)(tokens, self.length + 1, log_probability, score)

    def joined(self, other: Self) -> Self:
        """Both, `[P, H + H']`."""
        return type(self)(*(torch.cat(pair, 1) for pair in zip(self._columns, other._columns, strict=True)))

    def best(self, count: int) -> Self:
        """The `count` of the highest score, best first."""
        return self.at(self.score.topk(count).indices)

    @property
    def _columns(self) -> tuple[Tensor, ...]:
        return self.tokens, self.length, self.log_probability, self.score


@dataclass(frozen=True)
class Beams:
    """The state of P searches, which are all at the same step and know nothing of each other."""

    rows: Hypotheses
    """`[P, K]`: one for each of the model's rows"""
    live: Tensor
    """`[P, K]` bool: which of them go on. A search without any is over, and stays as it is"""
    finished: Hypotheses
    """`[P, F]`: complete hypotheses that left the model's rows; F = 0 where they stay there"""
    seeds: Tensor
    """`[P]` int64: the same for the same request in every run"""
    generated: Tensor
    """`[P]` int64: tokens with which hypotheses went on or ended, those included that were given up later"""
    step: int = 0
    """tokens that every live hypothesis has"""


class BeamMethod(Method, ABC):
    """Decides which hypotheses go on with which token: pure functions of tensors, for many prompts at once.

    An engine gets a prompt's `Beams` from `start`, then, token by token, hands `advance` the model's distributions and
    moves its own state of each row to where the row's children are, until nothing is live; `ranked` is the result.
    No function synchronises with the host, and what happens to one prompt does not depend on the others.
    """

    kind: ClassVar[str] = "beams"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.BEAMS})

    def __init__(self, options: Options, *, pad: int, stops: int) -> None:
        """Set up for one set of options.

        Args:
            options: the method's.
            pad: the token to fill up with.
            stops: how many different tokens end a text.
        """
        self.pad, self.stops = pad, stops

    @abstractmethod
    def start(self, seeds: Tensor, n: int, limit: int) -> Beams:
        """Nothing but the prompt yet, for each of `seeds` `[P]` int64: n places, room for `limit` tokens."""

    @abstractmethod
    def advance(self, beams: Beams, log_probabilities: Tensor, ends: Ends) -> tuple[Beams, Tensor]:
        """One token more.

        Args:
            beams: the searches.
            log_probabilities: `[P, K, V]` float, normalised over V, minus infinity for tokens that were filtered out;
                those of rows that are not live are ignored.
            ends: which hypotheses are over; at the limit all are.

        Returns:
            The searches one step on, and which row `[P, K]` int64 each of the new rows continues.
        """

    @abstractmethod
    def ranked(self, beams: Beams) -> Hypotheses:
        """The result, `[P, n]`, best first, with empty places behind."""

    @abstractmethod
    def described(self, ranked: Hypotheses) -> Mapping[str, Tensor]:
        """What there is to say of each hypothesis of a result, `[P, n]` each, by name."""
