"""Slots: places for the groups in flight, and banks that keep a state for each of them."""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

GroupState: TypeAlias = dict[str, Tensor]
"""Named tensors, each `[G, ...]`: one entry per group."""


class Slots(Protocol):
    """Anything that gives out slots to groups. Runs on the host, when groups come and go."""

    def claim(self) -> int | None:
        """Take a free slot in its initial state; None when all are taken."""

    def release(self, slot: int) -> None:
        """Give a slot back."""

    def grow(self, slots: int) -> None:
        """Have at least this many slots; those in use keep their state."""


class FreeSlots:
    """Gives out the numbers from 0 to S - 1, the lowest free one first. Runs on the host, when groups come and go."""

    def __init__(self, slots: int) -> None:
        """All S `slots` are free."""
        self._size = slots
        self._free = list(range(slots - 1, -1, -1))  # the next one last

    @property
    def size(self) -> int:
        """Number of slots S."""
        return self._size

    @property
    def in_use(self) -> int:
        """Slots that are claimed."""
        return self._size - len(self._free)

    def claim(self) -> int | None:
        """Take a free slot; None when all S are taken."""
        return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        """Give a slot back.

        Raises:
            ValueError: the slot is not in use.
        """
        if slot in self._free or not 0 <= slot < self._size:
            raise ValueError(f"slot {slot} is not in use")
        self._free.append(slot)
        self._free.sort(reverse=True)

    def grow(self, slots: int) -> None:
        """Have `slots` slots; a smaller number than S changes nothing."""
        self._free[:0] = range(slots - 1, self._size - 1, -1)
        self._size = max(slots, self._size)


class Bank(FreeSlots):
    """S copies of a template state as stacked tensors `[S, ...]`, one tensor for each name.

    `read` and `store` run on the device at every step.
    """

    def __init__(self, template: Mapping[str, Tensor], slots: int) -> None:
        """Allocate `slots` copies of `template`, whose tensors have no slot dimension."""
        super().__init__(slots)
        self.template = dict(template)
        self.tensors: GroupState = {name: repeated(value, slots) for name, value in template.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all stacked tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def claim(self) -> int | None:
        """Take a free slot, re-initialised from the template; None when all S are taken."""
        slot = super().claim()
        if slot is not None:
            for name, value in self.template.items():
                self.tensors[name][slot] = value
        return slot

    def grow(self, slots: int) -> None:
        """Enlarge the bank to `slots`, keeping what is in it; a smaller number changes nothing."""
        extra = slots - self.size
        super().grow(slots)
        if extra <= 0:
            return
        for name, value in self.template.items():
            self.tensors[name] = enlarged(self.tensors[name], repeated(value, extra))

    def read(self, slots: Tensor) -> GroupState:
        """The states of `slots` `[G]` int64, each tensor `[G, ...]`."""
        return {name: tensor.index_select(0, slots) for name, tensor in self.tensors.items()}

    def store(self, slots: Tensor, state: GroupState, *, reset: Tensor) -> None:
        """Store `state`, each tensor `[G, ...]`, in `slots` `[G]`; the template instead where `reset` `[G]` bool."""
        for name, template in self.template.items():
            wiped = reset.view(-1, *[1] * template.dim())
            self.tensors[name].index_copy_(0, slots, torch.where(wiped, template, state[name]))


def enlarged(table: Tensor, more: Tensor) -> Tensor:
    """`table` `[S, ...]` followed by `more` `[T, ...]`, which may be written to in any mode."""
    with torch.inference_mode(False):  # an inference tensor could never be written to outside of that mode
        return torch.cat([table, more])


def repeated(value: Tensor, slots: int) -> Tensor:
    """`slots` copies of `value` `[...]` one below the other `[slots, ...]`, which may be written to in any mode."""
    with torch.inference_mode(False):  # an inference tensor could never be written to outside of that mode
        return value.unsqueeze(0).repeat(slots, *[1] * value.dim())
