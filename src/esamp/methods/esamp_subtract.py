"""`esamp_subtract`: the prediction is subtracted, and that is all."""

from torch import Tensor

from esamp.methods.esamp import ESamp, Variant
from esamp.methods.options import ESampSubtractConfig
from esamp.step import DecodeStep


class ESampSubtract(ESamp):
    """``logits = head(hL) - beta head(c y)``; for a linear head ``W (hL - beta c y)``, c = 1 without the gate.

    The coefficients add up to 1 - beta where those of `ESamp`, 1 + beta and -beta, add up to 1: what the distiller
    predicts well is not left alone but divided by 1 / (1 - beta), temperature T / (1 - beta). A head bias is not
    subtracted. Source: "subtraction (1 - beta)" in section 5.5 and table 2 of arXiv 2604.24927, ungated there.
    """

    name = "esamp_subtract"
    summary = "esamp by subtraction alone, W (hL - beta y): the control for the form of the fusion"
    options = ESampSubtractConfig
    variant = Variant(subtracts=True)

    def direction(self, step: DecodeStep, error: Tensor, expected: Tensor) -> Tensor:
        """``-c y`` `[R, d]`."""
        return -expected
