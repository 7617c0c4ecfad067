"""Whose heads: `OwnHeads` of every prompt, or `SharedHeads` of all prompts, as published."""

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.slots import FreeSlots
from esamp.decoding.step import Rows
from esamp.methods.override.heads import Heads, Turn
from esamp.methods.override.options import OverRIDEOptions


def sizes_of_rounds(n: int, rounds: int) -> tuple[int, ...]:
    """n samples in `rounds` rounds, as even as can be, larger ones first, none of them empty."""
    count = min(rounds, n)
    return tuple(n // count + (place < n % count) for place in range(count))


def round_of(rows: Rows, rounds: int) -> Tensor:
    """`[R]` int64: the round of each row by `sizes_of_rounds`; its index, if nobody told n, up to the last round."""
    count = rows.count.clamp(1, rounds)
    few, larger = rows.count // count, rows.count % count
    border = larger * (few + 1)
    behind = larger + (rows.index - border) // few.clamp_min(1)  # the index itself where n is 0
    return torch.where(rows.index < border, rows.index // (few + 1), behind).clamp(0, rounds - 1)


class OwnHeads(Heads):
    """Every group has heads of its own, two at a time: one that the last round taught and one that this round teaches.

    A group's round is the latest one that any of its rows was in. When it rises, the learner becomes the guide and a
    new learner begins. All rows are decoded against the guide. Those of the last round teach nobody.
    """

    def __init__(self, options: OverRIDEOptions, sizes: tuple[int, int], device: torch.device, slots: int) -> None:
        """Allocate for `slots` groups, with states and tokens of these `sizes`."""
        super().__init__(options, sizes, device, stack=1, halves=2, slots=slots)

    def claim(self) -> int | None:
        """A slot of the bank, with heads that begin."""
        return self.bank.claim()

    def release(self, slot: int) -> None:
        """Free the slot."""
        self.bank.release(slot)

    def grow(self, slots: int) -> None:
        """Enlarge the bank."""
        self.bank.grow(slots)

    @torch.no_grad()
    def begin(self, layout: RowLayout, rows: Rows, live: Tensor) -> Turn:
        """Let groups whose round rises change guides."""
        slots, tensors = layout.slots, self.bank.tensors
        steps, before, turns = (tensors[name].index_select(0, slots) for name in ("steps", "round", "turn"))
        seen = layout.to_grid(round_of(rows, self.rounds), live).amax(1).unsqueeze(1)  # rounds begin with 0
        now = torch.maximum(before, seen)
        rise = (now > before) & (steps > 0)  # [G, 1]
        turns, steps = turns + rise, steps * ~rise
        for name, value in (("steps", steps), ("round", now), ("turn", turns)):
            tensors[name].index_copy_(0, slots, value)
        half, now = (turns % 2).squeeze(1), now.squeeze(1)
        return Turn(
            layout,
            guide=2 * slots + 1 - half,
            learner=2 * slots + half,
            guided=layout.spread(turns > 0),
            taught=layout.spread(now < self.rounds - 1).unsqueeze(1),
            initial=self.initial.index_select(0, now.clamp_max(self.rounds - 2)),
        )


class SharedHeads(Heads):
    """One stack of ``rounds - 1`` heads for all groups, never reset: row i is decoded against head i, teaches i + 1.

    Indices are of samples within their group. Those beyond the last head are left alone.
    """

    def __init__(self, options: OverRIDEOptions, sizes: tuple[int, int], device: torch.device, slots: int) -> None:
        """Allocate for states and tokens of these `sizes`; `slots` are numbers and take no memory."""
        super().__init__(options, sizes, device, stack=options.rounds - 1, halves=1, slots=1)
        self._numbers = FreeSlots(slots)

    def claim(self) -> int | None:
        """A number."""
        return self._numbers.claim()

    def release(self, slot: int) -> None:
        """Free the number."""
        self._numbers.release(slot)

    def grow(self, slots: int) -> None:
        """More numbers."""
        self._numbers.grow(slots)

    @torch.no_grad()
    def begin(self, layout: RowLayout, rows: Rows, live: Tensor) -> Turn:
        """All rows on the one stack."""
        numbers = torch.arange(max(self.stack, live.shape[0]), device=live.device)
        one = numbers[:1]
        heads, index = numbers[: self.stack], rows.index.unsqueeze(1)
        trained = self.bank.tensors["steps"] > 0  # [1, H]
        return Turn(
            RowLayout.together(live.shape[0], live.device),
            guide=one,
            learner=one,
            guided=(index == heads + 1) & trained,
            taught=index == heads,
            initial=self.initial.flatten(0, 1).unsqueeze(0),
        )
