"""`OwnHeads`, a pair of heads for each prompt, and `SharedHeads`, one stack for all prompts as in the public code."""

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.layout import RowLayout
from esamp.decoding.slots import FreeSlots
from esamp.decoding.step import Rows
from esamp.methods.override.heads import Assignment, Heads
from esamp.methods.override.options import OverRIDEOptions


def round_of(rows: Rows, rounds: int) -> Tensor:
    """`[R]` int64: the round of each row, by `even_waves`; where n is unknown, its index, at most ``rounds - 1``."""
    count = rows.count.clamp(1, rounds)
    few, larger = rows.count // count, rows.count % count
    border = larger * (few + 1)
    behind = larger + (rows.index - border) // few.clamp_min(1)  # the index itself where n is 0
    return torch.where(rows.index < border, rows.index // (few + 1), behind).clamp(0, rounds - 1)


class OwnHeads(Heads):
    """Two heads for each group: the guide, trained on the previous round, and the learner, trained on this one.

    A group's round is the latest one that any of its rows belongs to. When it rises, the learner becomes the guide and
    a new learner starts. All rows are reweighted by the guide. No head is trained on the last round.
    """

    def __init__(self, options: OverRIDEOptions, sizes: tuple[int, int], device: torch.device, slots: int) -> None:
        """Allocate for `slots` groups; `sizes` are d and V."""
        super().__init__(options, sizes, device, stack=1, halves=2, slots=slots)
        self.slots = self.bank

    @override
    @torch.no_grad()
    def assign(self, layout: RowLayout, rows: Rows, live: Tensor) -> Assignment:
        slots, tensors = layout.slots, self.bank.tensors
        steps, before, swaps = (tensors[name].index_select(0, slots) for name in ("steps", "round", "swaps"))
        seen = layout.to_grid(round_of(rows, self.rounds), live).amax(1).unsqueeze(1)  # [G, 1]
        now = torch.maximum(before, seen)
        rise = (now > before) & (steps > 0)  # [G, 1]
        swaps, steps = swaps + rise, steps * ~rise
        for name, value in (("steps", steps), ("round", now), ("swaps", swaps)):
            tensors[name].index_copy_(0, slots, value)
        half, now = (swaps % 2).squeeze(1), now.squeeze(1)
        return Assignment(
            layout,
            guide=2 * slots + 1 - half,
            learner=2 * slots + half,
            guided=layout.spread(swaps > 0),
            trained=layout.spread(now < self.rounds - 1).unsqueeze(1),
            initial=self.initial.index_select(0, now.clamp_max(self.rounds - 2)),
        )


class SharedHeads(Heads):
    """One stack of ``rounds - 1`` heads for all groups, never reset.

    With heads numbered from 1 and samples from 0 within their group, sample i is reweighted by head i and trains head
    i + 1. Samples beyond the last head are not changed.
    """

    def __init__(self, options: OverRIDEOptions, sizes: tuple[int, int], device: torch.device, slots: int) -> None:
        """Allocate one stack; `sizes` are d and V. The `slots` of groups take no memory."""
        super().__init__(options, sizes, device, stack=options.rounds - 1, halves=1, slots=1)
        self.slots = FreeSlots(slots)

    @override
    @torch.no_grad()
    def assign(self, layout: RowLayout, rows: Rows, live: Tensor) -> Assignment:
        numbers = torch.arange(max(self.stack, live.shape[0]), device=live.device)
        one = numbers[:1]
        heads, index = numbers[: self.stack], rows.index.unsqueeze(1)
        ready = self.bank.tensors["steps"] > 0  # [1, H]
        return Assignment(
            RowLayout.together(live.shape[0], live.device),
            guide=one,
            learner=one,
            guided=(index == heads + 1) & ready,
            trained=index == heads,
            initial=self.initial.flatten(0, 1).unsqueeze(0),
        )
