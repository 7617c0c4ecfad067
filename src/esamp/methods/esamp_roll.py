"""`esamp_roll`: each sample is steered by another sample's error. Is it the sample's own error that matters?"""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer.decision import Direction
from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampRollConfig


def next_row(step: DecodeStep, values: Tensor) -> Tensor:
    """For each active row, the `values` `[R, d]` of the next active row of its group; the first one follows the last.

    Zeros for a row without another active row in its group, and for rows that are not active.
    """
    layout, live = step.layout, step.active
    present = layout.to_grid(live, live)
    order = (~present).to(torch.int8).argsort(dim=1, stable=True)  # lanes of the group, live ones first
    count = present.sum(1, keepdim=True)
    following = (torch.arange(layout.lanes, device=order.device) + 1).remainder(count.clamp_min(1))
    source = torch.zeros_like(order).scatter(1, order, order.gather(1, following))
    grid = layout.to_grid(values, live)
    rolled = grid.gather(1, source.unsqueeze(-1).expand_as(grid))
    return layout.to_rows(rolled * (present & (count > 1)).unsqueeze(-1))


class ESampRoll(ESamp):
    """``h' = hL + beta e_next``, with e_next the error of the next live sample of the same group.

    The size and statistics of the errors, the learning and the gate are those of `ESamp`; only the assignment of errors
    to samples differs. If `ESamp` worked by pushing samples along directions that matter to the group, regardless of
    the sample that they come from, this would work as well.
    """

    name = "esamp_roll"
    summary = "esamp by the error of the next sample: the control for whose error it is"
    citation = "a control of ours for Zeng et al. 2026, arXiv 2604.24927"
    options = ESampRollConfig

    def direction(self, step: DecodeStep) -> Direction:
        """The errors of the next samples `[R, d]`."""
        return lambda record: next_row(step, record.error)
