"""FIRE: the first token of a sample is drawn very hot, the rest as usual."""

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

    Where a sample's first token is to be drawn, the logits l `[R, V]` become::

        l_v * T / fire_temperature   if l_v is among the fire_k largest (ties with the last one included)
        -infinity                    otherwise

    and the engine, which divides by the request's temperature T, draws from softmax(l / fire_temperature) over them.
    Everything else that the request asks of its sampler acts on that token as on any other, at the hot temperature:
    repetition penalties scale with the logits, top-k cuts further, and top-p and min-p find a nearly flat
    distribution and do little. All later tokens are left alone. What other methods make of the distribution comes
    first if their names come first: in ``top_n_sigma+fire`` the candidates are top-n-sigma's.

    Source: Chen et al. 2025, arXiv 2410.21236: an extreme temperature for the first token, kept in check by top-k.
    30 is the temperature of their implementation, whose k is 16 where the request has none, and the middle one of 10,
    30 and 50 that arXiv 2604.24927 (table 13) tried with equal results.
    """

    name = "fire"
    summary = "draw each sample's first token very hot, from the k most likely, and the rest as usual"
    citation = "Chen et al. 2025, Flaming-hot Initiation with Regular Execution Sampling for LLMs, arXiv 2410.21236"
    options = FireOptions

    def __init__(self, temperature: float, k: int) -> None:
        """Use `build`."""
        self.temperature, self.k = temperature, k

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Nothing depends on the model."""
        own = narrowed(options, FireOptions)
        return cls(own.fire_temperature, own.fire_k)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """As it is.

        Raises:
            OptionError: the first token would not be drawn, or no hotter than the others.
        """
        hot = narrowed(options, FireOptions).fire_temperature
        if sampling.temperature == 0:
            raise OptionError("fire draws the first token, and temperature = 0 draws none: set one above 0")
        if hot <= sampling.temperature:
            raise OptionError(
                f"fire_temperature = {hot} is no hotter than temperature = {sampling.temperature}: raise it"
            )
        return sampling

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Logits `[R, V]` in; rows whose first token is to be drawn come out scaled, without all but the k largest."""
        last = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        scale = torch.where(rows.temperature > 0, rows.temperature / self.temperature, 1.0).unsqueeze(1)
        hot = (logits * scale).to(logits.dtype).masked_fill(logits < last, float("-inf"))
        return torch.where((rows.position == 0).unsqueeze(1), hot, logits)
