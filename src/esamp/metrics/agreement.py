"""Agreement of raters beyond chance: the coefficients of Cohen, Fleiss and Krippendorff, and Kendall's W for rankings.

All are 1 where raters always agree. The three for categories are 0 where raters agree as often as by chance, and
negative below that; they differ in their definition of chance and in whether they allow more than two raters and
missing ratings. An undefined coefficient is NaN, for example where all ratings are the same category.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esamp.errors import InputError
from esamp.metrics.intervals import Interval


def observed_agreement(ratings: Sequence[Sequence[Hashable | None]]) -> float:
    """The share of pairs of ratings of one unit that are equal, averaged over units; not corrected for chance.

    Args:
        ratings: for each unit its ratings by any number of raters, None where one is missing; units with fewer than
            two ratings are excluded.

    Returns:
        A number from 0 to 1; NaN if no unit has two ratings.
    """
    counts = _counts(ratings)
    if not len(counts):
        return float("nan")
    raters = counts.sum(axis=1)
    return float(((counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))).mean())


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen's kappa (1960) of two raters: (p_o - p_e) / (1 - p_e), where chance follows each rater's own shares.

    p_o is the share of units with the same category, p_e = sum_c p_1(c) p_2(c).

    Raises:
        InputError: the raters rated different numbers of units, or none.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"{len(first)} and {len(second)} ratings: give both raters' ratings of the same units")
    same = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    chance = sum(_share(first, each) * _share(second, each) for each in set(first))
    return (same - chance) / (1 - chance) if chance < 1 else float("nan")


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa (1971): Cohen's for any number of raters, where chance follows the shares of all ratings together.

    Args:
        counts: `[units, categories]`, the number of raters who gave the unit that category; every unit has the same
            number of raters, at least two.

    Raises:
        InputError: another shape, values that are not counts, fewer than two raters, or different numbers of raters.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.size == 0 or (table < 0).any() or (table != np.floor(table)).any():
        raise InputError(f"counts of shape {table.shape}: give whole numbers [units, categories], not empty")
    raters = table.sum(axis=1)
    if raters[0] < 2 or (raters != raters[0]).any():
        raise InputError(
            "each unit needs the same number of raters, at least two; krippendorff_alpha allows missing ratings"
        )
    same = ((table * (table - 1)).sum(axis=1) / (raters * (raters - 1))).mean()
    chance = ((table.sum(axis=0) / table.sum()) ** 2).sum()
    return float((same - chance) / (1 - chance)) if chance < 1 else float("nan")


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> float:
    """Krippendorff's alpha for nominal data (2011): 1 - D_o / D_e, for any number of raters and missing ratings.

    D_o is the share of pairs of ratings of one unit that differ (a unit of m ratings has weight m); D_e is the share
    of pairs of all ratings that differ.

    Args:
        ratings: for each unit its ratings, None where one is missing. Units with fewer than two are excluded.
    """
    differ, total, shares = (terms.sum(axis=0) for terms in _terms(_counts(ratings)))
    return float(_alpha(differ, total, shares))


def alpha_interval(
    problems: Sequence[Sequence[Sequence[Hashable | None]]],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Krippendorff's alpha of all ratings with a percentile bootstrap interval over problems.

    Units of one problem are not independent, so whole problems are drawn. Draws for which alpha is undefined are
    excluded.

    Args:
        problems: for each problem its units, each with its ratings as in `krippendorff_alpha`.
        rng: the generator to draw from.
        level: coverage, in (0, 1).
        resamples: draws.

    Returns:
        NaN bounds where fewer than two problems have a unit with two ratings, or most draws are undefined.
    """
    units = [unit for problem in problems for unit in problem]
    owners = np.repeat(np.arange(len(problems)), [len(problem) for problem in problems])
    places = [place for place, unit in enumerate(units) if sum(each is not None for each in unit) > 1]
    terms = _terms(_counts(units))
    estimate = float(_alpha(*(each.sum(axis=0) for each in terms)))
    _, own = np.unique(owners[places], return_inverse=True)
    count = int(own.max()) + 1 if len(own) else 0
    if count < 2 or math.isnan(estimate):
        return Interval(estimate, float("nan"), float("nan"))
    sums = [np.zeros((count, *each.shape[1:])) for each in terms]
    for whole, each in zip(sums, terms, strict=True):
        np.add.at(whole, own, each)
    drawn = rng.integers(count, size=(resamples, count))
    replicates = _alpha(*(whole[drawn].sum(axis=1) for whole in sums))
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < resamples / 2:
        return Interval(estimate, float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def _terms(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The terms of alpha by unit: differing ratings `[units]`, ratings `[units]`, and ratings by category `[units, C]`.

    The first is sum_c n_c (m - n_c) / (m - 1) for a unit of m ratings, n_c of them of category c.
    """
    raters = counts.sum(axis=1)
    return (counts * (raters[:, None] - counts)).sum(axis=1) / (raters - 1), raters, counts


def _alpha(differ: NDArray[np.float64], total: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - D_o / D_e of summed terms `[...]`, `[...]`, `[..., C]`; NaN where all ratings are equal."""
    pairs = (shares * (total[..., None] - shares)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, 1 - differ * (total - 1) / pairs, np.nan)


def midranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks `[objects]` from 1 for the smallest; equal values share the mean of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    less = (array[None, :] < array[:, None]).sum(axis=1)
    equal = (array[None, :] == array[:, None]).sum(axis=1)
    return np.asarray(less + (equal + 1) / 2, dtype=np.float64)


def kendall_w(ranks: ArrayLike) -> float:
    """Kendall's coefficient of concordance W (1939), corrected for ties: 1 if all raters give the same order.

    W = 12 S / (m^2 (n^3 - n) - m T) for m raters and n objects, where S is the sum of squared deviations of the
    objects' rank sums, and T sums t^3 - t over all sets of t objects that a rater ranked equal. m raters who
    rank at random have W = 1 / m on average, not 0.

    Args:
        ranks: `[raters, objects]`, or any values that order the objects; at least two of each.

    Returns:
        NaN where every rater ranks all objects equal.

    Raises:
        InputError: another shape, or NaN.
    """
    table = np.asarray(ranks, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise InputError(f"ranks of shape {table.shape}: give finite [raters, objects], at least two of each")
    raters, objects = table.shape
    ordered = np.stack([midranks(row) for row in table])
    sums = ordered.sum(axis=0)
    spread = ((sums - sums.mean()) ** 2).sum()
    tied = sum(float((count**3 - count).sum()) for count in (np.unique(row, return_counts=True)[1] for row in ordered))
    most = raters**2 * (objects**3 - objects) - raters * tied
    return float(12 * spread / most) if most > 0 else float("nan")


def _share(ratings: Sequence[Hashable], category: Hashable) -> float:
    return sum(each == category for each in ratings) / len(ratings)


def _counts(ratings: Sequence[Sequence[Hashable | None]]) -> NDArray[np.float64]:
    """Ratings by category `[units, categories]`, for the units with two or more ratings."""
    kept = [[each for each in unit if each is not None] for unit in ratings]
    kept = [unit for unit in kept if len(unit) > 1]
    places = {each: place for place, each in enumerate(dict.fromkeys(each for unit in kept for each in unit))}
    counts = np.zeros((len(kept), len(places)))
    for row, unit in enumerate(kept):
        for each in unit:
            counts[row, places[each]] += 1
    return counts
