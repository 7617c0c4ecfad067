"""`esamp_static`: steering away from what other prompts' texts are like. Does what is learned of the group matter?"""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer.decision import Direction
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampStaticConfig
from esamp.options import Options


class ESampStatic(ESamp):
    """``h' = hL + beta (hL - g)``, g the mean state hL of all *other* groups that this engine keeps in slots.

    With many prompts in flight g hardly differs from step to step or from prompt to prompt: it is what generated text
    looks like in general. What gains over plain sampling here is a dislike of frequent words and states, not of what
    the group itself has written. While no other group has a token, rows are left alone. Prompts influence each
    other, so a server must allow it (setting ``shared``).
    """

    name = "esamp_static"
    summary = "esamp away from the mean state of other prompts: the control for what is learned about the group"
    citation = "a control of ours for Zeng et al. 2026, arXiv 2604.24927"
    options = ESampStaticConfig

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """Always: the mean is that of other requests."""
        return True

    def direction(self, step: DecodeStep) -> Direction:
        """``hL - g`` `[R, d]`; zeros where no other group has a token."""

        def away(record: StepRecord) -> Tensor:
            sums, counts = self.explorer.tally.totals()
            own, layout = record.found.past, step.layout
            others = counts.sum() - own.count
            mean = (sums.sum(0) - (own.mean * own.count.unsqueeze(1)).squeeze(1)) / others.clamp_min(1)
            away = step.final.to(mean.dtype) - layout.spread(mean)
            return torch.where(layout.spread(others) > 0.5, away, 0.0)

        return away
