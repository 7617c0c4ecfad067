"""`StackSlots`: the slots of a stack, shared by its method of states and its draw."""

from dataclasses import dataclass

from esamp.decoding.slots import FreeSlots
from esamp.methods.base import DecodeMethod, Draw


@dataclass(frozen=True)
class StackSlots:
    """Slots that come from the inner method, or from `free` if there is none; the draw uses the same ones."""

    inner: DecodeMethod | None
    draw: Draw | None
    free: FreeSlots

    def claim(self) -> int | None:
        """Take a free slot, cleared in all parts; None when all are taken."""
        slot = self.free.claim() if self.inner is None else self.inner.admit()
        if slot is not None and self.draw is not None:
            self.draw.clear(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        (self.free.release if self.inner is None else self.inner.release)(slot)

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups in all parts."""
        for part in (self.free, self.inner, self.draw):
            if part is not None:
                part.grow(slots)
