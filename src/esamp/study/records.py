"""`Record`: one finished group of samples as the store keeps it. Lines are validated, since stores may be edited."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from esamp.engines.base import Completion
from esamp.engines.token_trace import TokenTrace
from esamp.errors import InputError
from esamp.quoting import shown
from esamp.runs.job import finite
from esamp.study.group_measurements import GroupMeasurements
from esamp.tasks.base import Item, Task

FieldValue = TypeVar("FieldValue")
StoredCount: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
StoredNumber: TypeAlias = Annotated[float, Field(strict=True, ge=-1e30, le=1e30)]
StoredText: TypeAlias = Annotated[str, Field(strict=True)]
StoredBool: TypeAlias = Annotated[bool, Field(strict=True)]
"""Types of the values in a line. Their ranges keep sums and tables finite whatever a store holds."""


@dataclass(frozen=True)
class SampleRecord:
    """One sample and its grade. Texts and tokens of private tasks are not kept."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    index: StoredCount
    text: StoredText | None
    token_ids: tuple[StoredCount, ...] | None
    tokens: StoredCount
    finish_reason: StoredText
    correct: StoredBool
    answer: StoredText | None
    canonical: StoredText | None
    reason: StoredText
    trace: Mapping[str, Sequence[StoredNumber | None]] | None = None
    """measurements of each token (`TokenTrace`), if the study keeps them; None where not measured"""
    pieces: tuple[StoredText, ...] | None = None
    """the text that each token adds, if there is a trace and the task is not private"""
    logprob: StoredNumber | None = None
    """sum of the tokens' log-probabilities under the model that drew them, at temperature 1, in nats, if the engine
    measured it"""


SAMPLES = TypeAdapter(Annotated[tuple[SampleRecord, ...], Field(min_length=1)])
COST = TypeAdapter(dict[str, Annotated[float, Field(strict=True, ge=0, le=1e30)]])
TELEMETRY = TypeAdapter(dict[str, StoredNumber | None])
ITEM = TypeAdapter(StoredText)
DETAILS = TypeAdapter(Mapping[str, Any])
REPORTED_COSTS = ("tokens", "seconds")
"""Fields of `esamp.engines.cost.Cost` that reports read."""


@dataclass(frozen=True)
class Record:
    """All samples of one group, with their grades and cost."""

    item: str
    """id of the problem"""
    samples: tuple[SampleRecord, ...]
    cost: Mapping[str, float]
    telemetry: Mapping[str, float | None]
    details: Mapping[str, Any] = field(default_factory=dict)
    measured: GroupMeasurements = field(default_factory=GroupMeasurements)
    """what other models measured later, stored in separate files"""
    values: dict[str, float] = field(default_factory=dict, init=False, compare=False, repr=False)
    """cache of computed measures by name (`esamp.analysis.measures.value`)"""

    def as_json(self) -> dict[str, Any]:
        """The fields of the record's line in the store."""
        values = asdict(replace(self, measured=GroupMeasurements()))
        del values["measured"], values["values"]
        return values

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Record":
        """The record of a line in the store.

        Raises:
            InputError: a field is missing or invalid; the message completes a sentence.
        """
        samples = _field(SAMPLES, values, "samples")
        cost, telemetry = _field(COST, values, "cost"), _field(TELEMETRY, values, "telemetry")
        for name in REPORTED_COSTS:
            if name not in cost:
                raise InputError(f"its cost has no {name}")
        for number, sample in enumerate(samples):
            if any(len(series) != sample.tokens for series in (sample.trace or {}).values()):
                raise InputError(f"its samples.{number}.trace does not have one value per token")
        return cls(_field(ITEM, values, "item"), samples, cost, telemetry, _field(DETAILS, values, "details"))


def graded_record(task: Task, item: Item, completion: Completion) -> Record:
    """Grade a group. Of private tasks no texts, tokens, answers or reasons are kept."""
    samples = []
    for sample in completion.samples:
        grade = task.grade(item, sample.text)
        trace = sample.trace
        samples.append(
            SampleRecord(
                index=sample.index,
                text=None if task.private else sample.text,
                token_ids=None if task.private else sample.token_ids,
                tokens=len(sample.token_ids),
                finish_reason=sample.finish_reason,
                correct=grade.correct,
                answer=None if task.private else grade.answer,
                canonical=grade.canonical,
                reason="" if task.private else grade.reason,
                trace=None if trace is None else _series(trace),
                pieces=None if trace is None or task.private else trace.pieces,
                logprob=sample.logprob,
            )
        )
    details = {} if task.private else dict(completion.details)
    telemetry = finite(completion.telemetry)
    return Record(item.id, tuple(samples), asdict(completion.cost), telemetry, details)


def _series(trace: TokenTrace) -> dict[str, list[float | None]]:
    """Every series of a trace by name, to five significant digits; None where nothing was measured."""
    series = {name: values.tolist() for name, values in vars(trace).items() if isinstance(values, Tensor)}
    return {name: [_rounded(value) for value in values] for name, values in series.items()}


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _field(adapter: TypeAdapter[FieldValue], values: Mapping[str, Any], name: str) -> FieldValue:
    """A validated field.

    Raises:
        InputError: it is missing or invalid.
    """
    if name not in values:
        raise InputError(f"it has no {name}")
    try:
        return adapter.validate_python(values[name])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, (name, *first["loc"])))
        expected = first["msg"].removeprefix("Input should be ")
        raise InputError(f"its {path} is {shown(first['input'])}: {expected}") from None
