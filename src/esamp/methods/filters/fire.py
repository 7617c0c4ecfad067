"""`Fire`: FIRE, which draws the first token of each sample at a high temperature and the others as usual."""

from typing import Self

import torch
from torch import Tensor

from esamp.decoding.step import Rows
from esamp.errors import OptionError
from esamp.methods.base import EarlyFilter, ModelShape
from esamp.methods.options import FireOptions
from esamp.options import Options, narrowed
from esamp.sampling import Sampling


class Fire(EarlyFilter):
    """Flaming-hot initiation with regular execution.

    For the first token of a sample, the logits l `[R, V]` become::

        l_v * T / fire_temperature   if l_v is among the fire_k largest (ties with the last one included)
        -infinity                    otherwise

    so that the engine, which divides by the request's temperature T, draws from softmax(l / fire_temperature) over
    these tokens. The request's other sampler settings apply to this token as to any other: repetition penalties scale
    with the logits, top-k may drop further tokens, and top-p and min-p have little effect on a nearly flat
    distribution. Later tokens are not changed. In a stack, filters apply in the order of their names: in
    ``top_n_sigma+fire`` the candidates are those of top-n-sigma.

    Source: Chen et al. 2025, arXiv 2410.21236: an extreme temperature for the first token, limited by top-k. Their
    implementation has temperature 30, and k = 16 if the request sets no k; arXiv 2604.24927 (table 13) tried 10, 30 and
    50 with equal results.
    """

    name = "fire"
    summary = "draw each sample's first token very hot, from the k most likely, and the rest as usual"
    citation = "Chen et al. 2025, Flaming-hot Initiation with Regular Execution Sampling for LLMs, arXiv 2410.21236"
    options = FireOptions

    def __init__(self, temperature: float, k: int) -> None:
        self.temperature, self.k = temperature, k

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Set up; the model does not matter."""
        own = narrowed(options, FireOptions)
        return cls(own.fire_temperature, own.fire_k)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's own settings.

        Raises:
            OptionError: the temperature is 0, or not below `fire_temperature`.
        """
        first = narrowed(options, FireOptions).fire_temperature
        if sampling.temperature == 0:
            raise OptionError("fire draws the first token, and temperature = 0 draws none: set one above 0")
        if first <= sampling.temperature:
            raise OptionError(f"fire_temperature = {first} is not above temperature = {sampling.temperature}: raise it")
        return sampling

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """The logits `[R, V]`; at first tokens scaled, with minus infinity except for the k largest."""
        last = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        scale = torch.where(rows.temperature > 0, rows.temperature / self.temperature, 1.0).unsqueeze(1)
        first = (logits * scale).to(logits.dtype).masked_fill(logits < last, float("-inf"))
        return torch.where((rows.position == 0).unsqueeze(1), first, logits)
