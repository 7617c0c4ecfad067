"""What stands beside a claim: is an arm more than plain sampling at another setting?

A method that only cools or heats the distribution moves along the curve that plain sampling draws over its
temperatures. So every arm is compared with the point of that curve that has the arm's own mean entropy, and with those
that have its perplexity, its share of non-words and its share on topic (see `esamp.analysis.matching`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esamp.analysis.load import Block
from esamp.analysis.matching import has, place
from esamp.analysis.measures import Values, measures
from esamp.analysis.plain import Curve, Knob, curves
from esamp.analysis.statistics import NOTHING, generator
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation
from esamp.study.claim import LEVELS, TESTED, Level
from esamp.study.config import Arm, Study

CLOSE = 0.01
"""Relative distance within which two temperatures are taken for the same."""


@dataclass(frozen=True)
class Matched:
    """One arm against the point of a curve of plain sampling with the same mean level."""

    arm: str
    knob: Knob
    by: Level
    measure: str
    value: float | None
    """the setting of plain sampling there: between two points of the curve, or of the nearest point if noise cannot
    tell its level from the arm's; None where the curve does not reach that far"""
    interval: Interval
    """of arm minus plain sampling, paired by problem and seed"""
    p: float
    """paired permutation test over problems"""
    adjusted: float
    """Holm's correction over the arms compared on this measure in this way"""


@dataclass(frozen=True)
class Control:
    """Which of the comparisons that a claim needs a study has for an arm."""

    arm: str
    same_temperature: bool
    cooled: bool | None
    """vanilla at T / (1 + beta), which ESamp is until its distiller has learnt something; None for other methods"""
    reached: Mapping[Level, bool]
    """whether a curve of plain sampling reaches the arm's level, for entropy, perplexity and what else is measured"""


def matched(study: Study, block: Block) -> list[Matched]:
    """Every arm that is not vanilla against every curve that it is not on, on the measures that claims are made of."""
    arms = tuple(arm.label for arm in study.arms)
    return block.once(("matched", study.baseline, arms), lambda: _matched(study, block))


def controls(study: Study, found: Sequence[Matched]) -> list[Control]:
    """What there is for each arm that is not vanilla."""
    plain = [arm for arm in study.arms if arm.method == "vanilla"]
    reached = {(each.arm, each.by) for each in found if each.value is not None}
    always = {"perplexity", "entropy"} if study.entropy else {"perplexity"}
    levels = [by for by in LEVELS if by in always or by in {each.by for each in found}]
    rows = []
    for arm in study.arms:
        if arm.method == "vanilla":
            continue
        temperature, beta = arm.sampling.temperature, _beta(arm)
        cooled = None if beta is None else _has(plain, arm, temperature / (1 + beta))
        matches = {by: (arm.label, by) in reached for by in levels}
        rows.append(Control(arm.label, _has(plain, arm, temperature), cooled, matches))
    return rows


def _matched(study: Study, block: Block) -> list[Matched]:
    others = [arm.label for arm in study.arms if arm.method != "vanilla" and arm.label in block.arms]
    tested = [measure.name for measure in measures(graded=block.graded) if measure.name in TESTED]
    found: list[Matched] = []
    for curve in curves(study):
        for by in LEVELS:
            for name in tested:
                found += _family(block, curve, by, name, [arm for arm in others if arm not in curve.labels])
    return found


def _family(block: Block, curve: Curve, by: Level, name: str, others: Sequence[str]) -> list[Matched]:
    if not all(has(block, arm, each) for arm in curve.labels for each in (by, name)):
        return []
    rows: dict[str, tuple[float, Values]] = {}
    nothing = []
    for arm in others:
        if not has(block, arm, by) or not has(block, arm, name):
            continue
        where = place(block, curve, by, arm, name)
        if where is None:
            nothing.append(Matched(arm, curve.knob, by, name, None, NOTHING, float("nan"), float("nan")))
        else:
            rows[arm] = where.value, where.beyond(block, arm, name)
    p_values = [paired_permutation(beyond, 0 * beyond, generator()) for _, beyond in rows.values()]
    return nothing + [
        Matched(arm, curve.knob, by, name, value, bootstrap_mean(beyond, generator()), p, float(adjusted))
        for (arm, (value, beyond)), p, adjusted in zip(rows.items(), p_values, holm(p_values), strict=True)
    ]


def _has(plain: Sequence[Arm], arm: Arm, temperature: float) -> bool:
    """Whether vanilla is there at this temperature, all else as in the arm."""
    return any(
        each.sampling.replace(temperature=1.0) == arm.sampling.replace(temperature=1.0)
        and abs(each.sampling.temperature - temperature) <= CLOSE * temperature
        for each in plain
    )


def _beta(arm: Arm) -> float | None:
    """Strength of the state signal, if the method has one."""
    options = arm.options
    return options.beta if isinstance(options, ESampConfig) and options.steers_state else None
