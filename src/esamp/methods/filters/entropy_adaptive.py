"""Entropy-adaptive decoding: a token is a candidate if setting it apart tells much about the distribution."""

from math import log
from typing import Self

import torch
from torch import Tensor

from esamp.decoding.step import Rows
from esamp.methods.base import LateFilter, ModelShape
from esamp.methods.options import EntropyAdaptiveOptions
from esamp.options import Options, narrowed


class EntropyAdaptive(LateFilter):
    """Keeps the k most likely tokens, where k is the last rank whose token lowers the normalised entropy noticeably.

    Probabilities ``p_1 >= p_2 >= ... >= p_V`` `[R, V]` are the softmax of what temperature and the other filters left.
    If only the first k are told apart and the rest, ``r_k = p_{k+1} + ... + p_V``, is spread evenly over the other
    V - k tokens, the normalised entropy is::

        H_k = (- sum_{i <= k} p_i log p_i + r_k log((V - k) / r_k)) / log V          H_0 = 1

    Rank k contributes ``H_{k-1} - H_k >= 0``, and ``k = max {i : H_{i-1} - H_i > entropy_gain}``, at least 1. A flat
    distribution is all noise by this measure: only its best token stays.

    The comparison of ESamp with "an entropy-adaptive decoding baseline that adjusts the candidate set based on each
    token candidate's contribution to the normalized entropy" (arXiv 2604.24927, C.7) has neither formula nor source.
    That it is adaptive decoding (Zhu et al. 2024, arXiv 2402.18223, whose confidence is ``1 - H_k``) is our reading.
    From there are formula and threshold. Their code judges each rank by itself, which can drop a token and keep a
    less likely one, as contributions need not fall from rank to rank; here all tokens up to the last such rank stay.
    """

    name = "entropy_adaptive"
    summary = "keep the tokens that lower the normalised entropy noticeably when told from the rest"
    citation = "Zhu et al. 2024, Improving Open-Ended Text Generation via Adaptive Decoding, arXiv 2402.18223"
    options = EntropyAdaptiveOptions

    def __init__(self, gain: float) -> None:
        """Use `build`."""
        self.gain = gain

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Nothing depends on the model."""
        return cls(narrowed(options, EntropyAdaptiveOptions).entropy_gain)

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Filtered logits `[R, V]` in; minus infinity behind the last noticeable rank out."""
        vocabulary = logits.shape[1]
        p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(1, vocabulary + 1, device=p.device)
        rest = p.flip(-1).cumsum(-1).flip(-1)  # r_{k-1}; summed from the small end, whose digits matter
        before = _spread(rest, vocabulary - rank + 1)
        after = _spread(torch.cat([rest[:, 1:], torch.zeros_like(rest[:, :1])], -1), vocabulary - rank)
        contribution = (before - after + torch.xlogy(p, p)) / log(max(vocabulary, 2))
        last = torch.where(contribution > self.gain, rank, 1).amax(-1, keepdim=True)
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, rank > last)
        return logits.masked_fill(dropped, float("-inf"))


def _spread(mass: Tensor, tokens: Tensor) -> Tensor:
    """``r log(n / r)``: what `mass` `[R, V]` adds to the entropy when spread evenly over `tokens` `[V]`; 0 for none."""
    return torch.xlogy(mass, tokens.clamp_min(1)) - torch.xlogy(mass, mass)
