from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from esamp.errors import InputError
from esamp.metrics.intervals import EXACT_UP_TO, bootstrap_mean, holm, paired_permutation, t_quantile


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_bootstrap_matches_the_normal_interval_of_a_large_sample() -> None:
    values = rng(1).normal(2.0, 1.0, size=400)
    interval = bootstrap_mean(values, rng())
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_bounds_match_enumeration_for_two_problems() -> None:
    # The means of two draws from 0 and 1 are 0, 0.5, 0.5 and 1, equally likely: quartiles are where the bounds jump.
    # With one degree of freedom t is tan(pi (level / 2)); expanded by sqrt(2), 0.2 gives Phi(0.46) = 0.68 and 0.5
    # gives Phi(1.41) = 0.92.
    interval = bootstrap_mean([0.0, 1.0], rng(), level=0.2)
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.5, 0.5)
    interval = bootstrap_mean([0.0, 1.0], rng(), level=0.5)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_t_quantiles_match_published_tables() -> None:
    for level, freedom, expected in (
        (0.975, 1, 12.7062),
        (0.975, 9, 2.26216),
        (0.95, 29, 1.69913),
        (0.025, 4, -2.77645),
    ):
        assert t_quantile(level, freedom) == pytest.approx(expected, rel=1e-4)
    assert t_quantile(0.975, 1000) == pytest.approx(t_quantile(0.975, 1001), rel=2e-3)


def test_a_long_tail_moves_the_interval_towards_it() -> None:
    values = rng(6).exponential(size=30)
    interval = bootstrap_mean(values, rng())
    assert interval.high - interval.estimate > 1.44 * (interval.estimate - interval.low)
    mirrored = bootstrap_mean(-values, rng())
    assert mirrored.low == pytest.approx(-interval.high, rel=0.03)


def test_seeds_are_drawn_with_their_problem() -> None:
    # Only the problems' means matter, not the number of seeds over which they are averaged.
    values = rng(7).normal(size=(20, 4))
    assert bootstrap_mean(values, rng()) == bootstrap_mean(values.mean(axis=1), rng())


def test_bootstrap_is_reproducible_and_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = rng(3).normal(size=30)
    first = bootstrap_mean(values, rng(), resamples=500)
    assert bootstrap_mean(values, rng(), resamples=500) == first
    monkeypatch.setattr("esamp.metrics.intervals._CHUNK", 100)
    assert bootstrap_mean(values, rng(), resamples=500) == first


def test_one_problem_gives_no_interval() -> None:
    interval = bootstrap_mean([[0.2, 0.4]], rng())
    assert interval.estimate == pytest.approx(0.3)
    assert np.isnan([interval.low, interval.high]).all()


def test_permutation_matches_hand_computed_values() -> None:
    # Differences 1, 1, 1: 2 of the 8 sign patterns are as extreme. Zero differences have no effect.
    assert paired_permutation([1, 2, 3], [0, 1, 2], rng()) == 0.25
    assert paired_permutation([1, 2, 3, 7, 7], [0, 1, 2, 7, 7], rng()) == 0.25
    assert paired_permutation([1, 2], [1, 2], rng()) == 1
    assert paired_permutation([1, 0], [0, 1], rng()) == 1
    assert paired_permutation([[1, 3], [2, 2]], [[0, 2], [1, 1]], rng()) == 0.5


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_permutation_is_exact_for_few_problems(differences: list[int]) -> None:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = np.mean([value >= abs(sum(differences)) for value in sums])
    a = np.array(differences) / 10 + 0.3
    assert paired_permutation(a, np.full(len(a), 0.3), rng()) == pytest.approx(expected)


def test_random_permutation_agrees_with_the_exact_test(monkeypatch: pytest.MonkeyPatch) -> None:
    a = rng(4).normal(0.4, 1.0, size=14)
    exact = paired_permutation(a, np.zeros(14), rng())
    monkeypatch.setattr("esamp.metrics.intervals.EXACT_UP_TO", 0)
    assert paired_permutation(a, np.zeros(14), rng(), resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_permutation_keeps_its_level_and_is_never_zero() -> None:
    draw = rng(5)
    size = EXACT_UP_TO + 10
    values = [
        paired_permutation(draw.normal(size=size), draw.normal(size=size), draw, resamples=199) for _ in range(400)
    ]
    assert np.mean(np.array(values) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert paired_permutation(np.ones(40), np.zeros(40), rng(), resamples=99) == pytest.approx(1 / 100)


def test_holm_matches_hand_computed_values() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04, made monotone
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(values: list[float], alpha: float) -> None:
    rejected = np.zeros(len(values), dtype=bool)
    for step, index in enumerate(np.argsort(values, kind="stable")):
        if values[index] * (len(values) - step) > alpha:
            break
        rejected[index] = True
    np.testing.assert_array_equal(holm(values) <= alpha, rejected)


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2)), [], [np.nan, 1.0], [np.inf]])
def test_invalid_tables_are_refused(bad: NDArray[np.float64]) -> None:
    with pytest.raises(InputError):
        bootstrap_mean(bad, rng())
    with pytest.raises(InputError):
        paired_permutation(bad, bad, rng())


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(InputError):
        bootstrap_mean([1.0, 2.0], rng(), level=95)
    with pytest.raises(InputError):
        bootstrap_mean([1.0, 2.0], rng(), resamples=0)
    with pytest.raises(InputError):
        paired_permutation([1.0], [1.0, 2.0], rng())
    with pytest.raises(InputError):
        paired_permutation([1.0], [2.0], rng(), resamples=0)
    with pytest.raises(InputError):
        holm([0.5, np.nan])
