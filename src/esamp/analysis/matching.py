"""Where plain sampling has an arm's quality: the point of a curve at the same level, and the arm's difference from it.

A level is what is held equal: entropy as it is, the logarithm of perplexity, the square root of the share of non-words
(shares of zero have no logarithm, and between few and many non-words diversity is far from a straight line of the
share), and the share on topic as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.measures import MEASURES, Values, table
from esamp.analysis.plain import Curve, setting
from esamp.study.claim import Level
from esamp.study.config import Arm

NAMED = {measure.name: measure for measure in MEASURES}
Point: TypeAlias = tuple[Arm, Values]
"""An arm of a curve and its levels `[problems, seeds]`."""
CLEAR = 3.0
"""Standard errors by which the levels of neighbours on a curve differ."""


@dataclass(frozen=True)
class Place:
    """Between two points of a curve of plain sampling, or at one point, where `low` and `high` are the same arm."""

    curve: Curve
    low: str
    high: str
    weight: float
    """how far from low to high: 0 to 1"""
    value: float
    """the setting there"""
    span: float
    """from the mean level of low to that of high"""
    drift: Values
    """what each problem moves the weight by, to first order and times the span: `[problems, seeds]`, of mean zero"""
    near: bool = False
    """the curve has no point with this level, but noise cannot tell that of the nearest point from it"""

    def plain(self, block: Block, measure: str) -> float:
        """The mean of a measure here."""
        low, high = (values(block, arm, measure).mean() for arm in (self.low, self.high))
        return float((1 - self.weight) * low + self.weight * high)

    def beyond(self, block: Block, arm: str, measure: str) -> Values:
        """Arm minus plain sampling here `[problems, seeds]`, in the mean ``a - (1 - w) low - w high``.

        The weight w is itself estimated: ``w = (mean level - mean low level) / (mean high level - mean low level)``.
        What a problem moves it by (its influence, to first order) is taken off its difference. The mean of that is
        zero, so that the estimate stays, and its spread becomes that of the whole procedure.
        """
        own, low, high = (values(block, each, measure) for each in (arm, self.low, self.high))
        shift = self.drift * ((high.mean() - low.mean()) / self.span)
        beyond: Values = own - (1 - self.weight) * low - self.weight * high - shift
        rounding = 1e-12 * max(float(np.abs(each).max()) for each in (own, low, high, shift))
        beyond[np.abs(beyond) <= rounding] = 0.0  # equal values differ in their last bits, all in one direction
        return beyond


def values(block: Block, arm: str, measure: str) -> Values:
    """A measure of an arm `[problems, seeds]`. Shared: not to be changed."""
    return block.once(("values", arm, measure), lambda: table(block.arms[arm], block.items, NAMED[measure]))


def has(block: Block, arm: str, measure: str) -> bool:
    """Whether an arm has the measure for all problems and seeds."""
    return bool(np.isfinite(values(block, arm, measure)).all())


def place(block: Block, curve: Curve, by: Level, arm: str, measure: str) -> Place | None:
    """Where the curve has the level of the arm; None where it does not reach that level or something is not measured.

    A curve may pass a level more than once. Then the place is the one with the highest value of the measure, the
    strongest that plain sampling is at this level.
    """
    if not all(has(block, each, name) for each in (arm, *curve.labels) for name in (by, measure)):
        return None
    own = level(block, arm, by)
    points = [(each, level(block, each.label, by)) for each in curve.arms]
    found = list(_between(curve, _apart(block, points, measure), own)) or list(_nearest(curve, points, own))
    return max(found, key=lambda each: each.plain(block, measure), default=None)


def level(block: Block, arm: str, by: Level) -> Values:
    """What is held equal, `[problems, seeds]`.

    Of non-words it is ``sqrt(m) + (x - m) / (2 sqrt(m))`` with m the mean of the shares x: the mean is the root of the
    mean share, and the rest is what each problem moves it by, to first order.
    """
    own = values(block, arm, by)
    if by == "perplexity":
        return np.asarray(np.log(own))
    if by == "non-words":
        root = float(np.sqrt(own.mean()))
        return root + (own - own.mean()) / (2 * root) if root > 0 else own
    return own


def _between(curve: Curve, points: Sequence[Point], own: Values) -> Iterator[Place]:
    """Between neighbours around the level."""
    wanted = float(own.mean())
    for (low, first), (high, second) in pairwise(points):
        one, other = float(first.mean()), float(second.mean())
        if not min(one, other) <= wanted <= max(one, other) or one == other:
            continue
        weight = (wanted - one) / (other - one)
        value = (1 - weight) * setting(low, curve.knob) + weight * setting(high, curve.knob)
        drift = (own - first) - weight * (second - first)
        yield Place(curve, low.label, high.label, weight, value, other - one, drift)


def _nearest(curve: Curve, points: Sequence[Point], own: Values) -> Iterator[Place]:
    """The nearest point, or all that are equally near, if noise cannot tell its level from the arm's."""
    least = min(abs(float((each - own).mean())) for _, each in points)
    for arm, each in points:
        if abs(float((each - own).mean())) <= least + 1e-12 and not _differ(own, each):
            where = setting(arm, curve.knob)
            yield Place(curve, arm.label, arm.label, 0.0, where, 1.0, np.zeros_like(own), near=True)


def _apart(block: Block, points: Sequence[Point], measure: str) -> list[Point]:
    """The points of a curve whose levels differ from the one before by more than their noise.

    Between two points that could as well change places, the place of an arm would be noise divided by noise. Of such
    points the one with most of the measure is kept, as plain sampling is to be taken at its best.
    """
    kept = [points[0]]
    for point in points[1:]:
        more = values(block, point[0].label, measure).mean() > values(block, kept[-1][0].label, measure).mean()
        if _differ(point[1], kept[-1][1]):
            kept.append(point)
        elif more and (len(kept) == 1 or _differ(point[1], kept[-2][1])):
            kept[-1] = point
    return kept


def _differ(one: Values, other: Values) -> bool:
    """Whether levels differ by more than noise, paired by problem; where there is one problem nobody can tell."""
    differences = (one - other).mean(axis=1)
    if len(differences) < 2:
        return False
    noise = differences.std(ddof=1) / np.sqrt(len(differences))
    return bool(abs(differences.mean()) > CLEAR * noise)
