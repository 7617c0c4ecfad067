"""`esamp_subtract`: subtract the logits of the prediction, without the complementary weight on the model's own."""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer import fusion
from esamp.explorer.decision import Direction
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp, Mix
from esamp.methods.options import ESampSubtractConfig


class ESampSubtract(ESamp):
    """``logits = head(hL) - beta head(c y)``; for a linear head ``W (hL - beta c y)``, with c = 1 without the gate.

    The coefficients add up to 1 - beta; those of `ESamp`, 1 + beta and -beta, add up to 1. A row that the distiller
    predicts well is therefore not unchanged but sampled at temperature T / (1 - beta). A head bias is not subtracted.
    Source: "subtraction (1 - beta)" in section 5.5 and table 2 of arXiv 2604.24927, without a gate.
    """

    name = "esamp_subtract"
    summary = "esamp by subtraction alone, W (hL - beta y): the control for the form of the fusion"
    options = ESampSubtractConfig

    def direction(self, step: DecodeStep) -> Direction:
        """``-c y`` `[R, d]`."""
        return lambda record: -record.expectation

    def counter(self, step: DecodeStep, record: StepRecord) -> tuple[Tensor, Mix]:
        """``c y``, whose logits are subtracted with weight beta."""
        beta, steered = self.config.beta, record.rows(record.steered)
        states = fusion.counter_states(torch.zeros_like(step.final), record.change(beta), steered, beta)
        return states, lambda reference, other: fusion.subtracted_logits(reference, other, beta)
