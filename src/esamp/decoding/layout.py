"""`RowLayout`: arranges the rows of a batch, from any mix of groups, on a grid for batched linear algebra."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class SlotRun(NamedTuple):
    """Neighbouring groups of a layout whose slots are neighbours in the bank as well, in the same order."""

    group: int
    """the first group"""
    slot: int
    """its slot"""
    length: int
    """how many groups there are"""


@dataclass(frozen=True)
class RowLayout:
    """Places R rows on a grid of G groups (one bank slot each) by C lanes, C being the largest group's row count.

    Built on the host when the batch changes, used on the device at every step without synchronisation. In the usual
    case, when the rows are the groups' rows in order and every group has C of them, rows and grid are views of each
    other; otherwise rows are gathered.
    """

    slots: Tensor
    """`[G]` int64: the bank slot of each group"""
    place: Tensor
    """`[R]` int64: ``group * C + lane``; ``G * C`` for a row without a slot"""
    cells: Tensor
    """`[G * C]` int64: the row in each cell; 0 in a cell without a row"""
    occupied: Tensor | None
    """`[G, C]` bool: cells that have a row; None if all have one"""
    lanes: int
    """C"""
    runs: tuple[SlotRun, ...]
    """the groups, in order, as runs of neighbouring slots"""
    complete: bool
    """whether every row has a slot"""
    aligned: bool
    """whether row ``group * C + lane`` is in that cell, for all rows and cells"""

    @classmethod
    def build(cls, slots: Sequence[int | None], device: torch.device | str = "cpu") -> Self:
        """Lay out rows, given the bank slot of each row or None for a row without a slot."""
        group_of: dict[int, int] = {}
        lanes_of: list[list[int]] = []
        cells: list[tuple[int, int] | None] = []
        for row, slot in enumerate(slots):
            if slot is None:
                cells.append(None)
                continue
            group = group_of.setdefault(slot, len(group_of))
            if group == len(lanes_of):
                lanes_of.append([])
            cells.append((group, len(lanes_of[group])))
            lanes_of[group].append(row)
        lanes = max(map(len, lanes_of), default=1)
        outside = len(lanes_of) * lanes
        place = [outside if cell is None else cell[0] * lanes + cell[1] for cell in cells]
        held = [row for rows in lanes_of for row in (*rows, *[-1] * (lanes - len(rows)))]
        return cls(
            slots=on_device(list(group_of), device),
            place=on_device(place, device),
            cells=on_device([max(row, 0) for row in held], device),
            occupied=_occupied(held, lanes, device),
            lanes=lanes,
            runs=_runs(list(group_of)),
            complete=None not in cells,
            aligned=held == list(range(len(slots))),
        )

    @classmethod
    def together(cls, rows: int, device: torch.device | str = "cpu") -> Self:
        """All rows in slot 0, in order: the same as `build` with zeros, but without a loop over rows."""
        numbers = torch.arange(rows, device=device)
        return cls(
            slots=torch.zeros(1, dtype=torch.int64, device=device),
            place=numbers,
            cells=numbers,
            occupied=None,
            lanes=rows,
            runs=(SlotRun(0, 0, 1),),
            complete=True,
            aligned=True,
        )

    @cached_property
    def groups(self) -> int:
        """Number of groups G."""
        return self.slots.shape[0]

    @cached_property
    def placed(self) -> Tensor:
        """`[R]` bool: whether the row has a slot."""
        return self.place < self.groups * self.lanes

    def arrange(self, rows: Tensor) -> Tensor:
        """Rows `[R, ...]` on the grid `[G, C, ...]`; cells without a row repeat some other row."""
        if not self.aligned:
            rows = rows.index_select(0, self.cells)
        return rows.view(self.groups, self.lanes, *rows.shape[1:])

    def mask(self, rows: Tensor) -> Tensor:
        """Rows `[R]` bool on the grid `[G, C]`; False in cells without a row."""
        grid = self.arrange(rows)
        return grid if self.occupied is None else grid & self.occupied

    def of_slots(self, table: Tensor) -> Tensor:
        """The rows `[G, ...]` of the groups' slots in `table` `[S, ...]`: a view where the slots are neighbours."""
        if len(self.runs) == 1:
            return table.narrow(0, self.runs[0].slot, self.groups)
        return table.index_select(0, self.slots)

    def to_grid(self, rows: Tensor, live: Tensor) -> Tensor:
        """Rows `[R, ...]` on the grid `[G, C, ...]`; cells without a row in `live` `[R]` are zero, NaN rows too."""
        grid = self.arrange(rows)
        return grid.masked_fill(~self.mask(live).view(*grid.shape[:2], *[1] * (rows.dim() - 1)), 0)

    def to_rows(self, grid: Tensor) -> Tensor:
        """Grid `[G, C, ...]` back to rows `[R, ...]`; rows without a slot get zeros."""
        flat = grid.reshape(self.groups * self.lanes, *grid.shape[2:])
        if self.aligned:
            return flat
        if not self.complete:
            flat = torch.cat([flat, flat.new_zeros(1, *flat.shape[1:])])
        return flat.index_select(0, self.place)

    def spread(self, per_group: Tensor) -> Tensor:
        """One value per group `[G, ...]` to each of its rows `[R, ...]`; zeros for rows without a slot."""
        return self.to_rows(per_group.unsqueeze(1).expand(-1, self.lanes, *per_group.shape[1:]))


def on_device(values: Sequence[Any], device: torch.device | str, dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers, nested to any depth, on `device`, without waiting for a GPU."""
    on_gpu = torch.device(device).type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=on_gpu).to(device, non_blocking=on_gpu)


def copied_to(device: torch.device | str, values: NDArray[np.integer[Any]]) -> Tensor:
    """A copy of whole numbers on the host as int64 on `device`, without waiting for a GPU."""
    copy = torch.from_numpy(values.astype(np.int64))
    return copy.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else copy.to(device)


def _occupied(held: Sequence[int], lanes: int, device: torch.device | str) -> Tensor | None:
    if -1 not in held:
        return None
    return on_device([row >= 0 for row in held], device, torch.bool).view(-1, lanes)


def _runs(slots: Sequence[int]) -> tuple[SlotRun, ...]:
    runs: list[SlotRun] = []
    for group, slot in enumerate(slots):
        last = runs[-1] if runs else None
        if last is not None and slot == last.slot + last.length:
            runs[-1] = last._replace(length=last.length + 1)
        else:
            runs.append(SlotRun(group, slot, 1))
    return tuple(runs)
