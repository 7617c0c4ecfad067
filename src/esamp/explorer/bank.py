"""A bank of S slots: the state of every group in flight, stacked."""

import torch
from torch import Tensor

from esamp.explorer.distiller import State


class Bank:
    """S copies of a template state as stacked tensors `[S, ...]`, with slots that are claimed and released.

    `claim` and `release` run on the host when groups come and go. `read` and `write` run on the device at every step.
    """

    def __init__(self, template: State, slots: int) -> None:
        """Allocate `slots` copies of `template`, whose tensors have no slot dimension."""
        self.template = template
        self.tensors: State = {name: _repeat(value, slots) for name, value in template.items()}
        self._free = list(range(slots - 1, -1, -1))
        self._size = slots

    @property
    def size(self) -> int:
        """S."""
        return self._size

    @property
    def in_use(self) -> int:
        """Slots that are claimed."""
        return self._size - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of all stacked tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def claim(self) -> int | None:
        """Take a free slot, re-initialised from the template; None when all S are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        for name, value in self.template.items():
            self.tensors[name][slot] = value
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back.

        Raises:
            ValueError: the slot is not in use.
        """
        if slot in self._free or not 0 <= slot < self._size:
            raise ValueError(f"slot {slot} is not in use")
        self._free.append(slot)

    def grow(self, slots: int) -> None:
        """Enlarge the bank to `slots`, keeping what is in it; a smaller number changes nothing."""
        extra = slots - self._size
        if extra <= 0:
            return
        for name, value in self.template.items():
            more = _repeat(value, extra)
            with torch.inference_mode(False):
                self.tensors[name] = torch.cat([self.tensors[name], more])
        self._free = list(range(slots - 1, self._size - 1, -1)) + self._free
        self._size = slots

    def read(self, slots: Tensor) -> State:
        """The states of `slots` `[G]` int64, each tensor `[G, ...]`."""
        return {name: tensor.index_select(0, slots) for name, tensor in self.tensors.items()}

    def store(self, slots: Tensor, state: State, *, reset: Tensor) -> None:
        """Store `state`, each tensor `[G, ...]`, in `slots` `[G]`; the template instead where `reset` `[G]` bool."""
        for name, template in self.template.items():
            self.tensors[name].index_copy_(0, slots, choose(reset, template, state[name]))


def choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """``yes`` for the groups in `condition` `[G]` bool, ``no`` for the others; both broadcast to `[G, ...]`."""
    return torch.where(condition.view(-1, *[1] * (no.dim() - 1)), yes, no)


def all_finite(state: State) -> Tensor:
    """`[G]` bool: whether every number of a group's state is finite."""
    checks = [tensor.isfinite().flatten(1).all(1) for tensor in state.values()]
    return torch.stack(checks).all(0)


def _repeat(value: Tensor, slots: int) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor could never be written to outside of that mode
        return value.unsqueeze(0).repeat(slots, *[1] * value.dim())
