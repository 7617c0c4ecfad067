"""`TopNSigma`: top-n-sigma, which keeps the tokens whose logit is within n standard deviations of the best."""

from typing import Self

import torch
from torch import Tensor

from esamp.decoding.step import Rows
from esamp.methods.base import EarlyFilter, ModelShape
from esamp.methods.options import TopNSigmaOptions
from esamp.options import Options, narrowed


class TopNSigma(EarlyFilter):
    """Keeps token v if ``l_v >= max_u l_u - n * std_u(l_u)``.

    ``l`` `[R, V]` are the model's logits, or those of the `DecodeMethod` in the same stack, and ``std`` is their
    unbiased standard deviation, as in the authors' code, over the logits that are finite. Dividing all logits by a
    temperature scales both sides alike, so that the kept set does not depend on it. A token at the threshold is kept,
    as in the paper, so that the best one always is. The request's penalties apply afterwards. Source: Tang et al. 2024,
    arXiv 2411.07641.
    """

    name = "top_n_sigma"
    summary = "keep logits within n standard deviations of the best; the kept set does not depend on temperature"
    citation = "Tang et al. 2024, Top-n-sigma: Not All Logits Are You Need, arXiv 2411.07641"
    options = TopNSigmaOptions

    def __init__(self, n_sigma: float) -> None:
        self.n_sigma = n_sigma

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Set up; the model does not matter."""
        return cls(narrowed(options, TopNSigmaOptions).n_sigma)

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """The logits `[R, V]`, with minus infinity below the threshold."""
        exact = logits.float()
        finite = exact.isfinite()
        count = finite.sum(-1, keepdim=True)
        mean = torch.where(finite, exact, 0.0).sum(-1, keepdim=True) / count.clamp_min(1)
        squares = torch.where(finite, exact - mean, 0.0).square().sum(-1, keepdim=True)
        sigma = (squares / (count - 1).clamp_min(1)).sqrt()
        threshold = exact.amax(-1, keepdim=True) - self.n_sigma * sigma
        return logits.masked_fill(exact < threshold, float("-inf"))
