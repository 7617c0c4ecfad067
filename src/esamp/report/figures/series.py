"""The numbers that the figures show: curves and points with their intervals. Nothing here draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esamp.analysis import plain_curves
from esamp.analysis.load import Block, GroupRecords
from esamp.analysis.measures import MEASURES, Values, subset_pass, table
from esamp.analysis.positions import POSITIONS
from esamp.analysis.statistics import SEED
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.study.config import Study

BAND_RESAMPLES = 2000
"""Bootstrap resamples for the band along a curve; single points have the same intervals as the tables."""
NAMED = {measure.name: measure for measure in MEASURES}
SETTING_SIGNS = {"temperature": "T", "top_p": "p", "min_p": "min-p"}


@dataclass(frozen=True)
class ArmCurve:
    """A curve of one arm with its band."""

    arm: str
    x: tuple[float, ...]
    y: tuple[Interval, ...]
    """95 % intervals by bootstrap over problems, each with its seeds"""


@dataclass(frozen=True)
class ArmPoint:
    """A point of one arm, with an interval in each direction."""

    arm: str
    x: Interval
    y: Interval
    problems: int


@dataclass(frozen=True)
class VanillaLine:
    """Arms of plain sampling that differ in one setting only, in the order of its values."""

    name: str
    arms: tuple[str, ...]
    marks: tuple[str, ...]
    """the setting of each arm, written beside its point"""


def vanilla_lines(study: Study) -> list[VanillaLine]:
    """One line for each setting of plain sampling that the study varies."""
    lines = []
    for curve in plain_curves.curves(study):
        marks = tuple(
            f"{SETTING_SIGNS[curve.setting]} {plain_curves.setting_value(arm, curve.setting):g}" for arm in curve.arms
        )
        name = "vanilla over " + (
            "temperatures" if curve.setting == "temperature" else plain_curves.SWEPT_SETTINGS[curve.setting]
        )
        lines.append(VanillaLine(name, tuple(arm.label for arm in curve.arms), marks))
    return lines


def subset_curves(block: Block) -> list[ArmCurve]:
    """``pass@k (subset of n)`` over k for every arm, as far as all of its groups have k samples."""
    curves = []
    for arm, groups in block.arms.items():
        values = {k: subset_pass(groups, block.items, k) for k in _subset_sizes(block.n)}
        complete = {k: _band(own) for k, own in values.items() if np.isfinite(own).all()}
        if complete:
            curves.append(ArmCurve(arm, tuple(complete), tuple(complete.values())))
    return curves


def group_points(block: Block, blocks: Sequence[Block]) -> list[ArmPoint]:
    """``pass@k (group of k)``: the share solved by groups of exactly k, for every group size k <= n in the study.

    Blocks of other group sizes may have finished other problems; only the problems of `block` count.
    """
    points = []
    for other in sorted(blocks, key=lambda each: each.n):
        if (other.model, other.task) != (block.model, block.task) or other.n > block.n:
            continue
        items = [item for item in block.items if item in set(other.items)]
        for arm in block.arms if items else ():
            if arm in other.arms:
                solved = table(other.arms[arm], items, NAMED["solved"])
                points.append(ArmPoint(arm, _exact(other.n), interval(solved), len(items)))
    return points


def diversity(block: Block) -> tuple[str, Mapping[str, Values]]:
    """The diversity measure of the block and its values `[problems, seeds]` by arm.

    The measure is the Vendi Score of sentence embeddings if any arm has it, otherwise that of token n-grams. Arms
    without a value for every problem are left out. For private tasks the result is empty.
    """
    for name in ("Vendi", "n-gram Vendi"):
        values = {arm: table(groups, block.items, NAMED[name]) for arm, groups in block.arms.items()}
        complete = {arm: own for arm, own in values.items() if np.isfinite(own).all()}
        if complete:
            break
    return name, complete


def scatter_points(block: Block, x_measure: str, y_values: Mapping[str, Values]) -> list[ArmPoint]:
    """The point of every arm in two measures; arms without a value of both for every problem are left out."""
    points = []
    for arm, values in y_values.items():
        x = table(block.arms[arm], block.items, NAMED[x_measure])
        if np.isfinite(x).all():
            points.append(ArmPoint(arm, interval(x), interval(values), len(block.items)))
    return points


def similarity_curves(block: Block) -> tuple[list[ArmCurve], Mapping[int, int]]:
    """Similarity over positions for every arm, and the number of problems behind each position.

    Samples differ in length, so fewer problems reach later positions. An arm's curve ends where fewer than half of the
    problems have a value for every seed. All arms drawn at a position use the same problems there: those that all of
    them have. A position with less than a quarter of the problems is left out.
    """
    values = {arm: _similarities(groups, block.items) for arm, groups in block.arms.items()}
    finite: dict[str, NDArray[np.bool_]] = {}  # [problems, positions]
    for arm, own in values.items():
        finite[arm] = np.asarray(np.isfinite(own).all(axis=1))
    x: dict[str, list[float]] = {arm: [] for arm in values}
    y: dict[str, list[Interval]] = {arm: [] for arm in values}
    problems = {}
    for index, position in enumerate(POSITIONS):
        drawn = [arm for arm in values if finite[arm][:, index].mean() >= 0.5]
        if not drawn:
            continue
        rows = np.stack([finite[arm][:, index] for arm in drawn]).all(axis=0)  # [problems]
        if rows.mean() < 0.25:
            continue
        problems[position] = int(rows.sum())
        for arm in drawn:
            x[arm].append(position)
            y[arm].append(_band(values[arm][rows, :, index]))
    return [ArmCurve(arm, tuple(x[arm]), tuple(y[arm])) for arm in values if x[arm]], problems


def interval(values: Values) -> Interval:
    """Mean of `values` `[problems, seeds]` with the same 95 % interval as in the report's tables."""
    return bootstrap_mean(values, np.random.default_rng(SEED))


def _similarities(groups: GroupRecords, items: Sequence[str]) -> NDArray[np.float64]:
    """`[problems, seeds, positions]`."""
    missing = (math.nan,) * len(POSITIONS)
    return np.array([[groups[seed][item].measured.similarity or missing for seed in groups] for item in items])


def _subset_sizes(n: int) -> tuple[int, ...]:
    """All k up to 16, then four values per doubling, and n itself."""
    later = {round(16 * 2 ** (step / 4)) for step in range(1, 4 * n.bit_length())}
    return tuple(sorted({k for k in {*range(1, 17), *later} if k < n} | {n}))


def _band(values: Values) -> Interval:
    return bootstrap_mean(values, np.random.default_rng(SEED), resamples=BAND_RESAMPLES)


def _exact(value: float) -> Interval:
    return Interval(value, value, value)
