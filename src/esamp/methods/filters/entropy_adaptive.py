"""`EntropyAdaptive`: keep the tokens whose identification lowers the normalised entropy noticeably."""

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

    Probabilities ``p_1 >= p_2 >= ... >= p_V`` `[R, V]` are the softmax of the logits after temperature and the engine's
    own filters. If only the first k probabilities are known and the remaining mass, ``r_k = p_{k+1} + ... + p_V``, is
    spread evenly over the other V - k tokens, the normalised entropy is::

        H_k = (- sum_{i <= k} p_i log p_i + r_k log((V - k) / r_k)) / log V          H_0 = 1

    Rank k contributes ``H_{k-1} - H_k >= 0``, and ``k = max {i : H_{i-1} - H_i > entropy_gain}``, at least 1. In a flat
    distribution no rank contributes, and only the best token is kept.

    Section C.7 of arXiv 2604.24927 compares ESamp with "an entropy-adaptive decoding baseline that adjusts the
    candidate set based on each token candidate's contribution to the normalized entropy", and gives neither a formula
    nor a source. We take it to be adaptive decoding (Zhu et al. 2024, arXiv 2402.18223, whose confidence is
    ``1 - H_k``), from which formula and threshold are taken. Its code tests each rank separately, which can drop a
    token and keep a less likely one, as contributions need not decrease; here all tokens up to the last such rank stay.
    """

    name = "entropy_adaptive"
    summary = "keep the tokens whose identification lowers the normalised entropy noticeably"
    citation = "Zhu et al. 2024, Improving Open-Ended Text Generation via Adaptive Decoding, arXiv 2402.18223"
    options = EntropyAdaptiveOptions

    def __init__(self, gain: float) -> None:
        self.gain = gain

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Set up; the model does not matter."""
        return cls(narrowed(options, EntropyAdaptiveOptions).entropy_gain)

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """The filtered logits `[R, V]`, with minus infinity beyond the last noticeable rank."""
        vocabulary = logits.shape[1]
        p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(1, vocabulary + 1, device=p.device)
        rest = p.flip(-1).cumsum(-1).flip(-1)  # r_{k-1}; summed from the smallest term, to keep its digits
        before = _spread(rest, vocabulary - rank + 1)
        after = _spread(torch.cat([rest[:, 1:], torch.zeros_like(rest[:, :1])], -1), vocabulary - rank)
        contribution = (before - after + torch.xlogy(p, p)) / log(max(vocabulary, 2))
        last = torch.where(contribution > self.gain, rank, 1).amax(-1, keepdim=True)
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, rank > last)
        return logits.masked_fill(dropped, float("-inf"))


def _spread(mass: Tensor, tokens: Tensor) -> Tensor:
    """``r log(n / r)``: the entropy of a `mass` r `[R, V]` spread evenly over n `tokens` `[V]`; 0 if there are none."""
    return torch.xlogy(mass, tokens.clamp_min(1)) - torch.xlogy(mass, mass)
