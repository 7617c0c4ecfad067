"""`esamp_subtract`: the prediction is subtracted, and that is all."""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer import fusion
from esamp.explorer.decision import Direction
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp, Mix
from esamp.methods.options import ESampSubtractConfig


class ESampSubtract(ESamp):
    """``logits = head(hL) - beta head(c y)``; for a linear head ``W (hL - beta c y)``, c = 1 without the gate.

    The coefficients add up to 1 - beta where those of `ESamp`, 1 + beta and -beta, add up to 1: what the distiller
    predicts well is not left alone but divided by 1 / (1 - beta), temperature T / (1 - beta). A head bias is not
    subtracted. Source: "subtraction (1 - beta)" in section 5.5 and table 2 of arXiv 2604.24927, ungated there.
    """

    name = "esamp_subtract"
    summary = "esamp by subtraction alone, W (hL - beta y): the control for the form of the fusion"
    options = ESampSubtractConfig

    def direction(self, step: DecodeStep) -> Direction:
        """``-c y`` `[R, d]`."""
        return lambda record: -record.expectation

    def counter(self, step: DecodeStep, record: StepRecord) -> tuple[Tensor, Mix]:
        """``c y`` itself, whose logits are subtracted beta times."""
        beta, steered = self.config.beta, record.rows(record.steered)
        states = fusion.counter_states(torch.zeros_like(step.final), record.change(beta), steered, beta)
        return states, lambda reference, other: fusion.subtracted_logits(reference, other, beta)
