"""The contrast signal: how the running mean of one sample differs from the running mean of the others in its group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.slots import GroupState

HALF = 8.0
"""Tokens after which a mean is trusted by half."""


@dataclass(frozen=True)
class Contrast:
    """What `SampleMeans` finds for the rows of a step, on the grid of groups G by lanes C."""

    own: Tensor
    """`[G, C, d]` the mean of the row's own sample; zeros before its first token"""
    difference: Tensor
    """`[G, C, d]` own mean minus the mean of the group's other samples; zeros where either has no token yet"""
    confidence: Tensor
    """`[G, C]` in [0, 1]: ``n / (n + 8) * N / (N + 8)`` for n tokens of the sample and N of the others"""


class SampleMeans:
    """Keeps one exponentially forgotten mean of the target states for each sample of a group.

    With sums S_i and token counts n_i, both multiplied by `forgetting` before each new token of sample i is added::

        m_own = S_i / n_i        m_others = sum_(j != i) S_j / sum_(j != i) n_j
        e = c (m_own - m_others)

    What all samples share, such as format, function words and topic, cancels in the difference, so that each sample is
    pushed toward what sets it apart. A finished sample keeps its mean, which later waves are compared with. Sample i
    uses row ``i modulo samples`` of the table, so that in larger groups several samples share one mean.
    """

    def __init__(
        self,
        target_size: int,
        *,
        samples: int,
        forgetting: float,
        exact: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """`target_size` d; `samples` K means a group; `exact` is the type of the sums."""
        self.target_size, self.samples, self.forgetting = target_size, samples, forgetting
        self.exact, self.device = exact, device

    def template(self) -> GroupState:
        """``sums`` `[K, d]` and ``tokens`` `[K]` of a group that has seen nothing."""
        return {
            "sums": torch.zeros(self.samples, self.target_size, dtype=self.exact, device=self.device),
            "tokens": torch.zeros(self.samples, dtype=self.exact, device=self.device),
        }

    def compare(self, state: GroupState, sample: Tensor) -> Contrast:
        """The contrast of each cell, `sample` `[G, C]` int64 being the index of its sample in the group."""
        row = sample.remainder(self.samples)
        tokens = state["tokens"].gather(1, row)
        sums = state["sums"].gather(1, self._wide(row))
        other_tokens = state["tokens"].sum(1, keepdim=True) - tokens
        other_sums = state["sums"].sum(1, keepdim=True) - sums
        own = sums / tokens.clamp_min(1).unsqueeze(-1)
        others = other_sums / other_tokens.clamp_min(1).unsqueeze(-1)
        known = (tokens > 0) & (other_tokens > 0.5)
        confidence = tokens / (tokens + HALF) * other_tokens / (other_tokens + HALF)
        return Contrast(own, (own - others) * known.unsqueeze(-1), confidence * known)

    def learn(self, state: GroupState, sample: Tensor, target: Tensor, live: Tensor) -> None:
        """Add the rows `target` `[G, C, d]` to `state` in place; rows not in `live` `[G, C]` bool are zero."""
        row = sample.remainder(self.samples)
        new = torch.zeros_like(state["tokens"]).scatter_add(1, row, live.to(self.exact))
        kept = torch.ones_like(new).masked_fill(new > 0, self.forgetting)
        state["sums"].mul_(kept.unsqueeze(-1)).scatter_add_(1, self._wide(row), target)
        state["tokens"].mul_(kept).add_(new)

    def _wide(self, row: Tensor) -> Tensor:
        return row.unsqueeze(-1).expand(-1, -1, self.target_size)
