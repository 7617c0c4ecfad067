"""What `esamp compare` shows: the table and the meaning of its columns, the HTML page, JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np

from esamp.analysis.statistics import generator
from esamp.analysis.text_scores import TextScorer
from esamp.compare.comparison import Comparison, PromptResult
from esamp.compare.formatting import finite_or_none, number_text, sample_view
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.report.pages import ComparisonTable, ProblemView, SamplesPage, SampleView

INTERVALS_FROM = 3
"""Fewest prompts for which intervals are shown."""
ResultNumber: TypeAlias = Callable[[PromptResult], float]
CellText: TypeAlias = Callable[[Sequence[PromptResult]], str]
"""The text of a cell, from the results of one arm."""


@dataclass(frozen=True)
class Column:
    """A column with a mean over prompts in every cell."""

    head: str
    of: ResultNumber
    digits: int
    unit: str = ""
    scale: float = 1.0
    exp: bool = False
    """whether to show the exponential of the mean and its interval, as for a perplexity"""
    interval: bool = True

    def cell(self, results: Sequence[PromptResult]) -> str:
        """The mean, with its interval for enough prompts; a dash if nothing was measured."""
        average = _mean([self.of(result) for result in results])
        numbers = [math.exp(x) if self.exp else self.scale * x for x in (average.estimate, average.low, average.high)]
        if not math.isfinite(numbers[0]):
            return "-"
        text = f"{numbers[0]:.{self.digits}f}{self.unit}"
        if self.interval and math.isfinite(numbers[1]):
            text += f" [{numbers[1]:.{self.digits}f},{numbers[2]:.{self.digits}f}]"
        return text


VENDI = Column("Vendi", lambda result: result.vendi, 2)
NLL = Column("NLL", lambda result: result.nll, 2, interval=False)
OPEN = (
    VENDI,
    Column("PPL", lambda result: result.nll, 1, exp=True),
    Column("non-words", lambda result: result.scores.nonwords, 1, " %", 100),
    Column("loops", lambda result: result.scores.loops, 0, " %", 100),
    Column("on topic", lambda result: result.scores.on_topic, 0, " %", 100),
)
GRADED = (
    VENDI,
    NLL,
    Column("right", lambda result: result.correct, 0, " %", 100),
)


def table(found: Comparison, scorer: TextScorer | None = None) -> ComparisonTable:
    """The comparison as formatted cells, without the columns that were not measured for any arm."""
    columns = _columns(found)
    heads = list(columns)
    return ComparisonTable(
        heads, [[cell(arm) for cell in columns.values()] for arm in found.ran], _note(found, heads, scorer)
    )


def _columns(found: Comparison) -> dict[str, CellText]:
    """The columns of the table by heading. Some make sense only for graded answers or for a single prompt."""
    single = len(found.prompts) == 1
    columns: dict[str, CellText] = {"method": lambda arm: arm[0].arm.label}
    if found.graded and single:
        columns["n"] = lambda arm: str(_samples(arm[0]))
    if single:
        columns["texts"] = lambda arm: str(arm[0].distinct)
    for column in GRADED if found.graded else OPEN:
        if column in (VENDI, NLL) or any(math.isfinite(column.of(result)) for arm in found.ran for result in arm):
            columns[column.head] = column.cell
    if found.graded:
        columns["solutions"] = lambda arm: _solutions(arm, single=single)
    columns["tokens"] = lambda arm: f"{sum(result.cost.tokens for result in arm):,}"
    if found.graded and single:
        columns["calls"] = lambda arm: str(arm[0].cost.calls)
    columns["s"] = lambda arm: f"{_seconds(arm):.1f}"
    if found.graded and single:
        columns["/kt"] = lambda arm: number_text(arm[0].per_thousand(arm[0].solutions), 2)
    return columns


def _samples(result: PromptResult) -> int:
    return 0 if result.completion is None else len(result.completion.samples)


def _solutions(arm: Sequence[PromptResult], *, single: bool) -> str:
    solutions = [result.solutions for result in arm]
    return str(solutions[0]) if single else f"{sum(solutions) / len(solutions):.1f}"


def _seconds(arm: Sequence[PromptResult]) -> float:
    """Wall time in seconds. Prompts of one batch have the same time, which counts once."""
    return sum({result.cost.seconds for result in arm})


def _note(found: Comparison, heads: Sequence[str], scorer: TextScorer | None) -> str:
    embeds = scorer is not None and scorer.embeds
    meanings = {
        "texts": "different ones",
        "Vendi": "effective number of different samples, by "
        + ("sentence embeddings" if embeds else "n-grams of words, which saturate in longer texts"),
        "PPL": "perplexity under the undisturbed model at temperature 1",
        "NLL": "nats a token under the undisturbed model at temperature 1",
        "non-words": "words that are not English",
        "loops": "samples that repeat themselves",
        "on topic": "samples nearer to their own prompt than to nearly all others",
        "right": "share of the samples",
        "solutions": "different right ones",
        "tokens": "generated in all, those of discarded samples included",
        "calls": "samples drawn in all",
        "/kt": "solutions for every thousand tokens",
    }
    legend = " ".join(f"{head}: {meaning}." for head, meaning in meanings.items() if head in heads)
    count = len(found.prompts)
    if count == 1:
        return f"{legend} One prompt and one seed show how methods behave; they do not rank them."
    if count < INTERVALS_FROM:
        return f"Means over {count} prompts, too few for intervals. {legend}"
    return f"Means over {count} prompts with 95 % bootstrap intervals over prompts, one seed. {legend}"


def differences(found: Comparison) -> list[tuple[str, Interval]]:
    """Vendi Score of each other arm minus that of the first, paired by prompt, by label; empty for too few prompts."""
    if len(found.prompts) < INTERVALS_FROM or not found.ran:
        return []
    base = np.array([result.vendi for result in found.ran[0]])
    return [
        (arm[0].arm.label, bootstrap_mean(np.array([result.vendi for result in arm]) - base, generator()))
        for arm in found.ran[1:]
    ]


def page(found: Comparison, scorer: TextScorer | None = None, *, footer: str = "") -> SamplesPage:
    """The HTML page: the table, all samples side by side, and the trees of searches."""
    trees: dict[str, Mapping[str, object]] = {}
    for arm in found.ran:
        for number, result in enumerate(arm, 1):
            if result.completion is not None and "nodes" in result.completion.details:
                name = result.arm.label if len(arm) == 1 else f"{result.arm.label}, prompt {number}"
                trees[name] = result.completion.details
    count = "one prompt" if len(found.prompts) == 1 else f"{len(found.prompts)} prompts"
    refused = [f"{result.arm.label} did not run: {result.refused}" for result in found.refused]
    intro = [f"{len(found.ran)} ways to answer {count}, {found.n} samples each where they draw samples.", *refused]
    problems = [
        ProblemView(
            str(index + 1),
            prompt,
            "",
            {arm[index].arm.label: _views(arm[index]) for arm in found.ran},
            {} if found.graded else {arm[index].arm.label: _remark(arm[index]) for arm in found.ran},
        )
        for index, prompt in enumerate(found.prompts)
    ]
    summary = table(found, scorer)
    return SamplesPage("Decoding methods side by side", intro, summary, problems, footer, trees, noun="Prompt")


def _remark(result: PromptResult) -> str:
    count = _samples(result)
    if count < 2:
        return "1 sample" if count else "no samples"
    perplexity = f" at perplexity {math.exp(result.nll):.1f}" if math.isfinite(result.nll) else ""
    return f"{count} samples, worth {result.vendi:.1f} different ones{perplexity}"


def _views(result: PromptResult) -> list[SampleView]:
    samples = () if result.completion is None else result.completion.samples
    plain = result.arm.method == "vanilla"
    grades = result.grades or (None,) * len(samples)
    return [sample_view(sample, plain=plain, grade=grade) for sample, grade in zip(samples, grades, strict=True)]


def as_json(found: Comparison) -> dict[str, object]:
    """All results, unformatted, with null where nothing was measured. For several prompts each method has a list."""
    single = len(found.prompts) == 1
    document: dict[str, object] = {"prompt": found.prompts[0]} if single else {"prompts": list(found.prompts)}
    document |= {"n": found.n, "sampling": found.sampling.model_dump(mode="json")}
    if single:
        return {**document, "methods": [_record(arm[0], graded=found.graded) for arm in found.results]}
    changes = {label: _interval(interval) for label, interval in differences(found)}
    return {**document, "methods": [_methods(arm, changes, graded=found.graded) for arm in found.results]}


def _methods(arm: Sequence[PromptResult], changes: Mapping[str, object], *, graded: bool) -> dict[str, object]:
    if arm[0].completion is None:
        return _record(arm[0], graded=graded)
    label = arm[0].arm.label
    numbers = [_numbers(result, graded=graded) for result in arm]
    means = {name: _interval(_mean([each[name] for each in numbers])) for name in numbers[0]}
    return {
        **_head(arm[0]),
        "means": means,
        "vendi_difference": changes.get(label),
        "seconds": _seconds(arm),
        "answers": [_record(result, graded=graded) for result in arm],
    }


def _head(result: PromptResult) -> dict[str, object]:
    arm = result.arm
    options = {} if arm.options is None else arm.options.model_dump(mode="json", exclude_unset=True)
    return {"label": arm.label, "method": arm.method, "options": options, "cooling": arm.cooling}


def _numbers(result: PromptResult, *, graded: bool) -> dict[str, float]:
    numbers: dict[str, float] = {
        "distinct": result.distinct,
        "vendi": result.vendi,
        "nll": result.nll,
        "cut": result.cut,
        "distinct_per_1000_tokens": result.per_thousand(result.distinct),
    }
    if graded:
        numbers |= {"correct": result.correct, "solutions": result.solutions}
        numbers["solutions_per_1000_tokens"] = result.per_thousand(result.solutions)
        return numbers
    return numbers | {name: value for name, value in asdict(result.scores).items() if name != "vendi"}


def _record(result: PromptResult, *, graded: bool) -> dict[str, object]:
    completion = result.completion
    if completion is None:
        return {**_head(result), "refused": result.refused}
    return {
        **_head(result),
        **{name: finite_or_none(value) for name, value in _numbers(result, graded=graded).items()},
        "cost": asdict(result.cost),
        "telemetry": {name: finite_or_none(value) for name, value in completion.telemetry.items()},
        "details": dict(completion.details),
        "samples": [
            {"text": sample.text, "tokens": len(sample.token_ids), "finish_reason": sample.finish_reason}
            for sample in completion.samples
        ],
    }


def _mean(values: Sequence[float]) -> Interval:
    """The mean over the prompts with a value; the bounds are NaN for too few of them."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < INTERVALS_FROM:
        return Interval(float(np.mean(known)) if known else math.nan, math.nan, math.nan)
    return bootstrap_mean(known, generator())


def _interval(interval: Interval) -> dict[str, float | None]:
    return {name: finite_or_none(value) for name, value in asdict(interval).items()}
