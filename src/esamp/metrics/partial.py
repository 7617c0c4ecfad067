"""Partial correlations, which control for further quantities, with bootstrap intervals.

The rows (tokens) of one problem are correlated, so whole problems are resampled; here they are called clusters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esamp.errors import InputError
from esamp.metrics.intervals import Interval, t_quantile

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.intp]

_ROUNDING = 1e-9
"""A share of the variance below which only rounding error is left."""


@dataclass(frozen=True)
class PartialCorrelation:
    """A partial correlation to estimate: of the columns `x` and `y`, given other columns."""

    x: int
    y: int
    given: tuple[int, ...] = ()
    within: bool = False
    """subtract the mean of each cell first, so that differences between cells do not count"""


def pearson(x: ArrayLike, y: ArrayLike, given: ArrayLike | None = None) -> float:
    """Correlation of x and y `[N]`, or of their residuals after least squares on `given` `[N, k]`.

    NaN where x or y is constant, or where `given` determines one of them.

    Raises:
        InputError: other shapes, fewer than two rows, NaN or infinity.
    """
    return _correlation(x, y, given, rank=False)


def spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike | None = None) -> float:
    """`pearson` of the ranks of all columns; ties have their mean rank."""
    return _correlation(x, y, given, rank=True)


def ranks(values: ArrayLike) -> Floats:
    """Ranks `[N]` from 1; equal values share the mean of their ranks."""
    return _Ranks(np.asarray(values, dtype=np.float64)).of(None)


def intervals(
    columns: ArrayLike,
    clusters: ArrayLike,
    pairs: Sequence[PartialCorrelation],
    rng: np.random.Generator,
    *,
    rank: bool = True,
    cells: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
) -> list[Interval]:
    """Partial correlations with intervals from a bootstrap over clusters, with the same replicates for all pairs.

    Each replicate draws clusters with replacement, with all their rows, and ranks the rows again. The bounds are
    quantiles of the replicates at the levels Phi(z + (z + w) / (1 - a (z + w))) of BCa (Efron 1987), where z is the
    normal quantile of the share of replicates below the estimate, a = sum d^3 / (6 (sum d^2)^(3/2)) is the acceleration
    from the estimates d without one cluster (centred, sign changed), and w = -+ t_{C-1} sqrt(C / (C - 1)) replaces -+ z
    for C clusters, as in `esamp.metrics.intervals.bootstrap_mean`.

    Args:
        columns: `[N, c]`, finite.
        clusters: `[N]` labels.
        pairs: the correlations to estimate.
        rng: the generator to draw from.
        rank: correlate ranks (Spearman) instead of values (Pearson).
        cells: `[N]` labels of cells for pairs with `within`, each inside one cluster; by default the clusters.
        level: coverage, in (0, 1).
        resamples: replicates, at least 1.

    Returns:
        One interval per pair; the estimate is NaN where a column is constant, the bounds for fewer than two clusters.

    Raises:
        InputError: other shapes, fewer than two rows, NaN or infinity, a cell in two clusters, a level outside (0, 1).
    """
    table = _table(columns)
    if not 0 < level < 1 or resamples < 1:
        raise InputError(
            f"level = {level} and resamples = {resamples}: give a coverage between 0 and 1, and at least 1"
        )
    member, count = _labels(clusters, len(table))
    cell, cell_count = _labels(clusters if cells is None else cells, len(table))
    if np.unique(np.stack([cell, member]), axis=1).shape[1] != cell_count:
        raise InputError("a cell lies in two clusters: each cell must lie in one cluster")
    moments = _Moments(table, member, cell, pairs, rank=rank)
    estimate = moments.correlations(np.ones(count))
    if count < 2:
        return [Interval(float(each), math.nan, math.nan) for each in estimate]
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    replicates = np.array([moments.correlations(weights) for weights in drawn])  # [resamples, pairs]
    without = np.array([moments.correlations(weights) for weights in 1 - np.eye(count)])  # [clusters, pairs]
    return [
        Interval(float(each), *_bounds(float(each), replicates[:, place], without[:, place], level))
        for place, each in enumerate(estimate)
    ]


class _Ranks:
    """The sorted values of one column, so that the ranks of a replicate are a cumulative sum without sorting."""

    def __init__(self, values: Floats) -> None:
        _, self._place, self._counts = np.unique(values, return_inverse=True, return_counts=True)

    def of(self, weights: Floats | None) -> Floats:
        """Mean ranks `[N]` when row i occurs `weights[i]` times."""
        mass = self._counts if weights is None else np.bincount(self._place, weights, len(self._counts))
        middle: Floats = np.cumsum(mass) - mass / 2 + 0.5
        return middle[self._place]


class _Moments:
    """Computes the correlations of the pairs for given numbers of copies of each cluster."""

    def __init__(
        self, table: Floats, member: Labels, cell: Labels, pairs: Sequence[PartialCorrelation], *, rank: bool
    ) -> None:
        order = np.argsort(cell, kind="stable")  # so that each cell is a slice
        table, cell, self._member, self._pairs = table[order], cell[order], member[order], pairs
        self._starts = np.flatnonzero(np.diff(cell, prepend=-1))
        self._sizes = np.diff(self._starts, append=len(cell))
        self._ranks = [_Ranks(column) for column in table.T] if rank else None
        low, spread = table.min(axis=0), np.ptp(table, axis=0)
        self._columns = np.ascontiguousarray(((table - low) / np.where(spread > 0, spread, 1)).T)

    def correlations(self, copies: Floats) -> Floats:
        """The correlation of each pair when cluster c occurs `copies[c]` times."""
        weights = copies[self._member]
        columns = self._columns
        if self._ranks is not None:
            columns = np.stack([column.of(weights) for column in self._ranks]) / weights.sum()
        matrices = {within: self._matrix(columns, weights, within) for within in {pair.within for pair in self._pairs}}
        return np.array([_partial(matrices[pair.within], pair) for pair in self._pairs])

    def _matrix(self, columns: Floats, weights: Floats, within: bool) -> Floats:
        """Correlations `[c, c]` of `columns` `[c, N]` with values from 0 to 1; zeros for a constant column."""
        if within:
            means = np.add.reduceat(columns, self._starts, axis=1) / self._sizes
            offsets = columns - np.repeat(means, self._sizes, axis=1)
        else:
            offsets = columns - np.average(columns, axis=1, weights=weights)[:, None]
        covariance: Floats = (offsets * weights) @ offsets.T / weights.sum()
        deviation = np.sqrt(np.diag(covariance))
        deviation = np.where(deviation > _ROUNDING, deviation, np.inf)
        return covariance / np.outer(deviation, deviation)


def _partial(matrix: Floats, pair: PartialCorrelation) -> float:
    """The correlation of the residuals, from the correlation matrix `[c, c]` of the columns.

    After least squares on the given columns G, a covariance S_xy becomes ``S_xy - S_xG S_GG^+ S_Gy``.
    """
    ends, given = [pair.x, pair.y], [column for column in pair.given if matrix[column, column] > 0]
    left = matrix[np.ix_(ends, ends)]
    if (np.diag(left) == 0).any():
        return math.nan
    if given:
        cross = matrix[np.ix_(given, ends)]
        left = left - cross.T @ np.linalg.pinv(matrix[np.ix_(given, given)], rcond=_ROUNDING, hermitian=True) @ cross
    if min(left[0, 0], left[1, 1]) < _ROUNDING:
        return math.nan
    return float(np.clip(left[0, 1] / math.sqrt(left[0, 0] * left[1, 1]), -1, 1))


def _bounds(estimate: float, replicates: Floats, without: Floats, level: float) -> tuple[float, float]:
    """Quantiles of the replicates at BCa's levels; NaN without a finite estimate or with too few finite values."""
    replicates, without = replicates[np.isfinite(replicates)], without[np.isfinite(without)]
    clusters = len(without)
    if not math.isfinite(estimate) or clusters < 2 or len(replicates) == 0:
        return math.nan, math.nan
    normal, tie = NormalDist(), 1e-12
    below = np.mean(replicates < estimate - tie) + np.mean(np.abs(replicates - estimate) <= tie) / 2
    edge = 0.5 / len(replicates)
    bias = normal.inv_cdf(float(np.clip(below, edge, 1 - edge)))
    offsets = without.mean() - without
    squares = float((offsets**2).sum())
    acceleration = float((offsets**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    width = t_quantile((1 + level) / 2, clusters - 1) * math.sqrt(clusters / (clusters - 1))
    shifted = (bias - width, bias + width)
    low, high = (normal.cdf(bias + u / max(1 - acceleration * u, 0.05)) for u in shifted)
    bounds = np.quantile(replicates, (low, high))
    return float(bounds[0]), float(bounds[1])


def _correlation(x: ArrayLike, y: ArrayLike, given: ArrayLike | None, *, rank: bool) -> float:
    first, second = (np.asarray(values, dtype=np.float64) for values in (x, y))
    others = np.empty((len(first), 0)) if given is None else np.asarray(given, dtype=np.float64)
    if others.ndim == 1:
        others = others[:, None]
    if first.ndim != 1 or first.shape != second.shape or len(others) != len(first):
        raise InputError(f"shapes {first.shape}, {second.shape}, {others.shape}: give x [N], y [N] and given [N, k]")
    table = _table(np.column_stack([first, second, others]))
    one_cluster = np.zeros(len(table), dtype=np.intp)
    pair = PartialCorrelation(0, 1, tuple(range(2, table.shape[1])))
    return float(_Moments(table, one_cluster, one_cluster, [pair], rank=rank).correlations(np.ones(1))[0])


def _labels(values: ArrayLike, rows: int) -> tuple[Labels, int]:
    """Labels as numbers from 0, and the number of different labels."""
    array = np.asarray(values)
    if array.shape != (rows,):
        raise InputError(f"labels have shape {array.shape}: give one for each of the {rows} rows")
    levels, place = np.unique(array, return_inverse=True)
    return place.astype(np.intp), len(levels)


def _table(values: ArrayLike) -> Floats:
    """The values as a finite table `[N, c]` with at least two rows."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise InputError(f"columns have shape {array.shape}: give [rows, columns] with at least two rows")
    if not np.isfinite(array).all():
        raise InputError("columns hold NaN or infinity: leave those rows out, and report it")
    return array
