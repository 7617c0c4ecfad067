"""Simulates decode steps of a `Draw` on models that map a sample's tokens to the next token's probabilities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.randomness import uniform
from esamp.decoding.step import DecodeStep, Rows
from esamp.methods.base import ModelShape

Text = tuple[int, ...]
Model = Callable[[Text], Sequence[float]]
SHAPE = ModelShape(1, {}, 1, torch.device("cpu"))
NO_HEAD: Any = None
"""In place of the LM head, which a draw never uses."""


@dataclass
class Row:
    """A sample that is being drawn."""

    slot: int | None
    index: int
    model: Model
    seed: int = 0
    count: int = 0
    limit: int = 2**62
    stops: tuple[int, ...] = ()
    tokens: list[int] = field(default_factory=list)
    forced: Mapping[int, int] = field(default_factory=dict)
    """tokens by position that replace the chosen ones, as under a grammar"""
    chosen: list[int] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the sample has reached its limit or an end token."""
        return len(self.tokens) >= self.limit or bool(self.tokens and self.tokens[-1] in self.stops)


def describe(rows: Sequence[Row]) -> Rows:
    """The `Rows` of a decode step for these samples."""
    numbers = [[row.index, row.count, len(row.tokens), row.limit, row.seed] for row in rows]
    columns = torch.tensor(numbers, dtype=torch.int64).unbind(1)
    most = max(len(row.stops) for row in rows)
    stops = [[*row.stops, *[-1] * (most - len(row.stops))] for row in rows]
    ends = torch.tensor(stops, dtype=torch.int64).view(len(rows), most)
    return Rows(*columns, ends, temperature=torch.ones(len(rows)))


def step_of(rows: Sequence[Row], live: Tensor | None = None) -> DecodeStep:
    """The decode step of the rows' next tokens; all rows are live by default."""
    layout = RowLayout.build([row.slot for row in rows])
    live = layout.placed if live is None else live & layout.placed
    return DecodeStep(torch.zeros(len(rows), 1), {}, layout, live, NO_HEAD, describe(rows))


def log_odds(rows: Sequence[Row]) -> Tensor:
    """Logits `[R, V]` of the rows' next tokens; those of ended rows are arbitrary."""
    said = [() if row.ended else tuple(row.tokens) for row in rows]
    return torch.tensor([row.model(text) for row, text in zip(rows, said, strict=True)], dtype=torch.float64).log()


def advance(draw: Any, rows: Sequence[Row], moving: Sequence[bool] | None = None) -> None:
    """Run one decode step; rows that have ended or are not set in `moving` take part in it, but are not live."""
    moving = moving or [True] * len(rows)
    live = torch.tensor([not row.ended and moves for row, moves in zip(rows, moving, strict=True)])
    step = step_of(rows, live)
    chosen = draw.choose(log_odds(rows), step)
    tokens = [row.forced.get(len(row.tokens), token) for row, token in zip(rows, chosen.tolist(), strict=True)]
    draw.observe(step, torch.tensor(tokens), step.live)
    for row, token, took_part, choice in zip(rows, tokens, live.tolist(), chosen.tolist(), strict=True):
        if took_part:
            row.tokens.append(token)
            row.chosen.append(choice)


def finish(draw: Any, rows: Sequence[Row]) -> list[Text]:
    """Run all rows in lockstep until they end, and return their tokens."""
    while not all(row.ended for row in rows):
        advance(draw, rows)
    return [tuple(row.tokens) for row in rows]


def again(row: Row, **changes: Any) -> Row:
    """A copy of the row without its tokens, with some fields changed."""
    return replace(row, tokens=[], chosen=[], **changes)


def number(purpose: int, row: Row, position: int, *more: int) -> float:
    """The random number that a draw uses at a position of a row for a purpose."""
    keys = [torch.tensor([key]) for key in (row.index, position, purpose, *more)]
    return float(uniform(torch.tensor([row.seed]), *keys))


def fixed(*probabilities: float) -> Model:
    """A model with the same distribution at every token."""
    return lambda said: probabilities


def table(rows: Mapping[Text, Sequence[float]]) -> Model:
    """A model with a given distribution for each prefix."""
    return lambda said: rows[said]


def random_model(seed: int, vocabulary: int, temperature: float = 1.0) -> Model:
    """A model with a pseudo-random distribution for each prefix."""
    token = torch.arange(vocabulary)

    def probabilities(said: Text) -> list[float]:
        key = uniform(torch.tensor([seed]), *said).view(1).view(torch.int64)
        return (uniform(key, token).log().neg().log().neg() / temperature).softmax(-1).tolist()

    return probabilities
