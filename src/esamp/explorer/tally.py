"""`Tally`: sums over the rows of each group, for the mean of its targets and for its telemetry."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.precision import widest_type
from esamp.decoding.telemetry import Summary, summarise
from esamp.explorer.distiller import NOTHING, Past

BASIC = ("rows", "rows_steered", "residual", "variance")
"""Fields that are added up over rows at every step, in this order."""
FULL = (*BASIC, "error_norm", "kl", "kl_rows", "cos_token", "cos_rows")
"""With full telemetry."""
COUNTS = ("steps", "updates", "resets")
"""Fields that are counted by group and step."""


class _Views(NamedTuple):
    """The sums of the groups of a layout, whose slots are neighbours."""

    layout: RowLayout
    targets: Tensor
    """`[G, 1, d]`: the sum of the targets"""
    number: Tensor
    """`[G, 1, 1]`: how many there are"""
    flat_number: Tensor
    """`[G, 1]`: the same"""
    sums: Tensor
    """`[G, 1, d + fields]`: both, and the other fields"""
    steps_and_updates: Tensor
    """`[G, 2]`"""
    resets: Tensor
    """`[G]`"""


class Tally:
    """For each of S slots, in one row: the sum of the targets `[d]`, then one sum for each field.

    A step adds everything with one matrix product. Sums are in float32, exact up to 16 million rows; the sums of a
    released slot are moved to float64 totals.
    """

    def __init__(self, slots: int, size: int, exact: torch.dtype, device: torch.device | str, *, full: bool) -> None:
        """Zeros for `slots` slots and targets of `size` d; `exact` is float32 or float64."""
        self.fields, self._size = FULL if full else BASIC, size
        wide = widest_type(device)
        with torch.inference_mode(False):  # such tensors could never be written to outside of that mode
            self._fresh = torch.zeros(size + len(self.fields), dtype=exact, device=device)
            self._fresh[size] = NOTHING
            self._none = self._fresh[size:].to(wide)
            self._sums = self._fresh.repeat(slots, 1)
            self._counts = torch.zeros(slots, len(COUNTS), dtype=wide, device=device)
            self._retired = torch.zeros(len(self.fields) + len(COUNTS), dtype=wide, device=device)
        self._views: _Views | None = None
        self._ones: tuple[RowLayout, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all sums."""
        return self._sums.nbytes + self._counts.nbytes

    @property
    def sums(self) -> Tensor:
        """`[S, d + fields]`."""
        return self._sums

    @property
    def counts(self) -> Tensor:
        """`[S, 3]` float64, by `COUNTS`."""
        return self._counts

    def grow(self, slots: int) -> None:
        """Make room for `slots` slots."""
        extra = slots - self._sums.shape[0]
        if extra > 0:
            self._views = None
            with torch.inference_mode(False):
                self._sums = torch.cat([self._sums, self._fresh.repeat(extra, 1)])
                self._counts = torch.cat([self._counts, self._counts.new_zeros(extra, len(COUNTS))])

    def clear(self, slot: int) -> None:
        """Move the previous group's sums into the totals, for a new group that claims the slot."""
        self._retired += self._of(slot)
        self._sums[slot] = self._fresh
        self._counts[slot] = 0

    def past(self, layout: RowLayout) -> Past:
        """The targets that the layout's groups have seen."""
        if len(layout.runs) == 1:
            views = self._of_neighbours(layout)
            return Past(views.targets / views.number, views.flat_number)
        sums = layout.of_slots(self._sums).unsqueeze(1)
        number = sums.narrow(-1, self._size, 1)
        return Past(sums.narrow(-1, 0, self._size) / number, number.squeeze(-1))

    def totals(self) -> tuple[Tensor, Tensor]:
        """The sum of the targets `[S, d]` and their number `[S, 1]`, of every slot."""
        return self._sums[:, : self._size], self._sums[:, self._size : self._size + 1]

    def ones(self, layout: RowLayout) -> Tensor:
        """Ones `[G, C, 1]`, made anew only when the batch changes."""
        if self._ones is None or self._ones[0] is not layout:
            self._ones = layout, self._sums.new_ones(layout.groups, layout.lanes, 1)
        return self._ones[1]

    def add(self, layout: RowLayout, rows: Tensor, steps: Tensor, updates: Tensor, resets: Tensor | None) -> None:
        """Add the rows of a step.

        Args:
            layout: of the step.
            rows: `[G, C, d + fields]`: targets and fields; zeros in rows that do not count.
            steps: `[G]` bool: groups that took part.
            updates: `[G]` bool: groups whose distiller learned.
            resets: `[G]` bool: groups whose slot was reset; None if none can be.
        """
        ones = self.ones(layout).mT
        if len(layout.runs) == 1:
            views = self._of_neighbours(layout)
            views.sums.baddbmm_(ones, rows)
            if updates is steps:
                views.steps_and_updates.add_(steps.unsqueeze(1))
            else:
                views.steps_and_updates.add_(torch.stack([steps, updates], dim=-1))
            if resets is not None:
                views.resets.add_(resets)
            return
        self._sums.index_add_(0, layout.slots, torch.bmm(ones, rows).squeeze(1))
        if resets is None and updates is steps:
            counts = steps.unsqueeze(1).expand(-1, 2)
        else:
            counts = torch.stack([steps, updates, *([] if resets is None else [resets])], dim=-1)
        columns = self._counts[:, : counts.shape[1]]
        columns.index_add_(0, layout.slots, counts.to(self._counts.dtype))

    def _of_neighbours(self, layout: RowLayout) -> _Views:
        """The views for a layout of one run, kept until the batch changes."""
        views = self._views
        if views is None or views.layout is not layout:
            sums, counts = layout.of_slots(self._sums).unsqueeze(1), layout.of_slots(self._counts)
            targets, number = sums.narrow(-1, 0, self._size), sums.narrow(-1, self._size, 1)
            flat_number = number.squeeze(-1)
            views = self._views = _Views(layout, targets, number, flat_number, sums, counts[:, :2], counts[:, 2])
        return views

    def report(self, slot: int | None) -> Callable[[], Mapping[str, float]]:
        """`Summary` of one slot, or of all groups there ever were: taken now, read from the device when called."""
        total = self._total(slot)
        return lambda: self._summary(total).as_dict()

    def summary(self, slot: int | None = None) -> Summary:
        """The same at once. Waits for the device."""
        return self._summary(self._total(slot))

    def _total(self, slot: int | None) -> Tensor:
        return self._retired + self._of(slice(None)).sum(0) if slot is None else self._of(slot)

    def _summary(self, total: Tensor) -> Summary:
        return summarise(dict(zip((*self.fields, *COUNTS), total.tolist(), strict=True)))

    def _of(self, slots: int | slice) -> Tensor:
        fields = self._sums[slots, self._size :].to(self._counts.dtype) - self._none
        return torch.cat([fields, self._counts[slots]], dim=-1)
