"""`Part`: one kind of measurement of finished groups, and how its results are stored."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from esamp.engines.base import Request
from esamp.quoting import shown
from esamp.study.grid import Cell
from esamp.study.measured import Measured
from esamp.study.records import Record
from esamp.study.specs import ModelSpec

MOST = 10**12
"""Measurements are below it."""
VERSION = 1
"""Raised when a measure is computed in another way, so that what was measured before is not taken for it."""
Values: TypeAlias = dict[str, Any]
Measure: TypeAlias = Callable[[Request, Record], Values]
"""What is written of one group. The record has what earlier parts of the study measured."""


@dataclass(frozen=True)
class Part:
    """One kind of measurement with one model."""

    name: str
    """of its files: what is measured, and a hash of how"""
    title: str
    """what is done, for people"""
    start: Callable[[ExitStack], Measure]
    """loads the model, which the stack closes"""
    put: Callable[[Measured, Mapping[str, Any]], Measured]
    """adds what was written to what else is known of the group"""
    only: ModelSpec | None = None
    """the model whose samples it measures; None for all"""
    task: str | None = None
    """the task, by its name in the study, whose samples it measures; None for all"""
    role: Literal["own", "second"] | None = None
    """of a part that measures likelihoods: whose"""

    def covers(self, cell: Cell) -> bool:
        """Whether this part measures the cell."""
        return (self.only is None or cell.model == self.only) and (self.task is None or cell.task.name == self.task)


def part_name(kind: str, settings: Mapping[str, Any]) -> str:
    """The name of a part's files."""
    text = json.dumps({"version": VERSION, **settings}, sort_keys=True)
    return f"{kind}-{digest(text)}"


def digest(text: str) -> str:
    """12 hexadecimal digits of a hash."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]


def packed(vectors: NDArray[np.float32]) -> str:
    """Vectors as text for JSON."""
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


def unpacked(text: str, rows: int) -> NDArray[np.float32]:
    """The vectors `[rows, d]` that `packed` wrote.

    Raises:
        TypeError: it is no text.
        ValueError: it holds something else.
    """
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32).reshape(rows, -1)


def number(value: float) -> float | None:
    """A measurement for JSON, which has no NaN."""
    return None if math.isnan(value) else round(value, 6)


def value(number: object) -> float:
    """The measurement that `number` wrote.

    Raises:
        ValueError: it is something else.
    """
    if number is None:
        return math.nan
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < MOST:
        raise ValueError(f"{shown(number)} is no measurement")
    return float(number)


def count(number: object) -> int:
    """A number of tokens, as it was written.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MOST:
        raise ValueError(f"{shown(number)} is no number of tokens")
    return number
