"""Agreement of raters: published examples, direct definitions, and comparison with other libraries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import InputError
from esamp.metrics.agreement import (
    alpha_interval,
    cohen_kappa,
    fleiss_kappa,
    kendall_w,
    krippendorff_alpha,
    midranks,
    observed_agreement,
)

FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
"""A published example of kappa: 14 raters, 10 units, 5 categories; kappa is 0.210."""
CODERS = ["     34121133 3", "1 213343       ", "  21344 21133 4"]
"""A published example of alpha with missing ratings: 3 coders, 15 units; nominal alpha is 0.691."""


def test_cohen_kappa_matches_hand_computed_values() -> None:
    first, second = ["y"] * 25 + ["n"] * 25, ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx((0.7 - 0.5) / 0.5)  # p_e = 0.5 * 0.6 + 0.5 * 0.4
    assert cohen_kappa("ab", "ab") == 1
    assert cohen_kappa("ab", "ba") == -1
    assert cohen_kappa("aa", "bb") == 0
    assert math.isnan(cohen_kappa("aa", "aa"))


def test_coefficients_match_published_examples() -> None:
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    units = [[None if code == " " else code for code in unit] for unit in zip(*CODERS, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.691, abs=5e-4)


def test_observed_agreement_matches_hand_computed_values() -> None:
    assert observed_agreement([["a", "a", "b"], ["a", "a", None], ["a", None, None]]) == pytest.approx((1 / 3 + 1) / 2)
    assert math.isnan(observed_agreement([["a"]]))


def test_kendall_w_matches_hand_computed_values() -> None:
    assert kendall_w([[1, 2, 3], [1, 2, 3]]) == 1
    assert kendall_w([[1, 2, 3], [3, 2, 1]]) == 0
    assert kendall_w([[1, 2, 3], [2, 1, 3]]) == pytest.approx(12 * (1 + 1 + 4) / (4 * 24))  # sums 3, 3, 6
    assert kendall_w([[1, 1, 2], [5, 5, 9]]) == pytest.approx(1)  # equal ties agree
    assert math.isnan(kendall_w([[1, 1], [2, 2]]))
    assert midranks([3, 1, 3, 9]).tolist() == [2.5, 1, 2.5, 4]


ratings = st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=3), min_size=1, max_size=8)
full = st.lists(st.lists(st.sampled_from("abc"), min_size=3, max_size=3), min_size=1, max_size=8)


@given(ratings)
def test_alpha_equals_its_definition_over_all_pairs(units: list[list[str | None]]) -> None:
    kept = [[each for each in unit if each is not None] for unit in units]
    kept = [unit for unit in kept if len(unit) > 1]
    everything = [each for unit in kept for each in unit]
    pairs = list(itertools.permutations(everything, 2))
    expected = sum(a != b for a, b in pairs) / len(pairs) if pairs else 0
    found = krippendorff_alpha(units)
    if not expected:
        assert math.isnan(found)
        return
    observed = sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in kept)
    assert found == pytest.approx(1 - observed / len(everything) / expected)


@given(full)
def test_without_missing_ratings_alpha_follows_from_fleiss_kappa(units: list[list[str]]) -> None:
    kappa = fleiss_kappa([[unit.count(each) for each in "abc"] for unit in units])
    alpha = krippendorff_alpha(units)
    if math.isnan(kappa):
        assert math.isnan(alpha)
    else:
        assert alpha == pytest.approx(kappa + (1 - kappa) / (3 * len(units)))


@given(full)
def test_cohen_kappa_matches_scikit_learn(units: list[list[str]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = [unit[0] for unit in units], [unit[1] for unit in units]
    found = cohen_kappa(first, second)
    if not math.isnan(found):
        assert found == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_the_interval_of_alpha_draws_whole_problems() -> None:
    chance = np.random.default_rng(3)
    problems = [
        [["abc"[k] if k < 3 else None for k in chance.choice(4, size=3, p=[0.5, 0.2, 0.1, 0.2])] for _ in range(4)]
        for _ in range(7)
    ]
    problems[2] = [["a", None, None]]  # no unit has two ratings, so the problem is excluded
    found = alpha_interval(problems, np.random.default_rng(0), resamples=200)
    assert found.estimate == pytest.approx(krippendorff_alpha([unit for problem in problems for unit in problem]))
    rated = [problem for place, problem in enumerate(problems) if place != 2]
    drawn = np.random.default_rng(0).integers(6, size=(200, 6))
    alphas = [krippendorff_alpha([unit for place in row for unit in rated[place]]) for row in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(alphas, [0.025, 0.975])))
    assert found.low < found.estimate < found.high


def test_alpha_interval_is_undefined_for_too_few_problems() -> None:
    rng = np.random.default_rng(0)
    one = alpha_interval([[["a", "b"], ["a", "a"]]], rng)
    assert one.estimate == pytest.approx(0)  # 1 - (2 / 4) / (1 - 6 / 12)
    assert math.isnan(one.low)
    for nothing in ([], [[]], [[["a", "a"]], [["a", "a"]]], [[["a", None]], [["b", None]]]):
        assert math.isnan(alpha_interval(nothing, rng).estimate)
    rare = [[["a", "a"]]] * 2 + [[["b", "b"]]]  # more than a quarter of the draws miss the only b
    assert alpha_interval(rare, rng).estimate == 1


def test_kendall_w_matches_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed in range(20):
        table = np.random.default_rng(seed).integers(1, 5, size=(4, 5))
        expected = stats.friedmanchisquare(*table.T).statistic / (4 * 4)  # chi2 = m (n - 1) W
        assert kendall_w(table) == pytest.approx(expected)
        assert midranks(table[0]).tolist() == stats.rankdata(table[0]).tolist()


def test_invalid_ratings_are_refused() -> None:
    for wrong in ([[1, 1], [2, 1]], [[1, 0]], [[-1, 3]], [[0.5, 1.5]], [], [1, 2]):
        with pytest.raises(InputError):
            fleiss_kappa(wrong)
    with pytest.raises(InputError):
        cohen_kappa("a", "ab")
    with pytest.raises(InputError):
        cohen_kappa("", "")
    for wrong in ([[1, 2]], [[1], [2]], [[1, math.nan], [1, 2]]):
        with pytest.raises(InputError):
            kendall_w(wrong)
    assert math.isnan(krippendorff_alpha([]))
    assert math.isnan(krippendorff_alpha([["a", "a"]]))
