from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import InputError
from esamp.metrics.pass_at_k import group_pass, mean_pass_at_k, pass_at_k


def test_pass_at_k_matches_hand_computed_values() -> None:
    # 4 samples, 1 correct: 1 - C(3,2)/C(4,2) = 1 - 3/6; 5 samples, 2 correct: 1 - C(3,2)/C(5,2) = 1 - 3/10
    np.testing.assert_allclose(pass_at_k([4, 5], [1, 2], 2), [0.5, 0.7])
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)


def test_nan_where_a_problem_has_too_few_samples() -> None:
    np.testing.assert_array_equal(pass_at_k([3, 4, 0], [3, 4, 0], 4), [np.nan, 1.0, np.nan])
    assert np.isnan(mean_pass_at_k([3, 4], [3, 4], 4))
    assert np.isnan(mean_pass_at_k([], [], 4))
    assert mean_pass_at_k([4, 4], [0, 1], 2) == pytest.approx(0.25)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_a_probability_and_increases_with_k(case: tuple[int, int, int]) -> None:
    n, c, k = case
    value = float(pass_at_k(n, c, k))
    assert c / n - 1e-9 <= value <= 1
    assert value >= float(pass_at_k(n, c, max(1, k - 1))) - 1e-12
    assert (value == 0) == (c == 0)


def test_pass_at_k_is_unbiased_for_independent_draws() -> None:
    rng = np.random.default_rng(0)
    correct = rng.binomial(20, 0.2, size=20_000)
    assert np.mean(pass_at_k(20, correct, 5)) == pytest.approx(1 - 0.8**5, abs=0.005)


def test_subset_estimator_is_wrong_for_coupled_groups_and_group_pass_is_right() -> None:
    # Exactly one of 4 samples is right in every group; groups of 2 by the same method may behave differently.
    grades = np.eye(4, dtype=bool)
    assert group_pass(grades) == 1.0
    assert mean_pass_at_k(4, grades.sum(axis=1), 2) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (-1, 0, 1), (3, 1, 0), (3.0, 1, 1)])
def test_impossible_counts_are_refused(n: float, c: int, k: int) -> None:
    with pytest.raises(InputError):
        pass_at_k(n, c, k)


def test_group_pass_is_the_share_of_solved_groups() -> None:
    assert group_pass([[False, True], [False, False], [True, True]]) == pytest.approx(2 / 3)
    assert np.isnan(group_pass(np.zeros((0, 4), dtype=bool)))
    for bad in (np.zeros((2, 0), dtype=bool), np.zeros(3, dtype=bool), np.ones((2, 2))):
        with pytest.raises(InputError):
            group_pass(bad)
