"""The decision of a step: which rows are steered, and to which states."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from esamp.explorer import fusion
from esamp.explorer.config import ESampConfig
from esamp.explorer.record import StepRecord
from esamp.explorer.rls import squares

Direction: TypeAlias = Callable[[StepRecord], Tensor]
"""What beta scales `[R, d]` in place of the error, from a record whose decision is still open."""
TINY = 1e-20
"""Squared lengths up to this count as zero: they come from rounding, or from the confidence of a group without rows."""


def decide(record: StepRecord, config: ESampConfig, direction: Direction | None, *, gain: float) -> None:
    """Fill in the fields `live`, `steered`, `tilted` and `delta` of a record; `gain` is that of the action memory.

    A row is steered if its change is a finite vector that is not zero. One length tells both, and so does the squared
    error of the prediction where the change is a multiple of it: numbers that are not finite show in either factor.
    """
    layout, final, predictions = record.layout, record.final, record.predictions
    reach = record.missed
    if direction is not None or predictions.memory is not None:
        record.delta = _delta(record, config, direction, gain)
        reach = squares(layout.arrange(record.delta))
    elif predictions.signal is not predictions.residual:
        reach = squares(predictions.signal)
    if reach is not record.missed and config.signal != "action":
        reach = torch.add(reach, record.missed, alpha=0)  # changes only values that are not finite
    if predictions.strength is not None and record.varied is not record.missed:
        reach = reach * predictions.strength.squeeze(-1)
    record.live = record.active & (reach < torch.inf)
    record.steered = record.live & (reach > TINY)
    if not config.steers:
        record.steered = torch.zeros_like(record.steered)
        record.tilted = final
        return
    if record.delta is None:
        on_grid = fusion.tilted_states(layout.arrange(final), predictions.signal, predictions.strength, config.beta)
        tilted = layout.to_rows(on_grid)
    else:
        tilted = (final + record.delta).to(final.dtype)
    steered = layout.to_rows(record.steered)
    if final.dtype == torch.float16:  # ends at 65504
        steered = steered & tilted.isfinite().all(-1)
        record.steered = layout.mask(steered)
    record.tilted = torch.where(steered.unsqueeze(-1), tilted, final)


def _delta(record: StepRecord, config: ESampConfig, direction: Direction | None, gain: float) -> Tensor:
    """beta e - gain a `[R, d]`; `direction` replaces e."""
    pushed = None
    if config.steers_state:
        pushed = config.beta * (record.error if direction is None else direction(record))
    if record.predictions.memory is None:
        return torch.zeros_like(record.error) if pushed is None else pushed
    action = record.rows(record.predictions.memory.value)
    return action * -gain if pushed is None else torch.sub(pushed, action, alpha=gain)
