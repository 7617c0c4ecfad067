"""Partial correlations: hand-computed values, equivalent formulas, undefined cases, and simulations."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from esamp.errors import InputError
from esamp.metrics.intervals import t_quantile
from esamp.metrics.partial import PartialCorrelation, intervals, pearson, ranks, spearman

Floats = NDArray[np.float64]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_inverse(columns: Floats) -> float:
    """-P_xy / sqrt(P_xx P_yy) of the inverse P of the correlation matrix of all columns."""
    inverse = np.linalg.inv(np.corrcoef(columns, rowvar=False))
    return float(-inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1]))


def by_residuals(columns: Floats) -> float:
    design = np.column_stack([np.ones(len(columns)), columns[:, 2:]])
    left = columns[:, :2] - design @ np.linalg.lstsq(design, columns[:, :2], rcond=None)[0]
    return float(np.corrcoef(left, rowvar=False)[0, 1])


# ---- estimates


def test_partial_correlations_match_hand_computed_values() -> None:
    x, y, z = [4.0, 1, 2, 3], [1.0, 3, 2, 4], [1.0, 1, 2, 2]
    # Sums of products around the means: xx = yy = 5, zz = 1, xy = -2.25 - .75 + .25 + .75 = -2,
    # xz = -.75 + .75 - .25 + .25 = 0, yz = .75 - .25 - .25 + .75 = 1.
    xy, xz, yz = -2 / 5, 0 / math.sqrt(5), 1 / math.sqrt(5)
    assert pearson(x, y) == pytest.approx(xy)
    assert pearson(x, z) == pytest.approx(xz)
    assert pearson(y, z) == pytest.approx(yz)
    assert pearson(x, y, z) == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))
    assert pearson(x, y, z) == pytest.approx(-1 / math.sqrt(5))
    assert spearman(x, y, z) == pytest.approx(-1 / math.sqrt(5))  # all columns are ranks or monotone in them
    assert pearson(x, z, y) == pytest.approx((xz - xy * yz) / math.sqrt((1 - xy**2) * (1 - yz**2)))


@given(st.integers(0, 10_000), st.integers(12, 40), st.integers(0, 4), st.sampled_from([1e-6, 1.0, 1e8]))
def test_partial_correlation_matches_residuals_and_inverse_matrix(
    seed: int, rows: int, others: int, scale: float
) -> None:
    columns = (rng(seed).normal(size=(rows, 2 + others)) @ rng(seed + 1).normal(size=(2 + others, 2 + others))) * scale
    columns += scale * rng(seed).normal(size=2 + others)
    found = pearson(columns[:, 0], columns[:, 1], columns[:, 2:])
    assert found == pytest.approx(by_inverse(columns), abs=1e-6)
    assert found == pytest.approx(by_residuals(columns), abs=1e-6)


def test_ties_share_their_mean_rank() -> None:
    assert ranks([3.0, 1, 3, 2, 3]).tolist() == [4, 1, 4, 2, 4]
    values = rng().integers(0, 6, size=(60, 3)).astype(float)
    for column in values.T:
        assert ranks(column).tolist() == stats.rankdata(column).tolist()
    assert spearman(values[:, 0], values[:, 1]) == pytest.approx(stats.spearmanr(values[:, 0], values[:, 1]).statistic)
    ranked = np.column_stack([stats.rankdata(column) for column in values.T])
    assert spearman(values[:, 0], values[:, 1], values[:, 2]) == pytest.approx(by_inverse(ranked))


def test_correlations_are_invariant_under_monotone_and_linear_maps() -> None:
    x, y, z = rng().normal(size=(3, 50))
    assert spearman(np.exp(x), y, z**3) == pytest.approx(spearman(x, y, z))
    assert pearson(3 * x + 7, -y, z) == pytest.approx(-pearson(x, y, z))
    assert pearson(1e-12 * x, 1e12 * y, z) == pytest.approx(pearson(x, y, z))


def test_a_common_cause_is_controlled_for() -> None:
    cause = rng(1).normal(size=4000)
    x, y = (cause + 0.5 * rng(seed).normal(size=4000) for seed in (2, 3))
    assert spearman(x, y) > 0.7
    assert abs(spearman(x, y, cause)) < 0.05
    assert spearman(x, x + y, cause) > 0.6


# ---- undefined cases


def test_constant_or_determined_columns_give_nan() -> None:
    x, y = rng().normal(size=(2, 20))
    for constant in (np.full(20, 0.1), np.zeros(20), np.full(20, 1e9)):
        assert math.isnan(pearson(constant, y))
        assert math.isnan(spearman(x, constant))
        assert pearson(x, y, constant) == pytest.approx(pearson(x, y))  # a constant explains nothing
    assert math.isnan(pearson(x, y, x))  # x has no residual
    assert math.isnan(pearson(x, y, np.column_stack([x + y, x - y])))
    assert pearson(x, y, np.column_stack([x - 2 * y, x - 2 * y])) == pytest.approx(pearson(x, y, x - 2 * y))
    assert pearson(x + 1e9, y) == pytest.approx(pearson(x, y), abs=1e-4)


def test_invalid_tables_are_refused() -> None:
    good, labels = np.eye(4), [0, 0, 1, 1]
    for x, y in (([1], [1]), ([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2]), ([[1, 2]], [[1, 2]])):
        with pytest.raises(InputError):
            pearson(x, y)
    with pytest.raises(InputError, match=r"given \[N, k\]"):
        pearson([1, 2], [1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="labels have shape"):
        intervals(good, labels[:3], [PartialCorrelation(0, 1)], rng())
    with pytest.raises(InputError, match="two clusters"):
        intervals(good, labels, [PartialCorrelation(0, 1)], rng(), cells=[0, 1, 1, 2])
    with pytest.raises(InputError, match="level = 1"):
        intervals(good, labels, [PartialCorrelation(0, 1)], rng(), level=1)
    with pytest.raises(InputError, match="resamples = 0"):
        intervals(good, labels, [PartialCorrelation(0, 1)], rng(), resamples=0)


# ---- intervals


def clustered(seed: int, clusters: int = 20, rows: int = 8, slope: float = 0.5) -> tuple[Floats, NDArray[np.int_]]:
    """Columns x, y, z with a random shift per cluster: z influences x and y, and x influences y by `slope`."""
    draw = rng(seed)
    label = np.repeat(np.arange(clusters), rows)
    z = draw.normal(size=clusters)[label] + draw.normal(size=clusters * rows)
    x = z + draw.normal(size=clusters)[label] + draw.normal(size=clusters * rows)
    y = z + slope * x + 0.7 * draw.normal(size=clusters)[label] + draw.normal(size=clusters * rows)
    return np.column_stack([x, y, z]), label


def test_weighted_replicates_equal_replicates_of_copied_rows() -> None:
    """Compares the weighted bootstrap with one that copies the rows of drawn clusters and ranks them again."""
    table, label = clustered(3, clusters=6, rows=5)
    pairs = [PartialCorrelation(0, 1), PartialCorrelation(0, 1, (2,)), PartialCorrelation(2, 1, (0,), within=True)]
    found = intervals(table, label, pairs, rng(5), level=0.9, resamples=150)
    drawn = rng(5).multinomial(6, np.full(6, 1 / 6), size=150)

    def directly(copies: NDArray[np.int_]) -> list[float]:
        rows = np.concatenate([np.flatnonzero(label == c) for c in np.repeat(np.arange(6), copies)])
        part = np.repeat(np.arange(copies.sum()), 5)
        ranked = np.column_stack([stats.rankdata(column) for column in table[rows].T])
        means = np.stack([ranked[part == each].mean(0) for each in range(copies.sum())])
        inner = (ranked - means[part])[:, [2, 1, 0]]
        return [float(np.corrcoef(ranked[:, :2], rowvar=False)[0, 1]), by_residuals(ranked), by_residuals(inner)]

    replicates = np.array([directly(copies) for copies in drawn])
    without = np.array([directly(copies) for copies in 1 - np.eye(6, dtype=int)])
    for place, interval in enumerate(found):
        estimate, own, leave_one_out = directly(np.ones(6, dtype=int))[place], replicates[:, place], without[:, place]
        assert interval.estimate == pytest.approx(estimate, abs=1e-9)
        bias = NormalDist().inv_cdf(float(np.mean(own < estimate - 1e-9) + np.mean(abs(own - estimate) < 1e-9) / 2))
        offsets = leave_one_out.mean() - leave_one_out
        skew = float((offsets**3).sum() / (6 * (offsets**2).sum() ** 1.5))
        width = t_quantile(0.95, 5) * math.sqrt(6 / 5)
        for bound, side in ((interval.low, -1), (interval.high, 1)):
            level = NormalDist().cdf(bias + (bias + side * width) / (1 - skew * (bias + side * width)))
            assert bound == pytest.approx(np.quantile(own, level), abs=1e-9)


def test_differences_between_cells_do_not_count_within() -> None:
    label = np.repeat(np.arange(10), 30)
    shared = 20.0 * rng(1).normal(size=10)[label]
    table = np.column_stack([shared + rng(seed).normal(size=300) for seed in (2, 3)])
    plain, within = intervals(
        table,
        label,
        [PartialCorrelation(0, 1), PartialCorrelation(0, 1, within=True)],
        rng(),
        rank=False,
        resamples=300,
    )
    assert plain.low > 0.9
    assert within.low < 0 < within.high
    inner = table - np.repeat(table.reshape(10, 30, 2).mean(1), 30, axis=0)
    assert within.estimate == pytest.approx(float(np.corrcoef(inner, rowvar=False)[0, 1]))
    finer = intervals(
        table, label, [PartialCorrelation(0, 1, within=True)], rng(), rank=False, cells=np.arange(300) // 3, resamples=1
    )
    inner = table - np.repeat(table.reshape(100, 3, 2).mean(1), 3, axis=0)
    assert finer[0].estimate == pytest.approx(float(np.corrcoef(inner, rowvar=False)[0, 1]))
    alone = intervals(table, label, [PartialCorrelation(0, 1, within=True)], rng(), cells=np.arange(300), resamples=1)[
        0
    ]
    assert math.isnan(alone.estimate)  # one row per cell leaves no variation


def test_few_clusters_or_constant_columns_give_nan() -> None:
    table, label = clustered(0, clusters=4)
    one = intervals(table, np.zeros(len(table)), [PartialCorrelation(0, 1)], rng())[0]
    assert one.estimate == pytest.approx(spearman(table[:, 0], table[:, 1]))
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    table[:, 2] = 1
    found = intervals(table, label, [PartialCorrelation(0, 2), PartialCorrelation(0, 1, (2,))], rng(), resamples=50)
    assert math.isnan(found[0].estimate)
    assert math.isnan(found[0].low)
    assert found[1].estimate == pytest.approx(spearman(table[:, 0], table[:, 1]))


def test_rows_of_a_cluster_are_not_independent() -> None:
    """Four copies of every row add no information, so the width of the interval does not change."""
    table, label = clustered(7)
    once = intervals(table, label, [PartialCorrelation(0, 1, (2,))], rng(1), resamples=400)[0]
    often = intervals(
        np.repeat(table, 4, axis=0), np.repeat(label, 4), [PartialCorrelation(0, 1, (2,))], rng(1), resamples=400
    )[0]
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.05)


def test_intervals_cover_the_truth() -> None:
    pairs = [PartialCorrelation(0, 1), PartialCorrelation(0, 1, (2,))]
    many, _ = clustered(99, clusters=4000)
    truth = [spearman(many[:, 0], many[:, 1]), spearman(many[:, 0], many[:, 1], many[:, 2])]
    held = np.zeros(2)
    for seed in range(40):
        table, label = clustered(seed)
        found = intervals(table, label, pairs, rng(seed), resamples=120)
        held += [each.low <= value <= each.high for each, value in zip(found, truth, strict=True)]
    assert (held >= 34).all()  # 95 % intervals fail this in 1 of 300 cases
