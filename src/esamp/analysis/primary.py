"""The primary comparison that a study's file declares: one arm against the best of plain sampling at equal quality.

For each level that is held equal, every curve of plain sampling is read at the arm's level, and the arm is compared
with the curve that has most of the measure there. Taking the highest of several curves favours plain sampling, because
chance adds to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from esamp.analysis.load import Block
from esamp.analysis.matching import PlainPoint, is_measured, levels, plain_point, values
from esamp.analysis.plain_curves import all_curves
from esamp.analysis.statistics import NOT_MEASURED, generator
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation
from esamp.study.claim import Claim, LevelMeasure
from esamp.study.config import Study

ALPHA = 0.05
"""A difference is significant if its corrected p-value is below this."""
NAN = float("nan")


@dataclass(frozen=True)
class UpperBound:
    """A measure of which the arm must not have more than plain sampling."""

    measure: str
    own: float
    plain: float
    interval: Interval
    """of arm minus plain sampling at the same point, paired by problem and seed"""

    @property
    def above(self) -> bool:
        """Whether the arm has more of it beyond noise."""
        return self.interval.low > 0

    @property
    def measured(self) -> bool:
        """Whether there is anything to compare."""
        return not math.isnan(self.interval.estimate)


@dataclass(frozen=True)
class PrimaryTest:
    """The test at one level that is held equal."""

    block: Block
    held_equal: LevelMeasure
    level: float
    """the arm's mean of the measure `held_equal`; the geometric mean for perplexity, whose logarithm is held equal"""
    own: float
    """the arm's mean of the compared measure"""
    point: PlainPoint | None
    """the point of plain sampling; None where no curve has the arm's level, or something was not measured"""
    plain: float
    """the mean of the compared measure at that point"""
    interval: Interval
    """of arm minus plain sampling, paired by problem and seed"""
    p: float
    """paired permutation test over problems"""
    adjusted: float
    """Holm's correction over all tests of the primary comparison"""
    bounds: tuple[UpperBound, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the arm differs beyond chance."""
        return self.adjusted < ALPHA

    @property
    def better(self) -> bool:
        """Whether the arm has more beyond chance."""
        return self.significant and self.interval.estimate > 0


def primary_tests(study: Study, blocks: Sequence[Block]) -> list[PrimaryTest]:
    """All tests of the primary comparison, for every block and level; empty if the study declares no comparison."""
    claim = study.primary
    if claim is None:
        return []
    at_equal = cast("Sequence[LevelMeasure]", claim.at_equal)
    tests = [
        block.cached(("primary", claim, held_equal), partial(_test, study, block, claim, held_equal))
        for block in blocks
        for held_equal in at_equal
    ]
    adjusted = iter(holm([test.p for test in tests if test.point is not None]))
    return [test if test.point is None else replace(test, adjusted=float(next(adjusted))) for test in tests]


def _test(study: Study, block: Block, claim: Claim, held_equal: LevelMeasure) -> PrimaryTest:
    """The test without Holm's correction."""
    arm, measure = claim.arm, claim.measure
    level, own = _mean_level(block, arm, held_equal), _mean(block, arm, measure)
    point = _best_point(study, block, claim, held_equal)
    if point is None:
        return PrimaryTest(block, held_equal, level, own, None, NAN, NOT_MEASURED, NAN, NAN)
    differences = point.difference(block, arm, measure)
    return PrimaryTest(
        block,
        held_equal,
        level,
        own,
        point,
        plain=point.mean(block, measure),
        interval=bootstrap_mean(differences, generator()),
        p=paired_permutation(differences, 0 * differences, generator()),
        adjusted=NAN,
        bounds=tuple(_bound(block, point, arm, name) for name in claim.not_above),
    )


def _best_point(study: Study, block: Block, claim: Claim, held_equal: LevelMeasure) -> PlainPoint | None:
    """The point at the arm's level where plain sampling has most of the measure.

    Points whose level is only nearest to the arm's count if no curve reaches the level itself.
    """
    points = [plain_point(block, curve, held_equal, claim.arm, claim.measure) for curve in all_curves(study)]
    reached = [point for point in points if point is not None]
    exact = [point for point in reached if not point.near]
    return max(exact or reached, key=lambda point: point.mean(block, claim.measure), default=None)


def _bound(block: Block, point: PlainPoint, arm: str, measure: str) -> UpperBound:
    if not all(is_measured(block, label, measure) for label in (arm, point.low, point.high)):
        return UpperBound(measure, NAN, NAN, NOT_MEASURED)
    interval = bootstrap_mean(point.difference(block, arm, measure), generator())
    return UpperBound(measure, _mean(block, arm, measure), point.mean(block, measure), interval)


def _mean_level(block: Block, arm: str, held_equal: LevelMeasure) -> float:
    if held_equal == "perplexity":
        return math.exp(levels(block, arm, held_equal).mean())
    return _mean(block, arm, held_equal)


def _mean(block: Block, arm: str, measure: str) -> float:
    return float(values(block, arm, measure).mean())
