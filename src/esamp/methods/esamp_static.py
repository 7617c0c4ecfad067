"""`esamp_static`: steering away from what other prompts' texts are like. Does what is learned of the group matter?"""

import torch
from torch import Tensor

from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampStaticConfig
from esamp.options import Options
from esamp.step import DecodeStep


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

    def direction(self, step: DecodeStep, error: Tensor, expected: Tensor) -> Tensor:
        """``hL - g`` `[R, d]`; zeros where no other group has a token."""
        tensors = self.explorer.bank.tensors
        centres, counts = tensors["own.centre"], tensors["own.count"]
        own_count = step.layout.spread(counts.index_select(0, step.layout.slots))
        own_sum = step.layout.spread(centres.index_select(0, step.layout.slots)) * own_count
        others = counts.sum() - own_count
        mean = ((centres * counts).sum(0) - own_sum) / others.clamp_min(1)
        return torch.where(others > 0.5, step.deep.to(mean.dtype) - mean, 0.0)
