"""Base classes for methods that keep a state, or counters, for each group: slots and per-slot telemetry, once."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.slots import Slots
from esamp.decoding.step import DecodeStep
from esamp.decoding.telemetry import Telemetry
from esamp.methods.base import DecodeMethod


class SlottedMethod(DecodeMethod):
    """A method whose groups each hold a slot."""

    def __init__(self, slots: Slots) -> None:
        """`slots` are claimed and released as groups come and go."""
        self._slots = slots

    @override
    def admit(self) -> int | None:
        return self._slots.claim()

    @override
    def grow(self, slots: int) -> None:
        self._slots.grow(slots)

    @override
    def release(self, slot: int) -> None:
        self._slots.release(slot)


@dataclass(frozen=True)
class MeasuredSlots:
    """Slots whose telemetry starts at zero when a group claims them."""

    slots: Slots
    telemetry: Telemetry

    def claim(self) -> int | None:
        """Take a free slot with all sums zero; None when all are taken."""
        slot = self.slots.claim()
        if slot is not None:
            self.telemetry.clear(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back; its sums stay in the totals."""
        self.slots.release(slot)

    def grow(self, slots: int) -> None:
        """Have at least this many slots and a row of sums for each."""
        self.slots.grow(slots)
        self.telemetry.grow(slots)


class SharedSlot:
    """One slot that all groups share. It starts anew when a group claims it while no other group is present."""

    def __init__(self, slots: Slots) -> None:
        """Slot 0 of `slots`, of which no other is used."""
        self._slots = slots
        self._groups = 0

    def claim(self) -> int | None:
        """Slot 0."""
        self._groups += 1
        return self._slots.claim() if self._groups == 1 else 0

    def release(self, slot: int) -> None:
        """Free the slot when the last group leaves it."""
        self._groups -= 1
        if not self._groups:
            self._slots.release(slot)

    def grow(self, slots: int) -> None:
        """Have one slot, whatever the number of groups."""
        self._slots.grow(1)


class MeasuredMethod(SlottedMethod):
    """A method whose groups each hold a slot and a row of summed telemetry."""

    def __init__(self, slots: Slots, telemetry: Telemetry) -> None:
        """`telemetry` has a row of sums for each of the `slots`."""
        super().__init__(MeasuredSlots(slots, telemetry))
        self._telemetry = telemetry

    @override
    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        sums = self._telemetry.snapshot(slot)
        return lambda: self.measurements(sums())

    @abstractmethod
    def measurements(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """The report of one group or of all, from their summed telemetry by field."""

    def _sums(self, step: DecodeStep, rows: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums `[G]` of each of the `values` `[R]` over the groups' `rows` `[R]` bool that have a slot."""
        table = torch.stack(list(values.values()), -1).to(self._telemetry.sums.dtype)
        return dict(zip(values, step.layout.to_grid(table, rows).sum(1).unbind(-1), strict=True))
