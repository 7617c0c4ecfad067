"""Plain sampling at an arm's level: the point of a curve with the same level, and the arm's difference from it.

A level is the quantity that is held equal: the entropy, the logarithm of the perplexity, the square root of the share
of non-words, or the share on topic. (Shares of zero have no logarithm, and diversity is far from linear in the share of
non-words.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.measures import MEASURES, Values, table
from esamp.analysis.plain_curves import PlainCurve, setting_value
from esamp.study.arm import Arm
from esamp.study.claim import LevelMeasure

MEASURES_BY_NAME = {measure.name: measure for measure in MEASURES}
_CurveLevel: TypeAlias = tuple[Arm, Values]
"""An arm of a curve and its levels `[problems, seeds]`."""
CLEAR_STANDARD_ERRORS = 3.0
"""Levels of neighbours on a curve differ clearly if they are this many standard errors apart."""


@dataclass(frozen=True)
class PlainPoint:
    """A point of a curve of plain sampling: between two arms, or at one arm, which is then both `low` and `high`."""

    curve: PlainCurve
    low: str
    high: str
    weight: float
    """position between low (0) and high (1)"""
    value: float
    """the interpolated value of the curve's setting"""
    span: float
    """mean level of high minus mean level of low"""
    drift: Values
    """first-order influence of each problem on the weight, times the span: `[problems, seeds]`, of mean zero"""
    near: bool = False
    """whether the curve has no point with the level, and this is the nearest one, indistinguishable by noise"""

    def mean(self, block: Block, measure: str) -> float:
        """The mean of a measure here."""
        low, high = (values(block, arm, measure).mean() for arm in (self.low, self.high))
        return float((1 - self.weight) * low + self.weight * high)

    def difference(self, block: Block, arm: str, measure: str) -> Values:
        """Arm minus plain sampling here, `[problems, seeds]`: ``a - (1 - w) low - w high``, corrected for estimating w.

        The weight is estimated: ``w = (mean level - mean low level) / (mean high level - mean low level)``. The
        first-order influence of each problem on w is subtracted from its difference. These influences have mean zero,
        so the estimate does not change, and the spread of the differences becomes that of the whole procedure.
        """
        own, low, high = (values(block, label, measure) for label in (arm, self.low, self.high))
        shift = self.drift * ((high.mean() - low.mean()) / self.span)
        differences: Values = own - (1 - self.weight) * low - self.weight * high - shift
        rounding = 1e-12 * max(float(np.abs(terms).max()) for terms in (own, low, high, shift))
        differences[np.abs(differences) <= rounding] = 0.0  # rounding would give equal values a common sign
        return differences


def values(block: Block, arm: str, measure: str) -> Values:
    """A measure of an arm, `[problems, seeds]`. The array is cached, so it must not be changed."""
    return block.cached(
        ("values", arm, measure), lambda: table(block.arms[arm], block.items, MEASURES_BY_NAME[measure])
    )


def is_measured(block: Block, arm: str, measure: str) -> bool:
    """Whether an arm has the measure for all problems and seeds."""
    return bool(np.isfinite(values(block, arm, measure)).all())


def plain_point(block: Block, curve: PlainCurve, held_equal: LevelMeasure, arm: str, measure: str) -> PlainPoint | None:
    """The point of the curve with the arm's level; None if the curve does not reach it or something is not measured.

    If the curve passes the level several times, the point is the one with the highest mean of `measure`, where plain
    sampling is strongest.
    """
    labels = (arm, *curve.labels)
    if not all(is_measured(block, label, name) for label in labels for name in (held_equal, measure)):
        return None
    own = levels(block, arm, held_equal)
    points = [(plain, levels(block, plain.label, held_equal)) for plain in curve.arms]
    points_found = list(_between(curve, _distinct(block, points, measure), own)) or list(_nearest(curve, points, own))
    return max(points_found, key=lambda point: point.mean(block, measure), default=None)


def levels(block: Block, arm: str, held_equal: LevelMeasure) -> Values:
    """The level of an arm, `[problems, seeds]`.

    For shares x of non-words with mean m it is ``sqrt(m) + (x - m) / (2 sqrt(m))``: the mean is the root of the mean
    share, and the rest is the first-order influence of each problem on it.
    """
    own = values(block, arm, held_equal)
    if held_equal == "perplexity":
        return np.asarray(np.log(own))
    if held_equal == "non-words":
        root = float(np.sqrt(own.mean()))
        return root + (own - own.mean()) / (2 * root) if root > 0 else own
    return own


def _between(curve: PlainCurve, points: Sequence[_CurveLevel], own: Values) -> Iterator[PlainPoint]:
    """The points with the level `own`, interpolated between neighbours on the curve."""
    target = float(own.mean())
    for (low, low_levels), (high, high_levels) in pairwise(points):
        low_mean, high_mean = float(low_levels.mean()), float(high_levels.mean())
        if not min(low_mean, high_mean) <= target <= max(low_mean, high_mean) or low_mean == high_mean:
            continue
        weight = (target - low_mean) / (high_mean - low_mean)
        value = (1 - weight) * setting_value(low, curve.setting) + weight * setting_value(high, curve.setting)
        drift = (own - low_levels) - weight * (high_levels - low_levels)
        yield PlainPoint(curve, low.label, high.label, weight, value, high_mean - low_mean, drift)


def _nearest(curve: PlainCurve, points: Sequence[_CurveLevel], own: Values) -> Iterator[PlainPoint]:
    """The arm with the nearest level, or several that are equally near, unless its level clearly differs."""
    least = min(abs(float((plain_levels - own).mean())) for _, plain_levels in points)
    for plain, plain_levels in points:
        if abs(float((plain_levels - own).mean())) <= least + 1e-12 and not _clearly_differ(own, plain_levels):
            value, drift = setting_value(plain, curve.setting), np.zeros_like(own)
            yield PlainPoint(curve, plain.label, plain.label, 0.0, value, 1.0, drift, near=True)


def _distinct(block: Block, points: Sequence[_CurveLevel], measure: str) -> list[_CurveLevel]:
    """The points of a curve, without those whose level does not clearly differ from the point before.

    Interpolating between two such points would divide noise by noise. The one with the higher mean of `measure` is
    kept, so that plain sampling is taken at its best.
    """
    kept = [points[0]]
    for point in points[1:]:
        more = values(block, point[0].label, measure).mean() > values(block, kept[-1][0].label, measure).mean()
        if _clearly_differ(point[1], kept[-1][1]):
            kept.append(point)
        elif more and (len(kept) == 1 or _clearly_differ(point[1], kept[-2][1])):
            kept[-1] = point
    return kept


def _clearly_differ(first: Values, second: Values) -> bool:
    """Whether levels differ by more than noise, paired by problem; False for a single problem, which has no spread."""
    differences = (first - second).mean(axis=1)
    if len(differences) < 2:
        return False
    noise = differences.std(ddof=1) / np.sqrt(len(differences))
    return bool(abs(differences.mean()) > CLEAR_STANDARD_ERRORS * noise)
