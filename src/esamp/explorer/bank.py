"""`PackedBank`: the state of every group in flight, packed so that a decode step needs few operations."""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.slots import GroupState, repeated

WORKSPACE = 64 << 20
"""Bytes that one step may take beside the bank; larger states are worked on by a few groups at a time."""

RESET_IN_PLACE = 128 << 10
"""Bytes of state up to which slots are reset in place: fewer launches than through the spare row, but more bytes."""


class Field(NamedTuple):
    """Where a named tensor lies within a slot's row of its storage."""

    storage: str
    start: int
    shape: torch.Size

    @property
    def end(self) -> int:
        """One past the last number."""
        return self.start + prod(self.shape)


class Piece(NamedTuple):
    """The state of some neighbouring groups of a layout, to be read and changed in place."""

    first: int
    """the first group"""
    groups: int
    state: GroupState
    """each tensor `[groups, ...]`"""

    def of(self, per_group: Tensor) -> Tensor:
        """The part `[groups, ...]` of `per_group` `[G, ...]` that belongs to these groups."""
        return per_group if self.covers(per_group) else per_group.narrow(0, self.first, self.groups)

    def covers(self, per_group: Tensor) -> bool:
        """Whether these are all groups of `per_group` `[G, ...]`."""
        return self.groups == per_group.shape[0]


