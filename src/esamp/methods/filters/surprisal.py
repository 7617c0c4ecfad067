"""Surprisal reweighting: prefer a token for being improbable, whatever anybody learned."""

from typing import Self

from torch import Tensor

from esamp.decoding.step import Rows
from esamp.methods.base import EarlyFilter, ModelShape
from esamp.methods.options import SurprisalOptions
from esamp.options import Options, narrowed


class Surprisal(EarlyFilter):
    """``l_v + s (-log p_v)``, up to a constant ``(1 - s) log p_v``, where ``p_v >= floor * max_u p_u``; the rest goes.

    p is the model's own distribution at temperature 1. So this is temperature T / (1 - s), no more and no less, and for
    s = -beta that T / (1 + beta) which Exploratory Sampling is while its distiller knows nothing. That is the point:
    what a tilt by the surprisal of the token alone can do, a temperature does. With a floor, min-p at temperature 1
    comes before. It acts on every token, the first one included.
    """

    name = "surprisal"
    summary = "prefer tokens by their own surprisal: a temperature in disguise, the control for surprisal"
    citation = "a control of ours for Exploratory Sampling, arXiv 2604.24927"
    options = SurprisalOptions

    def __init__(self, strength: float, floor: float) -> None:
        """Use `build`."""
        self.strength, self.floor = strength, floor

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Nothing depends on the model."""
        own = narrowed(options, SurprisalOptions)
        return cls(own.surprisal_strength, own.surprisal_floor)

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Logits `[R, V]` in; float32 log-probabilities times ``1 - s`` out, minus infinity where dropped."""
        if self.strength == 0 and self.floor == 0:
            return logits
        logp = logits.float().log_softmax(-1)
        tilted = (1 - self.strength) * logp
        if self.floor == 0:
            return tilted
        return tilted.masked_fill((logp - logp.amax(-1, keepdim=True)).exp() < self.floor, float("-inf"))
