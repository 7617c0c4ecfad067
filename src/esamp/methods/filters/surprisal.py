"""`Surprisal`: surprisal reweighting, which prefers improbable tokens and learns nothing."""

from typing import Self

from torch import Tensor

from esamp.decoding.step import Rows
from esamp.methods.base import EarlyFilter, ModelShape
from esamp.methods.options import SurprisalOptions
from esamp.options import Options, narrowed


class Surprisal(EarlyFilter):
    """``l_v + s (-log p_v)``, up to a constant ``(1 - s) log p_v``, for tokens with ``p_v >= floor * max_u p_u``.

    Other tokens are dropped. p is the model's own distribution at temperature 1, so that this is exactly sampling at
    temperature T / (1 - s); for s = -beta it is T / (1 + beta), which is what Exploratory Sampling amounts to before
    its distiller has learned anything. The control shows that a tilt by a token's surprisal alone is nothing but a
    temperature. A floor acts like min-p at temperature 1. The filter acts on every token, the first one included.
    """

    name = "surprisal"
    summary = "prefer tokens by their own surprisal: a temperature in disguise, the control for surprisal"
    citation = "a control of ours for Exploratory Sampling, arXiv 2604.24927"
    options = SurprisalOptions

    def __init__(self, strength: float, floor: float) -> None:
        self.strength, self.floor = strength, floor

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Set up; the model does not matter."""
        own = narrowed(options, SurprisalOptions)
        return cls(own.surprisal_strength, own.surprisal_floor)

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Float32 log-probabilities `[R, V]` times ``1 - s``, minus infinity where dropped."""
        if self.strength == 0 and self.floor == 0:
            return logits
        logp = logits.float().log_softmax(-1)
        tilted = (1 - self.strength) * logp
        if self.floor == 0:
            return tilted
        return tilted.masked_fill((logp - logp.amax(-1, keepdim=True)).exp() < self.floor, float("-inf"))
