"""`Measurement`: one kind of measurement of finished groups by a model, and the format in which it is stored."""

import base64
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from esamp.engines.base import Request
from esamp.quoting import shown
from esamp.runs.identity import json_digest
from esamp.study.grid import Cell
from esamp.study.group_measurements import GroupMeasurements
from esamp.study.records import Record
from esamp.study.schema import ModelSpec

MOST = 10**12
"""Stored measurements are smaller than this."""
VERSION = 1
"""Raised when a measurement is computed in another way, so that results of earlier versions are not reused."""
DIGITS = 12
"""Hexadecimal digits of the hashes in the names of files and lines."""
StoredValues: TypeAlias = dict[str, Any]
MeasureGroup: TypeAlias = Callable[[Request, Record], StoredValues]
"""Measures one group and returns the values of its line. The record has the results of earlier measurements."""


@dataclass(frozen=True)
class Measurement:
    """One kind of measurement with one model."""

    name: str
    """name of its files: the kind, and a hash of all settings"""
    title: str
    """description for readers"""
    start: Callable[[ExitStack], MeasureGroup]
    """loads the model; the stack frees it"""
    add: Callable[[GroupMeasurements, Mapping[str, Any]], GroupMeasurements]
    """adds the values of a line to the other measurements of the group"""
    model: ModelSpec | None = None
    """measure only the samples of this model; None for all models"""
    task: str | None = None
    """measure only the samples of this task, by its name in the study; None for all tasks"""
    role: Literal["own", "second"] | None = None
    """of likelihoods: whether under the model that drew the samples or under the second model"""

    def covers(self, cell: Cell) -> bool:
        """Whether this measurement applies to the cell."""
        return (self.model is None or cell.model == self.model) and (self.task is None or cell.task.name == self.task)


def measurement_name(kind: str, settings: Mapping[str, Any]) -> str:
    """The name of a measurement's files."""
    return f"{kind}-{json_digest({'version': VERSION, **settings}, DIGITS)}"


def encode_vectors(vectors: NDArray[np.float32]) -> str:
    """Vectors `[rows, d]` as a base64 text of little-endian float32."""
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


def decode_vectors(text: str, rows: int) -> NDArray[np.float32]:
    """The vectors `[rows, d]` of a text from `encode_vectors`.

    Raises:
        TypeError: `text` is not a text.
        ValueError: `text` is not base64, or not of `rows` vectors.
    """
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32).reshape(rows, -1)


def stored_number(value: float) -> float | None:
    """A measurement for JSON, to six decimals; None for NaN."""
    return None if math.isnan(value) else round(value, 6)


def read_number(stored: object) -> float:
    """The measurement of a value from `stored_number`.

    Raises:
        ValueError: `stored` is not a number in the range of measurements.
    """
    if stored is None:
        return math.nan
    if isinstance(stored, bool) or not isinstance(stored, int | float) or not abs(stored) < MOST:
        raise ValueError(f"{shown(stored)} is not a measurement")
    return float(stored)


def read_count(stored: object) -> int:
    """A stored number of tokens.

    Raises:
        ValueError: `stored` is not a number of tokens.
    """
    if isinstance(stored, bool) or not isinstance(stored, int) or not 0 <= stored < MOST:
        raise ValueError(f"{shown(stored)} is not a number of tokens")
    return stored
