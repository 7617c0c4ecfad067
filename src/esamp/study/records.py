"""`Record`: one finished group of samples, as the store keeps it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from esamp.engines.base import Completion, TokenTrace
from esamp.runs.job import finite
from esamp.study.measured import Measured
from esamp.tasks.base import Grade, Item, Task


@dataclass(frozen=True)
class SampleRecord:
    """One sample and its grade. Of a private task no text is kept, and no tokens."""

    index: int
    text: str | None
    token_ids: tuple[int, ...] | None
    tokens: int
    finish_reason: str
    correct: bool
    answer: str | None
    canonical: str | None
    reason: str
    trace: Mapping[str, Sequence[float | None]] | None = None
    """what the method saw at each token (`esamp.engines.base.TokenTrace`), if the study keeps it; None: not measured"""
    pieces: tuple[str, ...] | None = None
    """the text that each token adds, where there is a trace and text may be kept"""
    logprob: float | None = None
    """sum of its tokens' log-probabilities under the model that drew it, at temperature 1, in nats, if it was kept"""


@dataclass(frozen=True)
class Record:
    """All samples of one group."""

    item: str
    """id of the problem"""
    samples: tuple[SampleRecord, ...]
    cost: Mapping[str, float]
    telemetry: Mapping[str, float | None]
    details: Mapping[str, Any] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    """what was measured of the texts later; kept in files of its own"""
    values: dict[str, float] = field(default_factory=dict, init=False, compare=False, repr=False)
    """measures that have been computed of it, by their names (`esamp.study.measures.value`)"""

    def as_json(self) -> dict[str, Any]:
        """What is written."""
        values = asdict(replace(self, measured=Measured()))
        del values["measured"], values["values"]
        return values

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Record":
        """What was written."""
        samples = tuple(_sample(each) for each in values["samples"])
        return cls(values["item"], samples, values["cost"], values["telemetry"], values["details"])


def record(task: Task, item: Item, completion: Completion) -> Record:
    """Grade a group and keep what may be kept."""
    samples = []
    for sample in completion.samples:
        grade: Grade = task.grade(item, sample.text)
        shown = None if task.private else sample.text
        ids = None if task.private else sample.token_ids
        answer = (grade.answer, grade.canonical, grade.reason)
        told = answer if not task.private else (None, grade.canonical, "")
        count = len(sample.token_ids)
        trace = None if sample.trace is None else _numbers(sample.trace)
        pieces = None if sample.trace is None or task.private else sample.trace.pieces
        own = (sample.index, shown, ids, count, sample.finish_reason, grade.correct, *told)
        samples.append(SampleRecord(*own, trace=trace, pieces=pieces, logprob=sample.logprob))
    details = {} if task.private else dict(completion.details)
    telemetry = finite(completion.telemetry)
    return Record(item.id, tuple(samples), asdict(completion.cost), telemetry, details)


def _numbers(trace: TokenTrace) -> dict[str, list[float | None]]:
    """Every series by name, to five significant digits; None where nothing was measured."""
    series = {name: values.tolist() for name, values in vars(trace).items() if isinstance(values, Tensor)}
    return {name: [_short(value) for value in values] for name, values in series.items()}


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _sample(values: Mapping[str, Any]) -> SampleRecord:
    tuples = {name: tuple(values[name]) for name in ("token_ids", "pieces") if values.get(name) is not None}
    return SampleRecord(**{**values, **tuples})
