"""`Record`: one finished group of samples, as the store keeps it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from esamp.engines.base import Completion, TokenTrace
from esamp.errors import InputError
from esamp.quoting import shown
from esamp.runs.job import finite
from esamp.study.measured import Measured
from esamp.tasks.base import Grade, Item, Task

Value = TypeVar("Value")
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Number: TypeAlias = Annotated[float, Field(strict=True, ge=-1e30, le=1e30)]
Text: TypeAlias = Annotated[str, Field(strict=True)]
Truth: TypeAlias = Annotated[bool, Field(strict=True)]
"""What a line may hold: it may have been edited, so that sums and tables must bear any value."""


@dataclass(frozen=True)
class SampleRecord:
    """One sample and its grade. Of a private task no text is kept, and no tokens."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    index: Count
    text: Text | None
    token_ids: tuple[Count, ...] | None
    tokens: Count
    finish_reason: Text
    correct: Truth
    answer: Text | None
    canonical: Text | None
    reason: Text
    trace: Mapping[str, Sequence[Number | None]] | None = None
    """what the method saw at each token (`esamp.engines.base.TokenTrace`), if the study keeps it; None: not measured"""
    pieces: tuple[Text, ...] | None = None
    """the text that each token adds, where there is a trace and text may be kept"""
    logprob: Number | None = None
    """sum of its tokens' log-probabilities under the model that drew it, at temperature 1, in nats, if it was kept"""


SAMPLES = TypeAdapter(Annotated[tuple[SampleRecord, ...], Field(min_length=1)])
COST = TypeAdapter(dict[str, Annotated[float, Field(strict=True, ge=0, le=1e30)]])
TELEMETRY = TypeAdapter(dict[str, Number | None])
ITEM = TypeAdapter(Text)
DETAILS = TypeAdapter(Mapping[str, Any])
COSTS = ("tokens", "seconds")
"""What reports read of a group's `esamp.engines.base.Cost`."""


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
    """measures that have been computed of it, by their names (`esamp.analysis.measures.value`)"""

    def as_json(self) -> dict[str, Any]:
        """What is written."""
        values = asdict(replace(self, measured=Measured()))
        del values["measured"], values["values"]
        return values

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Record":
        """What was written.

        Raises:
            InputError: it is no record; says which field is wrong, as the end of a sentence.
        """
        samples = _field(SAMPLES, values, "samples")
        cost, telemetry = _field(COST, values, "cost"), _field(TELEMETRY, values, "telemetry")
        for name in COSTS:
            if name not in cost:
                raise InputError(f"its cost has no {name}")
        for place, sample in enumerate(samples):
            if any(len(series) != sample.tokens for series in (sample.trace or {}).values()):
                raise InputError(f"its samples.{place}.trace has not one value a token")
        return cls(_field(ITEM, values, "item"), samples, cost, telemetry, _field(DETAILS, values, "details"))


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


def _field(adapter: TypeAdapter[Value], values: Mapping[str, Any], name: str) -> Value:
    if name not in values:
        raise InputError(f"it has no {name}")
    try:
        return adapter.validate_python(values[name])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (name, *first["loc"])))
        said = first["msg"].removeprefix("Input should be ")
        raise InputError(f"its {place} is {shown(first['input'])}: {said}") from None
