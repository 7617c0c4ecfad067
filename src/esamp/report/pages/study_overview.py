"""What the page of a study shows of a block before a sample is opened: measures, verdict, problems, missing data."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from esamp.analysis.load import Block
from esamp.analysis.measures import measures
from esamp.analysis.statistics import Difference, differences, estimates
from esamp.report.pages.html import Json
from esamp.report.pages.study_samples import counts, traced
from esamp.study.config import Study
from esamp.study.run import TaskProblems

MAIN = (
    *("pass@1", "solved", "majority", "distinct", "Vendi", "n-gram Vendi"),
    *("perplexity", "non-words", "loops", "on topic", "tokens", "parsed", "cut"),
)
"""Columns of the table until the reader shows all measures."""
LEVEL = 0.05
"""Corrected p-values below it count as differences beyond chance."""
DIFFERENCES = 4
"""Most differences that the verdict lists."""
DATA = 2000
"""Most characters of a problem's data."""


@dataclass(frozen=True)
class PageBlock:
    """A block and the part of it that is on the page."""

    block: Block
    items: tuple[str, ...]
    """problems whose samples are on the page"""
    metrics: Mapping[str, Sequence[float]]
    """for each per-token measurement, the values at which its colours begin and end"""
    private: bool

    @classmethod
    def build(cls, block: Block, problems: TaskProblems, problems_shown: int | None) -> Self:
        """The block with at most `problems_shown` of its problems."""
        items = block.items[:problems_shown]
        private = problems.task.private
        return cls(block, items, {} if private else traced(block, items), private)


def overview(study: Study, shown: PageBlock, problems: TaskProblems) -> Json:
    """Everything that the page has of a block except its samples."""
    block = shown.block
    arms = list(block.arms)
    seeds = list(next(iter(block.arms.values())))
    rows = differences(block, study.baseline)
    return {
        "title": block.title,
        "n": block.n,
        "graded": block.graded,
        "private": shown.private,
        "baseline": study.baseline,
        "beside": _beside(study, arms),
        "arms": arms,
        "seeds": seeds,
        "facts": _facts(shown, len(arms), len(seeds)),
        "verdict": _verdict(study, rows),
        **_table(block, rows),
        "metrics": [[name, *bounds] for name, bounds in shown.metrics.items()],
        "items": _items(shown, problems),
        "scores": _scores(shown),
        "untraced": "" if shown.metrics else _untraced(study, private=shown.private),
        "unmapped": "" if _embedded(shown) else _unmapped(study, private=shown.private),
    }


def _beside(study: Study, arms: Sequence[str]) -> int:
    """Index of the arm that is first shown beside the baseline: one of another method, if there is one."""
    methods = {arm.label: arm.method for arm in study.arms}
    others = [place for place, arm in enumerate(arms) if arm != study.baseline]
    other = [place for place in others if methods.get(arms[place]) != methods.get(study.baseline)]
    return (other or others or [0])[0]


def _facts(shown: PageBlock, arms: int, seeds: int) -> str:
    block = shown.block
    extent = (_several(arms, "method"), _several(len(block.items), "problem"), _several(seeds, "seed"))
    sentences = [f"{block.title}: {', '.join(extent)}."]
    if block.missing:
        sentences.append(block.left_out)
    if len(shown.items) < len(block.items):
        sentences.append(
            f"The table counts all of them; the samples of the first {len(shown.items)} problems are here."
        )
    if shown.private:
        sentences.append(
            "The authors of this task ask that none of it be published: no question and no sample is on this page, "
            "grades and lengths alone."
        )
    return " ".join(sentences)


def _verdict(study: Study, found: Sequence[Difference]) -> str:
    if not found:
        return ""
    sure = [
        f"{each.arm} in {each.measure} ({_change(each)}, p = {each.adjusted:.2g})"
        for each in found
        if each.adjusted < LEVEL
    ]
    if not sure:
        return f"Nothing that was tested differs from {study.baseline} beyond chance."
    rest = f"; and {len(sure) - DIFFERENCES} more" if len(sure) > DIFFERENCES else ""
    return f"Different from {study.baseline} beyond chance: {'; '.join(sure[:DIFFERENCES])}{rest}."


def _change(each: Difference) -> str:
    share = each.measure in {measure.name for measure in measures(graded=True) if measure.percent}
    scale, unit = (100, " points") if share else (1, "")
    return f"{scale * each.interval.estimate:+.2g}{unit}"


def _table(block: Block, found: Sequence[Difference]) -> dict[str, Json]:
    """Columns for all measures that any arm has, and the intervals of each arm."""
    known = {measure.name: measure for measure in measures(graded=block.graded)}
    rows = {(each.arm, each.measure): each.interval for each in estimates(block)}
    names = list(dict.fromkeys(name for (_, name), own in rows.items() if math.isfinite(own.estimate)))
    sure = {(each.arm, each.measure) for each in found if each.adjusted < LEVEL}
    columns: list[Json] = []
    for name in names:
        measure = known.get(name)
        meaning = measure.summary if measure else "estimator of pass@k from larger groups"
        columns.append(
            [name, meaning, measure.percent if measure else True, name in MAIN, measure.decimals if measure else 0]
        )
    cells: list[Json] = [
        [
            [*(_digits(bound) for bound in (own.estimate, own.low, own.high)), (arm, name) in sure]
            for name in names
            for own in (rows[arm, name],)
        ]
        for arm in block.arms
    ]
    return {"measures": columns, "cells": cells}


def _items(shown: PageBlock, problems: TaskProblems) -> Json:
    known = {item.id: item for item in problems.items}
    if shown.private:
        return [[item, "", ""] for item in shown.items]
    return [[item, str(known[item].prompt), _data(known[item].data)] for item in shown.items]


def _data(data: Mapping[str, object]) -> str:
    """A problem's data for the grader, as JSON."""
    text = json.dumps(dict(data), ensure_ascii=False, default=str)
    return "" if not data else text if len(text) <= DATA else f"{text[:DATA]}..."


def _scores(shown: PageBlock) -> Json:
    """Counts of the groups by name, arm, seed and problem."""
    scores = [
        [[counts(records[item], graded=shown.block.graded) for item in shown.items] for records in groups.values()]
        for groups in shown.block.arms.values()
    ]
    names = _count_names(shown.block)
    return {name: [[[own[name] for own in items] for items in seeds] for seeds in scores] for name in names}


def _count_names(block: Block) -> list[str]:
    """Names of the counts that the list of problems can show."""
    groups = next(iter(block.arms.values()))
    record = next(iter(groups.values()))[block.items[0]]
    return list(counts(record, graded=block.graded))


def _embedded(shown: PageBlock) -> bool:
    """Whether a sample on the page has an embedding."""
    return not shown.private and any(
        records[item].measured.vectors is not None
        for groups in shown.block.arms.values()
        for records in groups.values()
        for item in shown.items
    )


def _untraced(study: Study, *, private: bool) -> str:
    if private:
        return ""
    if study.traces:
        return (
            "No token was measured: only the engine hf measures tokens, from when the study's file has traces = true."
        )
    return "No colours: write traces = true into the study's file; samples generated after that are measured."


def _unmapped(study: Study, *, private: bool) -> str:
    if private:
        return ""
    if study.embedder is None:
        return 'No map: the study has embedder = "none". Name an embedding model in its file and make the report again.'
    return "No map: these texts have no embeddings. Install esamp[metrics] and make the report again."


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _digits(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
