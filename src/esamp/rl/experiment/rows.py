"""The rows of the experiment: one JSON object a line, and their means over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from esamp.errors import InputError
from esamp.rl.experiment.settings import ARMS, Settings

Row: TypeAlias = Mapping[str, Any]
"""A row. Its ``kind`` is "settings" (the first row), "before" (the evaluation of the model before training), "update"
(of a run's weights) or "after" (the evaluation at a run's end). The last two name their ``arm`` and ``seed``."""
MEASURES = ("pass_1", "pass_k", "distinct", "entropy")
"""Measures of an evaluation that the table shows."""
OF_RUNS: Mapping[str, Callable[[Row], float]] = {
    "alike": lambda row: float(row["groups_alike"]),
    "nats": lambda row: float(row["divergence"]) * float(row["length"]),
}
"""Measures of a run, means over its updates: the share of groups whose samples all have the same reward, and how far
off-policy a sample is, in nats."""


@dataclass(frozen=True)
class SeedSpread:
    """A value over the seeds: its mean, its smallest and its largest."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> SeedSpread:
        """The spread of at least one value."""
        return cls(sum(values) / len(values), min(values), max(values))


class RowFile:
    """An append-only file of rows. The rows of a run are added together, at its end."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Open for appending; the first row holds the settings.

        Raises:
            InputError: the file is of other settings, or cannot be read or written.
        """
        self._path, self._settings = path, {"kind": "settings", **_settings(settings)}
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                self.append([self._settings])
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        if read(path)[0] != self._settings:
            raise InputError(f"{path} was written with other settings: give another --out, or the same settings")

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def has(self, kind: str, **values: Any) -> bool:
        """Whether there is a row of this kind with these values."""
        rows = (row for row in read(self._path) if row["kind"] == kind)
        return any(all(row[name] == value for name, value in values.items()) for row in rows)


def _settings(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name not in ("seeds", "out")}


def read(path: Path) -> list[Row]:
    """The rows of a file, the one with the settings first.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no file of rows: {error}") from None
    if not rows or not all(isinstance(row, dict) and "kind" in row for row in rows):
        raise InputError(f"{path} is no file of rows: give another --out")
    return rows


def updates(rows: Sequence[Row], arm: str, name: str) -> list[list[float]]:
    """A measure of each update of an arm, `[updates][seeds]`, as far as all its runs go."""
    runs: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "update" and row["arm"] == arm:
            runs[row["seed"]].append(float(row[name]))
    return [list(values) for values in zip(*runs.values(), strict=False)]


def evaluations(rows: Sequence[Row], arm: str | None) -> list[Row]:
    """The evaluations at the end of an arm's runs; None: the one before training."""
    return [row for row in rows if (row["kind"] == "before" if arm is None else _is_after(row, arm))]


def _is_after(row: Row, arm: str) -> bool:
    return bool(row["kind"] == "after" and row["arm"] == arm)


def _of_runs(rows: Sequence[Row], arm: str, measure: Callable[[Row], float]) -> list[float]:
    """The mean of a measure over the updates of each run of an arm."""
    runs: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "update" and row["arm"] == arm:
            runs[row["seed"]].append(measure(row))
    return [sum(values) / len(values) for values in runs.values()]


def _dicts(cells: Mapping[str, SeedSpread]) -> dict[str, dict[str, float]]:
    return {name: asdict(spread) for name, spread in cells.items()}


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The evaluation before training and those after it, by arm, with the spread over seeds."""
    table = []
    for arm in (None, *ARMS):
        found = evaluations(rows, arm)
        if found:
            cells = {name: SeedSpread.of([row[name] for row in found]) for name in MEASURES}
            if arm is not None:
                cells |= {name: SeedSpread.of(_of_runs(rows, arm, measure)) for name, measure in OF_RUNS.items()}
            tokens = sum(row["tokens"] for row in found) // len(found)
            table.append({"rollouts": arm or "none", "seeds": len(found), "tokens": tokens, **_dicts(cells)})
    return table


def difference(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """A measure after training, exploring minus plain rollouts: the mean over seeds that have both, and its error.

    The standard error is NaN with fewer than two such seeds, and the mean with none.
    """
    plain, exploring = ({row["seed"]: float(row[name]) for row in evaluations(rows, arm)} for arm in ARMS)
    pairs = [exploring[seed] - plain[seed] for seed in plain if seed in exploring]
    mean = statistics.fmean(pairs) if pairs else math.nan
    return mean, statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else math.nan
