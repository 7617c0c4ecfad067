"""Controls for claims about an arm: comparisons with plain sampling at another setting but the same quality.

A method that only raises or lowers the temperature moves along the curve of plain sampling over temperatures. So every
arm is compared with the points of each curve that have the arm's mean entropy, its perplexity, its share of non-words
and its share on topic (see `esamp.analysis.matching`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esamp.analysis.load import Block
from esamp.analysis.matching import is_measured, plain_point
from esamp.analysis.measures import Values, measures
from esamp.analysis.plain_curves import PlainCurve, SweptSetting, curves
from esamp.analysis.statistics import NOT_MEASURED, paired_tests
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval
from esamp.study.arm import Arm
from esamp.study.claim import LEVEL_MEASURES, TESTED_MEASURES, LevelMeasure
from esamp.study.config import Study

TEMPERATURE_TOLERANCE = 0.01
"""Relative difference below which two temperatures count as the same."""
NAN = float("nan")


@dataclass(frozen=True)
class MatchedDifference:
    """One arm against the point of a curve of plain sampling with the same mean level."""

    arm: str
    setting: SweptSetting
    """the setting over which the curve runs"""
    held_equal: LevelMeasure
    measure: str
    value: float | None
    """the value of the curve's setting there: interpolated, or that of the nearest arm if noise cannot tell the levels
    apart; None where the curve does not reach the arm's level"""
    interval: Interval
    """of arm minus plain sampling, paired by problem and seed"""
    p: float
    """paired permutation test over problems"""
    adjusted: float
    """Holm's correction over the arms compared on this measure in this way"""


@dataclass(frozen=True)
class ArmControls:
    """Which controls a study has for an arm."""

    arm: str
    same_temperature: bool
    """whether there is vanilla at the arm's temperature"""
    cooled: bool | None
    """whether there is vanilla at T / (1 + beta), which equals ESamp until its distiller has learnt something; None for
    other methods"""
    reached: Mapping[LevelMeasure, bool]
    """for each level that is measured, whether a curve of plain sampling reaches the arm's"""


def matched_differences(study: Study, block: Block) -> list[MatchedDifference]:
    """Every arm except vanilla against every curve that does not contain it, on the tested measures."""
    arms = tuple(arm.label for arm in study.arms)
    return block.cached(("matched", study.baseline, arms), lambda: _matched_differences(study, block))


def controls(study: Study, found: Sequence[MatchedDifference]) -> list[ArmControls]:
    """The controls of each arm except vanilla, given its matched differences."""
    plain = [arm for arm in study.arms if arm.method == "vanilla"]
    reached = {(row.arm, row.held_equal) for row in found if row.value is not None}
    always = {"perplexity", "entropy"} if study.entropy else {"perplexity"}
    matched = {row.held_equal for row in found}
    shown = [measure for measure in LEVEL_MEASURES if measure in always or measure in matched]
    rows = []
    for arm in study.arms:
        if arm.method == "vanilla":
            continue
        temperature, beta = arm.sampling.temperature, _beta(arm)
        cooled = None if beta is None else _has_vanilla(plain, arm, temperature / (1 + beta))
        levels = {measure: (arm.label, measure) in reached for measure in shown}
        rows.append(ArmControls(arm.label, _has_vanilla(plain, arm, temperature), cooled, levels))
    return rows


def _matched_differences(study: Study, block: Block) -> list[MatchedDifference]:
    others = [arm.label for arm in study.arms if arm.method != "vanilla" and arm.label in block.arms]
    tested = [measure.name for measure in measures(graded=block.graded) if measure.name in TESTED_MEASURES]
    matched: list[MatchedDifference] = []
    for curve in curves(study):
        for held_equal in LEVEL_MEASURES:
            for name in tested:
                matched += _family(block, curve, held_equal, name, [arm for arm in others if arm not in curve.labels])
    return matched


def _family(
    block: Block, curve: PlainCurve, held_equal: LevelMeasure, name: str, others: Sequence[str]
) -> list[MatchedDifference]:
    """The differences that are corrected together; arms whose level the curve does not reach come first."""
    if not all(is_measured(block, arm, measure) for arm in curve.labels for measure in (held_equal, name)):
        return []
    values_by_arm: dict[str, tuple[float, Values]] = {}
    out_of_reach = []
    for arm in others:
        if not is_measured(block, arm, held_equal) or not is_measured(block, arm, name):
            continue
        point = plain_point(block, curve, held_equal, arm, name)
        if point is None:
            out_of_reach.append(MatchedDifference(arm, curve.setting, held_equal, name, None, NOT_MEASURED, NAN, NAN))
        else:
            values_by_arm[arm] = point.value, point.difference(block, arm, name)
    tests = paired_tests([(differences, 0 * differences) for _, differences in values_by_arm.values()])
    return out_of_reach + [
        MatchedDifference(arm, curve.setting, held_equal, name, value, test.interval, test.p, test.adjusted)
        for (arm, (value, _)), test in zip(values_by_arm.items(), tests, strict=True)
    ]


def _has_vanilla(plain: Sequence[Arm], arm: Arm, temperature: float) -> bool:
    """Whether there is vanilla at this temperature with the arm's other sampler settings."""
    return any(
        other.sampling.replace(temperature=1.0) == arm.sampling.replace(temperature=1.0)
        and abs(other.sampling.temperature - temperature) <= TEMPERATURE_TOLERANCE * temperature
        for other in plain
    )


def _beta(arm: Arm) -> float | None:
    """The strength of the state signal, if the method has one."""
    options = arm.options
    return options.beta if isinstance(options, ESampConfig) and options.steers_state else None
