"""The first table of a report: the means of each method, and its gain over plain sampling of equal quality."""

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
"""Columns of the table; measures without values are left out."""
GAIN_MEASURES = ("distinct", "Vendi", "n-gram Vendi")
"""Without a primary measure, gains are differences in the first of these that has values."""


def at_a_glance(study: Study, block: Block) -> str:
    """A Markdown table with a row for each method: means without intervals, then gains with intervals.

    A gain is the difference from plain sampling at the temperature at which plain sampling has the same perplexity,
    share of non-words or share on topic as the method. If the study measures none of these, it is the difference from
    the baseline.
    """
    means = {(each.arm, each.measure): each.interval for each in estimates(block)}
    measured = {name for (_, name), interval in means.items() if not math.isnan(interval.estimate)}
    columns = [name for name in COLUMNS if name in measured]
    measure = next((name for name in _gain_measures(study) if name in columns), None)
    gains = _gains(study, block, measure) if measure else {}
    rows = [
        [arm, *(_mean(name, means[arm, name]) for name in columns), *(column.get(arm, "") for column in gains.values())]
        for arm in block.arms
    ]
    return f"{_caption(measure, gains)}\n\n{markdown_table(['method', *map(head_of, columns), *gains], rows)}"


def _gain_measures(study: Study) -> tuple[str, ...]:
    return (study.primary.measure, *GAIN_MEASURES) if study.primary else GAIN_MEASURES


def _gains(study: Study, block: Block, measure: str) -> Mapping[str, Mapping[str, str]]:
    """By column head and arm: differences in `measure` with intervals and corrected p-values."""
    controls = [
        each for each in matched_differences(study, block) if each.setting == "temperature" and each.measure == measure
    ]
    columns: dict[str, dict[str, str]] = {}
    for by in LEVEL_MEASURES:
        column = {
            each.arm: change(measure, each.interval, each.adjusted)
            for each in controls
            if each.held_equal == by and each.value is not None
        }
        if column:
            columns[f"{measure} at equal {by}"] = column
    if not columns:
        against = [each for each in differences(block, study.baseline) if each.measure == measure]
        head = f"{measure} against {study.baseline}"
        columns = {head: {each.arm: change(measure, each.interval, each.adjusted) for each in against}}
    return columns


def _caption(measure: str | None, gains: Mapping[str, Mapping[str, str]]) -> str:
    if measure is None or not any(gains.values()):
        return "Means over problems."
    plain = any("at equal" in head for head in gains)
    other = "plain sampling at the temperature that has the method's own level" if plain else "the baseline"
    return f"Means over problems, then differences in {measure} from {other}; p is corrected over a column's methods."


def _mean(name: str, interval: Interval) -> str:
    return shown(name, Interval(interval.estimate, NOT_MEASURED.low, NOT_MEASURED.high))
