"""`Batch`: the rows of one generate call, and what is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout, on_device
from esamp.decoding.step import DecodeStep, InputTokens, Rows

UNLIMITED = 2**62
"""A limit that no sample reaches."""
SEEDS = 2**62
"""Seeds of groups are below this, in every engine."""


@dataclass
class Batch:
    """The rows of one generate call."""

    slots: Sequence[int | None]
    """bank slot of each row"""
    layout: RowLayout
    rows: Rows
    live: Tensor
    """`[B]` bool: rows that go on"""
    input_tokens: InputTokens | None = None
    """what the model reads now"""
    step: DecodeStep | None = None
    """the step whose tokens are not known yet"""
    _taken: int = 0
    _numbers: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """0, 1, 2, ...: positions are views of it, so that counting launches nothing"""

    @classmethod
    def start(
        cls,
        slots: Sequence[int | None],
        *,
        sizes: Sequence[int],
        first: Sequence[int],
        count: int,
        limit: int,
        seeds: Sequence[int],
        stops: Tensor,
        temperature: float,
    ) -> Self:
        """A new call, in which no sample has a token yet.

        Args:
            slots: of each row; rows come group by group.
            sizes: rows of each group.
            first: of each group, how many samples it had in earlier calls.
            count: samples of a group over all calls; 0 if that is not known.
            limit: most tokens of a sample.
            seeds: of each group.
            stops: `[k]` tokens that end a row.
            temperature: of the sampler; 0 is greedy.
        """
        rows = [
            (start + lane, seed) for start, size, seed in zip(first, sizes, seeds, strict=True) for lane in range(size)
        ]
        columns = [
            [index for index, _ in rows],
            [count] * len(slots),
            [0] * len(slots),
            [limit] * len(slots),
            [seed % SEEDS for _, seed in rows],
        ]
        layout = RowLayout.build(slots, stops.device)
        index, total, done, limits, seed = on_device(columns, stops.device).unbind()
        temperatures = torch.full((len(slots),), temperature, device=stops.device)
        known = Rows(index, total, done, limits, seed, stops.expand(len(slots), -1), temperatures)
        return cls(slots, layout, known, layout.placed)

    def count(self) -> None:
        """Every row has one more token."""
        self._taken += 1
        if self._taken >= len(self._numbers):
            self._numbers = torch.arange(max(1024, 2 * self._taken), device=self.live.device)
        self.rows = replace(self.rows, position=self._numbers[self._taken].expand(len(self.slots)))
