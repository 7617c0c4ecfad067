"""The primary comparison: one arm against the best of plain sampling at equal quality, as the study's file declares it.

At each level that is held equal, every curve of plain sampling is read where it has the arm's level, and the highest
of them is what the arm is compared with. Taking the highest favours plain sampling: chance adds to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from esamp.analysis.load import Block
from esamp.analysis.matching import Place, has, level, place, values
from esamp.analysis.plain import all_curves
from esamp.analysis.statistics import NOTHING, generator
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation
from esamp.study.claim import Claim, Level
from esamp.study.config import Study

LEVEL = 0.05
"""Of the corrected p-value."""
NAN = float("nan")


@dataclass(frozen=True)
class Bound:
    """A measure of which the arm must not have more than plain sampling."""

    measure: str
    own: float
    plain: float
    interval: Interval
    """of arm minus plain sampling at the point compared with, paired by problem and seed"""

    @property
    def above(self) -> bool:
        """Whether the arm has more of it beyond noise."""
        return self.interval.low > 0

    @property
    def measured(self) -> bool:
        """Whether there is anything to compare."""
        return not math.isnan(self.interval.estimate)


@dataclass(frozen=True)
class Outcome:
    """The test at one level that is held equal."""

    block: Block
    by: Level
    level: float
    """of the arm: its mean of the measure `by`; of perplexity the geometric mean, which is what is held equal"""
    own: float
    """the arm's mean of the measure compared"""
    place: Place | None
    """the point of plain sampling; None where no curve has the arm's level, or something was not measured"""
    plain: float
    """the mean of the measure there"""
    interval: Interval
    """of arm minus plain sampling, paired by problem and seed"""
    p: float
    """paired permutation test over problems"""
    adjusted: float
    """Holm's correction over all tests of the primary comparison"""
    bounds: tuple[Bound, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether the arm differs beyond chance."""
        return self.adjusted < LEVEL

    @property
    def better(self) -> bool:
        """Whether the arm has more beyond chance."""
        return self.sure and self.interval.estimate > 0


def primary(study: Study, blocks: Sequence[Block]) -> list[Outcome]:
    """All tests of the primary comparison, of every block and level; none where the study declares nothing."""
    claim = study.primary
    if claim is None:
        return []
    levels = cast("Sequence[Level]", claim.at_equal)
    pairs = [(block, by) for block in blocks for by in levels]
    found = [block.once(("primary", claim, by), partial(_test, study, block, claim, by)) for block, by in pairs]
    adjusted = iter(holm([each.p for each in found if each.place is not None]))
    return [each if each.place is None else replace(each, adjusted=float(next(adjusted))) for each in found]


def _test(study: Study, block: Block, claim: Claim, by: Level) -> Outcome:
    arm, measure = claim.arm, claim.measure
    best = _best(study, block, claim, by)
    if best is None:
        return Outcome(block, by, _level(block, arm, by), _mean(block, arm, measure), None, NAN, NOTHING, NAN, NAN)
    beyond = best.beyond(block, arm, measure)
    return Outcome(
        block,
        by,
        _level(block, arm, by),
        _mean(block, arm, measure),
        best,
        best.plain(block, measure),
        bootstrap_mean(beyond, generator()),
        paired_permutation(beyond, 0 * beyond, generator()),
        NAN,
        tuple(_bound(block, best, arm, name) for name in claim.not_above),
    )


def _best(study: Study, block: Block, claim: Claim, by: Level) -> Place | None:
    """Where plain sampling has most of the measure at the arm's level.

    A point that is only near the level counts where no curve has the level itself.
    """
    found = [place(block, curve, by, claim.arm, claim.measure) for curve in all_curves(study)]
    reached = [each for each in found if each is not None]
    exact = [each for each in reached if not each.near]
    return max(exact or reached, key=lambda each: each.plain(block, claim.measure), default=None)


def _bound(block: Block, best: Place, arm: str, measure: str) -> Bound:
    if not all(has(block, each, measure) for each in (arm, best.low, best.high)):
        return Bound(measure, NAN, NAN, NOTHING)
    beyond = best.beyond(block, arm, measure)
    interval = bootstrap_mean(beyond, generator())
    return Bound(measure, _mean(block, arm, measure), best.plain(block, measure), interval)


def _level(block: Block, arm: str, by: Level) -> float:
    return math.exp(level(block, arm, by).mean()) if by == "perplexity" else _mean(block, arm, by)


def _mean(block: Block, arm: str, measure: str) -> float:
    return float(values(block, arm, measure).mean())
