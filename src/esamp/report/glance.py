"""The first table of a report: what each method wrote, and what it gains over plain sampling of equal quality."""

import math
from collections.abc import Mapping

from esamp.analysis.controls import matched_differences
from esamp.analysis.load import Block
from esamp.analysis.statistics import NOT_MEASURED, differences, estimates
from esamp.metrics.intervals import Interval
from esamp.report.markdown import change, head_of, markdown_table, shown
from esamp.study.claim import LEVEL_MEASURES
from esamp.study.config import Study

COLUMNS = (
    *("pass@1", "solved", "majority", "distinct"),
    *("Vendi", "Vendi30", "perplexity", "non-words", "on topic", "loops", "tokens"),
)
"""Measures shown, as far as they were taken."""
SUBJECTS = ("distinct", "Vendi", "n-gram Vendi")
"""What gains are counted in, if the study declares no primary measure: the first that was taken."""


def at_a_glance(study: Study, block: Block) -> str:
    """A Markdown table with a row for each method: means without intervals, then gains with theirs.

    A gain is the difference from plain sampling at the temperature where it has the method's own perplexity, share of
    non-words or share on topic. A study that measures none of these has the difference from its baseline instead.
    """
    found = {(each.arm, each.measure): each.interval for each in estimates(block)}
    taken = {name for (_, name), interval in found.items() if not math.isnan(interval.estimate)}
    columns = [name for name in COLUMNS if name in taken]
    subject = next((name for name in _subjects(study) if name in columns), None)
    gains = _gains(study, block, subject) if subject else {}
    rows = [
        [arm, *(_mean(name, found[arm, name]) for name in columns), *(own.get(arm, "") for own in gains.values())]
        for arm in block.arms
    ]
    return f"{_caption(subject, gains)}\n\n{markdown_table(['method', *map(head_of, columns), *gains], rows)}"


def _subjects(study: Study) -> tuple[str, ...]:
    return (study.primary.measure, *SUBJECTS) if study.primary else SUBJECTS


def _gains(study: Study, block: Block, subject: str) -> Mapping[str, Mapping[str, str]]:
    """By column and method: differences in `subject` with intervals and corrected p-values."""
    own = [
        each for each in matched_differences(study, block) if each.setting == "temperature" and each.measure == subject
    ]
    columns: dict[str, dict[str, str]] = {}
    for by in LEVEL_MEASURES:
        reached = {
            each.arm: change(subject, each.interval, each.adjusted)
            for each in own
            if each.held_equal == by and each.value is not None
        }
        if reached:
            columns[f"{subject} at equal {by}"] = reached
    if not columns:
        against = [each for each in differences(block, study.baseline) if each.measure == subject]
        head = f"{subject} against {study.baseline}"
        columns = {head: {each.arm: change(subject, each.interval, each.adjusted) for each in against}}
    return columns


def _caption(subject: str | None, gains: Mapping[str, Mapping[str, str]]) -> str:
    if subject is None or not any(gains.values()):
        return "Means over problems."
    plain = any("at equal" in head for head in gains)
    other = "plain sampling at the temperature that has the method's own level" if plain else "the baseline"
    return f"Means over problems, then differences in {subject} from {other}; p is corrected over a column's methods."


def _mean(name: str, interval: Interval) -> str:
    return shown(name, Interval(interval.estimate, NOT_MEASURED.low, NOT_MEASURED.high))