class PackedBank:
    """S copies of a template state. All numbers of one type and lifetime lie side by side in a slot's row.

    One operation therefore reads, writes or resets all numbers of a type. If the groups of a step have neighbouring
    slots, as is usual, a step works on views of the bank and copies nothing.

    Tensors of `state` start again from the template when a slot is reset, those of `kept` only when it is claimed. The
    host need not know which slots are reset: the template is written to the slots concerned and, for all others, to a
    spare row. Small states of neighbouring slots are written in place instead, with the template or what they hold.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        slots: int,
        *,
        workspace: int = WORKSPACE,
        reset_in_place: int = RESET_IN_PLACE,
    ) -> None:
        """Allocate `slots` copies of both templates, whose tensors have no slot dimension.

        `workspace` is how many bytes a step may take beside the bank, as far as one group at a time allows it, and
        `reset_in_place` up to how many bytes of `state` slots are reset in place.
        """
        self.size, self._workspace, self._most_in_place = slots, workspace, reset_in_place
        self.template: GroupState = {**state, **kept}
        self._fields: dict[str, Field] = {}
        self._rows: GroupState = {}
        """by storage: the template of a slot's row `[P]`"""
        for kind, tensors in (("state", state), ("kept", kept)):
            by_type: dict[str, list[str]] = {}
            for name, tensor in tensors.items():
                by_type.setdefault(f"{kind} {tensor.dtype}", []).append(name)
            for storage, names in by_type.items():
                self._pack(storage, names)
        self._resettable = [storage for storage in self._rows if storage.startswith("state")]
        self._reset_bytes = sum(self._rows[storage].nbytes for storage in self._resettable)
        self._storage: GroupState = {}
        self._allocate(slots)

    def _pack(self, storage: str, names: list[str]) -> None:
        start = 0
        for name in names:
            self._fields[name] = Field(storage, start, self.template[name].shape)
            start = self._fields[name].end
        with torch.inference_mode(False):
            self._rows[storage] = torch.cat([self.template[name].reshape(-1) for name in names])

    def _allocate(self, slots: int) -> None:
        for storage, row in self._rows.items():
            old = self._storage.get(storage)
            new = repeated(row, slots + storage.startswith("state"))
            if old is not None:
                kept = old[: self.size]
                new[: len(kept)] = kept
            self._storage[storage] = new
            self._spare = new.new_full((), slots, dtype=torch.int64)
        self.tensors: GroupState = {name: self._view(name, slots) for name in self._fields}
        """by name: views `[S, ...]`"""
        self._latest: dict[tuple[int, tuple[str, ...]], tuple[RowLayout, tuple[Piece]]] = {}
        """by scratch and names: the latest layout whose groups were one piece, and that piece"""
        self._in_place: tuple[RowLayout, list[tuple[Tensor, Tensor]]] | None = None
        """the latest layout whose slots were reset in place, and the result of `_rows_in_place` for it"""

    @property
    def nbytes(self) -> int:
        """Bytes of the slots, the spare row and the template."""
        return sum(each.nbytes for tensors in (self._storage, self._rows) for each in tensors.values())

    def refresh(self, slot: int) -> None:
        """Start a slot again from both templates, for a new group."""
        for storage, row in self._rows.items():
            self._storage[storage][slot] = row

    def grow(self, slots: int) -> None:
        """Enlarge the bank to `slots`, keeping what is in it; a smaller number changes nothing."""
        if slots > self.size:
            self._allocate(slots)
            self.size = slots

    def read(self, layout: RowLayout, *names: str) -> GroupState:
        """The tensors `names` `[G, ...]` of the layout's groups: views if their slots are neighbours, else copies."""
        if len(layout.runs) == 1:
            return next(iter(self.pieces(layout, *names))).state
        by_storage: dict[str, list[Field]] = {}
        for name in names:
            by_storage.setdefault(self._fields[name].storage, []).append(self._fields[name])
        found: dict[str, tuple[Tensor, int]] = {}
        for storage, fields in by_storage.items():
            start, end = min(field.start for field in fields), max(field.end for field in fields)
            found[storage] = self._storage[storage][:, start:end].index_select(0, layout.slots), start
        return {name: _unpacked(*found[self._fields[name].storage], self._fields[name]) for name in names}

    def located(self, name: str) -> tuple[Tensor, int]:
        """Where a tensor lies: a storage with one row for each slot, and the number in a row at which it begins."""
        field = self._fields[name]
        return self._storage[field.storage], field.start

    def pieces(self, layout: RowLayout, *names: str, scratch: int = 0, write: bool = False) -> Iterable[Piece]:
        """The tensors `names` of all groups, in one piece if a step's workspace allows it, else in several.

        Args:
            layout: of the groups.
            names: of the tensors.
            scratch: bytes that the caller will need for each group beside them.
            write: whether what the caller changes in place is to be kept.
        """
        known = self._latest.get((scratch, names))
        if known is not None and known[0] is layout:  # as in every step until the batch changes
            return known[1]
        if len(layout.runs) == 1 and (layout.groups == 1 or layout.groups * scratch <= self._workspace):
            piece = self._neighbours(0, layout.runs[0].slot, layout.groups, names)
            self._latest[scratch, names] = layout, (piece,)
            return (piece,)
        return self._several(layout, names, scratch, write=write)

    def _several(self, layout: RowLayout, names: tuple[str, ...], scratch: int, *, write: bool) -> Iterator[Piece]:
        copied = scratch + sum(prod(self._fields[n].shape) * self.template[n].element_size() for n in names)
        if len(layout.runs) != 1 and layout.groups * copied <= self._workspace:
            state = self.read(layout, *names)
            yield Piece(0, layout.groups, state)
            if write:
                for name in names:
                    self.tensors[name].index_copy_(0, layout.slots, state[name])
            return
        most = max(1, self._workspace // max(scratch, 1))
        for run in layout.runs:
            for offset in range(0, run.length, most):
                groups = min(most, run.length - offset)
                yield self._neighbours(run.group + offset, run.slot + offset, groups, names)

    def _neighbours(self, first: int, slot: int, groups: int, names: tuple[str, ...]) -> Piece:
        """Views of the tensors `names` of so many `groups` from a `slot` on."""
        return Piece(first, groups, {name: self.tensors[name].narrow(0, slot, groups) for name in names})

    def reset(self, layout: RowLayout, groups: Tensor) -> None:
        """Start the state of the `groups` `[G]` bool again from the template."""
        if not self._resettable:
            return
        if len(layout.runs) == 1 and layout.groups * self._reset_bytes <= self._most_in_place:
            reset = groups.unsqueeze(1)
            for template, own in self._rows_in_place(layout):
                torch.where(reset, template, own, out=own)
            return
        slots = torch.where(groups, layout.slots, self._spare)
        for storage in self._resettable:
            self._storage[storage].index_copy_(0, slots, self._rows[storage].expand(layout.groups, -1))

    def _rows_in_place(self, layout: RowLayout) -> list[tuple[Tensor, Tensor]]:
        """The template and the groups' rows of each storage that is reset, kept until the batch changes."""
        if self._in_place is None or self._in_place[0] is not layout:
            rows = [(self._rows[each], layout.of_slots(self._storage[each])) for each in self._resettable]
            self._in_place = layout, rows
        return self._in_place[1]

    def _view(self, name: str, slots: int) -> Tensor:
        field = self._fields[name]
        return _unpacked(self._storage[field.storage][:slots], 0, field)


def _unpacked(rows: Tensor, start: int, field: Field) -> Tensor:
    """A field `[G, ...]` of `rows` `[G, P]`, which begin at the number `start` of a slot's row."""
    return rows[:, field.start - start : field.end - start].view(-1, *field.shape)
