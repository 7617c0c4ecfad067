"""`esamp_static`: steer away from the mean state of other prompts. Does it matter what is learned about the group?"""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer.decision import Direction
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampStaticConfig
from esamp.options import Options


class ESampStatic(ESamp):
    """``h' = hL + beta (hL - g)``, with g the mean state hL of all *other* groups that this engine keeps in slots.

    With many prompts in flight g hardly differs from step to step or from prompt to prompt: it is the mean state of
    generated text in general. Any gain over plain sampling therefore comes from avoiding frequent words and states, not
    from avoiding what the group itself has generated. Rows are not steered while no other group has a token. Prompts
    influence each other, so a server must allow it (setting ``shared``).
    """

    name = "esamp_static"
    summary = "esamp away from the mean state of other prompts: the control for what is learned about the group"
    citation = "a control of ours for Zeng et al. 2026, arXiv 2604.24927"
    options = ESampStaticConfig

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """Always True, because the mean is taken over other requests."""
        return True

    def direction(self, step: DecodeStep) -> Direction:
        """``hL - g`` `[R, d]`; zeros if no other group has a token."""

        def away(record: StepRecord) -> Tensor:
            sums, counts = self.explorer.tally.totals()
            own, layout = record.predictions.past, step.layout
            others = counts.sum() - own.number
            mean = (sums.sum(0) - (own.mean * own.number.unsqueeze(1)).squeeze(1)) / others.clamp_min(1)
            away = step.final.to(mean.dtype) - layout.spread(mean)
            return torch.where(layout.spread(others) > 0.5, away, 0.0)

        return away
