"""What the figures show, as numbers: curves and points with their intervals. Nothing here draws."""

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
"""Of the intervals along a curve; single points have those of the tables."""
NAMED = {measure.name: measure for measure in MEASURES}


@dataclass(frozen=True)
class Curve:
    """One arm's line with its band."""

    arm: str
    x: tuple[float, ...]
    y: tuple[Interval, ...]
    """95 %, bootstrap over problems, each with its seeds"""


@dataclass(frozen=True)
class Point:
    """One arm's place, with an interval each way."""

    arm: str
    x: Interval
    y: Interval
    problems: int


@dataclass(frozen=True)
class Grid:
    """Arms of plain sampling that differ in one setting alone, by rising value."""

    name: str
    arms: tuple[str, ...]
    marks: tuple[str, ...]
    """the setting of each, to be written beside it"""


def grids(study: Study) -> list[Grid]:
    """What plain sampling can be turned to."""
    signs = {"temperature": "T", "top_p": "p", "min_p": "min-p"}
    found = []
    for curve in plain_curves.curves(study):
        marks = tuple(
            f"{signs[curve.setting]} {plain_curves.setting_value(arm, curve.setting):g}" for arm in curve.arms
        )
        what = {"temperature": "vanilla over temperatures"}.get(
            curve.setting, f"vanilla over {plain_curves.SWEPT_SETTINGS[curve.setting]}"
        )
        found.append(Grid(what, tuple(arm.label for arm in curve.arms), marks))
    return found


def subset_curves(block: Block) -> list[Curve]:
    """``pass@k (subset of n)`` over k, of every arm: as far as all of its groups have so many samples."""
    found = []
    for arm, groups in block.arms.items():
        values = {k: subset_pass(groups, block.items, k) for k in _sizes(block.n)}
        whole = {k: _band(own) for k, own in values.items() if np.isfinite(own).all()}
        if whole:
            found.append(Curve(arm, tuple(whole), tuple(whole.values())))
    return found


def group_points(block: Block, blocks: Sequence[Block]) -> list[Point]:
    """``pass@k (group of k)``: solved by groups of exactly k, for every size k up to n that the study has.

    Groups of another size may be finished for other problems: only problems of `block` count.
    """
    found = []
    for other in sorted(blocks, key=lambda each: each.n):
        if (other.model, other.task) != (block.model, block.task) or other.n > block.n:
            continue
        items = [item for item in block.items if item in set(other.items)]
        for arm in block.arms if items else ():
            if arm in other.arms:
                solved = table(other.arms[arm], items, NAMED["solved"])
                found.append(Point(arm, _exactly(other.n), interval(solved), len(items)))
    return found


def diversity(block: Block) -> tuple[str, Mapping[str, Values]]:
    """How it is measured, and of every arm that has it for all problems: by sentence embeddings where any arm has them.

    Otherwise by n-grams of tokens. `[problems, seeds]` for each arm; nothing at all of private tasks.
    """
    for name in ("Vendi", "n-gram Vendi"):
        found = {arm: table(groups, block.items, NAMED[name]) for arm, groups in block.arms.items()}
        finite = {arm: values for arm, values in found.items() if np.isfinite(values).all()}
        if finite:
            break
    return name, finite


def cloud(block: Block, across: str, up: Mapping[str, Values]) -> list[Point]:
    """Every arm's place on two measures; arms that lack one of them for some problem are left out."""
    found = []
    for arm, values in up.items():
        x = table(block.arms[arm], block.items, NAMED[across])
        if np.isfinite(x).all():
            found.append(Point(arm, interval(x), interval(values), len(block.items)))
    return found


def similarity_curves(block: Block) -> tuple[list[Curve], Mapping[int, int]]:
    """Similarity over positions of every arm, and how many problems each position stands for.

    Samples end, so positions far on stand for fewer problems. An arm is drawn as far as at least half of the problems
    have a value for every seed. A position stands for the problems that all arms drawn there have, the same for all,
    and is left out where these are fewer than a quarter.
    """
    found = {arm: _similarities(groups, block.items) for arm, groups in block.arms.items()}
    finite: dict[str, NDArray[np.bool_]] = {}  # [problems, positions]
    for arm, values in found.items():
        finite[arm] = np.asarray(np.isfinite(values).all(axis=1))
    x: dict[str, list[float]] = {arm: [] for arm in found}
    y: dict[str, list[Interval]] = {arm: [] for arm in found}
    counts = {}
    for place, position in enumerate(POSITIONS):
        here = [arm for arm in found if finite[arm][:, place].mean() >= 0.5]
        if not here:
            continue
        rows = np.stack([finite[arm][:, place] for arm in here]).all(axis=0)  # [problems]
        if rows.mean() < 0.25:
            continue
        counts[position] = int(rows.sum())
        for arm in here:
            x[arm].append(position)
            y[arm].append(_band(found[arm][rows, :, place]))
    return [Curve(arm, tuple(x[arm]), tuple(y[arm])) for arm in found if x[arm]], counts


def interval(values: Values) -> Interval:
    """The same as in the report's tables."""
    return bootstrap_mean(values, np.random.default_rng(SEED))


def _similarities(groups: GroupRecords, items: Sequence[str]) -> NDArray[np.float64]:
    """`[problems, seeds, positions]`."""
    nothing = (math.nan,) * len(POSITIONS)
    return np.array([[groups[seed][item].measured.similarity or nothing for seed in groups] for item in items])


def _sizes(n: int) -> tuple[int, ...]:
    """All k up to 16, then some that are evenly apart on a logarithmic axis, and n."""
    later = {round(16 * 2 ** (step / 4)) for step in range(1, 4 * n.bit_length())}
    return tuple(sorted({k for k in {*range(1, 17), *later} if k < n} | {n}))


def _band(values: Values) -> Interval:
    return bootstrap_mean(values, np.random.default_rng(SEED), resamples=BAND_RESAMPLES)


def _exactly(value: float) -> Interval:
    return Interval(value, value, value)
