"""What the page of a study says of a block before any sample is opened: measures, verdict, problems, what lacks."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
"""Columns of the table before all are asked for."""
SURE = 0.05
FEW = 4
"""Differences that are told in words."""
DATA = 2000
"""Characters of a problem's data that are shown."""


@dataclass(frozen=True)
class Part:
    """A block and what of it is on the page."""

    block: Block
    items: tuple[str, ...]
    """problems whose samples are on the page"""
    metrics: Mapping[str, Sequence[float]]
    """per-token measurements, and where their colours begin and end"""
    private: bool


def part(block: Block, problems: TaskProblems, shown: int | None) -> Part:
    """The block, and at most `shown` of its problems."""
    items = block.items[:shown]
    private = problems.task.private
    return Part(block, items, {} if private else traced(block, items), private)


def overview(study: Study, part: Part, problems: TaskProblems) -> Json:
    """All but the samples."""
    block = part.block
    arms = list(block.arms)
    seeds = list(next(iter(block.arms.values())))
    found = differences(block, study.baseline)
    return {
        "title": block.title,
        "n": block.n,
        "graded": block.graded,
        "private": part.private,
        "baseline": study.baseline,
        "beside": _beside(study, arms),
        "arms": arms,
        "seeds": seeds,
        "facts": _facts(part, len(arms), len(seeds)),
        "verdict": _verdict(study, found),
        **_table(block, found),
        "metrics": [[name, *bounds] for name, bounds in part.metrics.items()],
        "items": _items(part, problems),
        "scores": _scores(part),
        "untraced": "" if part.metrics else _untraced(study, private=part.private),
        "unmapped": "" if _embedded(part) else _unmapped(study, private=part.private),
    }


def _beside(study: Study, arms: Sequence[str]) -> int:
    """Place of the arm that is shown right of the baseline first: one of another method, if there is one."""
    methods = {arm.label: arm.method for arm in study.arms}
    others = [place for place, arm in enumerate(arms) if arm != study.baseline]
    other = [place for place in others if methods.get(arms[place]) != methods.get(study.baseline)]
    return (other or others or [0])[0]


def _facts(part: Part, arms: int, seeds: int) -> str:
    block = part.block
    extent = (_several(arms, "method"), _several(len(block.items), "problem"), _several(seeds, "seed"))
    said = [f"{block.title}: {', '.join(extent)}."]
    if block.missing:
        said.append(block.left_out)
    if len(part.items) < len(block.items):
        said.append(f"The table counts all of them; the samples of the first {len(part.items)} problems are here.")
    if part.private:
        said.append(
            "The authors of this task ask that none of it be published: no question and no sample is on this page, "
            "grades and lengths alone."
        )
    return " ".join(said)


def _verdict(study: Study, found: Sequence[Difference]) -> str:
    if not found:
        return ""
    sure = [
        f"{each.arm} in {each.measure} ({_change(each)}, p = {each.adjusted:.2g})"
        for each in found
        if each.adjusted < SURE
    ]
    if not sure:
        return f"Nothing that was tested differs from {study.baseline} beyond chance."
    rest = f"; and {len(sure) - FEW} more" if len(sure) > FEW else ""
    return f"Different from {study.baseline} beyond chance: {'; '.join(sure[:FEW])}{rest}."


def _change(each: Difference) -> str:
    share = each.measure in {measure.name for measure in measures(graded=True) if measure.percent}
    scale, unit = (100, " points") if share else (1, "")
    return f"{scale * each.interval.estimate:+.2g}{unit}"


def _table(block: Block, found: Sequence[Difference]) -> dict[str, Json]:
    """Columns of what was measured anywhere, and for each arm its intervals."""
    known = {measure.name: measure for measure in measures(graded=block.graded)}
    rows = {(each.arm, each.measure): each.interval for each in estimates(block)}
    names = list(dict.fromkeys(name for (_, name), own in rows.items() if math.isfinite(own.estimate)))
    sure = {(each.arm, each.measure) for each in found if each.adjusted < SURE}
    columns: list[Json] = []
    for name in names:
        measure = known.get(name)
        told = measure.summary if measure else "estimator of pass@k from larger groups"
        columns.append(
            [name, told, measure.percent if measure else True, name in MAIN, measure.decimals if measure else 0]
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


def _items(part: Part, problems: TaskProblems) -> Json:
    known = {item.id: item for item in problems.items}
    if part.private:
        return [[item, "", ""] for item in part.items]
    return [[item, str(known[item].prompt), _data(known[item].data)] for item in part.items]


def _data(data: Mapping[str, object]) -> str:
    """What the grader knows of a problem."""
    text = json.dumps(dict(data), ensure_ascii=False, default=str)
    return "" if not data else text if len(text) <= DATA else f"{text[:DATA]}..."


def _scores(part: Part) -> Json:
    """Counts by name, arm, seed and problem."""
    told = [
        [[counts(records[item], graded=part.block.graded) for item in part.items] for records in groups.values()]
        for groups in part.block.arms.values()
    ]
    names = counts_named(part.block)
    return {name: [[[own[name] for own in items] for items in seeds] for seeds in told] for name in names}


def counts_named(block: Block) -> list[str]:
    """What the list of problems can show."""
    groups = next(iter(block.arms.values()))
    record = next(iter(groups.values()))[block.items[0]]
    return list(counts(record, graded=block.graded))


def _embedded(part: Part) -> bool:
    """Whether any sample on the page has an embedding that may be shown."""
    return not part.private and any(
        records[item].measured.vectors is not None
        for groups in part.block.arms.values()
        for records in groups.values()
        for item in part.items
    )


def _untraced(study: Study, *, private: bool) -> str:
    if private:
        return ""
    if study.traces:
        return "No token was measured: only the engine hf can, and only what was sampled since the study says so."
    return "No colours: write traces = true into the study's file, and what is sampled from then on is measured."


def _unmapped(study: Study, *, private: bool) -> str:
    if private:
        return ""
    if study.embedder is None:
        return 'No map: the study says embedder = "none". Name a model in its file, and make the report again.'
    return "No map: these texts have no embeddings. Install esamp[metrics], and make the report again."


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _digits(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
