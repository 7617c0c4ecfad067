"""Coverage, error rates and power of the statistics, on simulated studies with known truth.

The bounds allow two standard errors of the simulation. Generators are fixed, so the tests are repeatable.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from esamp.analysis.plan_options import PlanOptions
from esamp.analysis.power import Spread, p_values, pilot_spread, power
from esamp.metrics.intervals import bootstrap_mean, holm, paired_permutation
from esamp.metrics.pass_at_k import mean_pass_at_k

Values = NDArray[np.float64]
STUDIES = 1200
ERROR = 2 * (0.95 * 0.05 / STUDIES) ** 0.5


def normal(rng: np.random.Generator, problems: int) -> Values:
    return rng.normal(size=problems)


def exponential(rng: np.random.Generator, problems: int) -> Values:
    return rng.exponential(size=problems) - 1


def share(rng: np.random.Generator, problems: int) -> Values:
    """pass@1 of groups of 16 on problems most of which are never solved."""
    return rng.binomial(16, rng.beta(0.3, 1.5, size=problems)) / 16 - 0.3 / 1.8


def solved(rng: np.random.Generator, problems: int) -> Values:
    return (rng.random(problems) < 0.3) - 0.3


def seeds_only(rng: np.random.Generator, problems: int) -> Values:
    """Values that vary between seeds only."""
    return rng.normal(size=(problems, 4))


def both(rng: np.random.Generator, problems: int) -> Values:
    return rng.normal(size=(problems, 1)) + rng.normal(size=(problems, 3))


def difference(rng: np.random.Generator, problems: int) -> Values:
    """Paired differences of solved: mostly zero. The true mean is 0.05."""
    chance = rng.beta(0.5, 0.5, size=(problems, 2, 1))
    chance[:, 1] = chance[:, 0] + 0.1 * (1 - chance[:, 0])
    right = rng.random((problems, 2, 2)) < chance
    return right[:, 1].astype(float) - right[:, 0] - 0.05


def coverage(draw: Callable[[np.random.Generator, int], Values], problems: int) -> float:
    """The share of 95 % intervals that contain the true value, 0."""
    rng = np.random.default_rng(0)
    found = [bootstrap_mean(draw(rng, problems), rng, resamples=999) for _ in range(STUDIES)]
    return float(np.mean([each.low <= 1e-9 and each.high >= -1e-9 for each in found]))


@pytest.mark.parametrize(
    ("draw", "problems"),
    [
        (normal, 8),
        (normal, 30),
        (normal, 200),
        (exponential, 30),
        (exponential, 120),
        (share, 15),
        (share, 30),
        (share, 200),
        (seeds_only, 30),
        (both, 20),
        (difference, 60),
        (difference, 200),
    ],
    ids=lambda value: value if isinstance(value, int) else value.__name__,
)
def test_intervals_have_their_nominal_coverage(
    draw: Callable[[np.random.Generator, int], Values], problems: int
) -> None:
    assert 0.93 - ERROR <= coverage(draw, problems) <= 0.97 + ERROR


@pytest.mark.parametrize("problems", [15, 30, 100])
def test_intervals_of_solved_shares_cover_at_least_their_level(problems: int) -> None:
    # A share of 30 problems has 31 possible values, so coverage moves in steps.
    assert 0.94 - ERROR <= coverage(solved, problems) <= 0.995


def test_intervals_undercover_when_almost_nothing_is_solved() -> None:
    # Eight problems, each solved with probability 0.1: in 43 % of the studies none is, and the interval is a point.
    def rarely(rng: np.random.Generator, problems: int) -> Values:
        return (rng.random(problems) < 0.1) - 0.1

    assert coverage(rarely, 8) < 0.7


def null(rng: np.random.Generator, problems: int, seeds: int) -> tuple[Values, Values]:
    """Two equal arms: for each problem, samples are right with the same probability."""
    chance = rng.beta(0.5, 1.0, size=(problems, 1))
    first, second = rng.binomial(4, np.broadcast_to(chance, (2, problems, seeds))) / 4
    return first, second


@pytest.mark.parametrize(("problems", "seeds"), [(8, 1), (14, 3), (40, 1), (40, 3)], ids=str)
def test_the_permutation_test_keeps_its_level(problems: int, seeds: int) -> None:
    rng = np.random.default_rng(1)
    count = 600
    found = np.array(
        [
            paired_permutation(*null(rng, problems, seeds), rng, resamples=499 if problems > 16 else 1)
            for _ in range(count)
        ]
    )
    for alpha in (0.05, 0.2):
        assert np.mean(found <= alpha) <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / count)
    assert np.mean(found <= 0.2) >= 0.05  # the test does reject sometimes


def test_holm_keeps_the_familywise_error_rate() -> None:
    # Four arms like the baseline, all compared with the same baseline samples.
    rng = np.random.default_rng(2)
    any_plain, any_holm, count = 0, 0, 600
    for _ in range(count):
        chance = rng.beta(0.5, 1.0, size=(30, 1))
        base, *arms = rng.binomial(4, np.broadcast_to(chance, (5, 30, 2))) / 4
        found = [paired_permutation(own, base, rng, resamples=299) for own in arms]
        any_plain += min(found) <= 0.05
        any_holm += bool((holm(found) <= 0.05).any())
    error = 2 * np.sqrt(0.05 * 0.95 / count)
    assert any_holm / count <= 0.05 + error
    assert any_plain / count > 0.05 + error  # without the correction the rate would be too high


def test_batched_permutation_tests_equal_single_tests() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.3, 1, size=(20, 40))
    values[:, :10] = 0
    single = [paired_permutation(own, np.zeros(40), rng, resamples=4000) for own in values]
    np.testing.assert_allclose(p_values(values, rng), single, atol=0.04)
    few = values[:, :16]  # six are not zero, so the test is exact
    np.testing.assert_array_equal(p_values(few, rng), [paired_permutation(own, np.zeros(16), rng) for own in few])


def test_variance_components_are_recovered() -> None:
    rng = np.random.default_rng(4)
    pilot = rng.normal(0, 0.3, size=(3000, 1)) + rng.normal(0, 0.5, size=(3000, 2))
    found = pilot_spread([pilot], "")
    assert found.between.std() == pytest.approx(0.3, rel=0.06)
    assert found.within.std() == pytest.approx(0.5, rel=0.03)
    assert found.variance(5) == pytest.approx(0.09 + 0.25 / 5, rel=0.08)
    alike = pilot_spread([rng.normal(size=(3000, 2))], "")
    assert alike.between.std() < 0.25


@pytest.mark.parametrize(("problems", "seeds"), [(12, 2), (40, 1), (40, 3)], ids=str)
def test_estimated_power_matches_simulated_power(problems: int, seeds: int) -> None:
    """The estimate uses a large pilot without a difference; the check simulates studies from the true distribution."""
    shift = 0.45 if problems < 20 else 0.25
    rng = np.random.default_rng(5)

    def study(size: int, count: int, by: float) -> Values:
        return by + rng.uniform(-0.5, 0.5, size=(size, 1)) + rng.exponential(0.4, size=(size, count)) - 0.4

    promised = power(pilot_spread([study(4000, 3, 0.0)], ""), shift, problems, seeds, 2, PlanOptions(simulations=1000))
    seen, count = 0, 500
    for _ in range(count):
        arms = (study(problems, seeds, shift), study(problems, seeds, 0.0))
        found = [paired_permutation(own, np.zeros_like(own), rng, resamples=599) for own in arms]
        seen += holm(found)[0] <= 0.05
    assert 0.3 < promised < 0.99
    assert seen / count == pytest.approx(promised, abs=0.06)


def test_power_without_a_difference_is_at_most_the_level() -> None:
    values = np.random.default_rng(6).normal(size=50)
    spread = Spread(values - values.mean(), np.empty(0), "")
    assert power(spread, 0.0, 40, 1, 1, PlanOptions(simulations=2000)) == pytest.approx(0.05, abs=0.012)
    assert power(spread, 0.0, 40, 1, 5, PlanOptions(simulations=2000)) <= 0.025


def test_the_subset_estimator_holds_only_for_independent_samples() -> None:
    """Why a study reports `pass@k (group of k)` beside `pass@k (subset of n)`.

    There are three ways, of which the second is right. Independent samples take one at random. Coupled samples avoid
    what their group has taken and go from the first way to the third: a group of 2 always has the second, whereas a
    pair out of a group of 3 has it in 2 of 3 cases.
    """
    rng = np.random.default_rng(7)
    groups = 20_000
    correct = (rng.integers(3, size=(groups, 6)) == 1).sum(axis=1)
    pairs = (rng.integers(3, size=(groups, 2)) == 1).any(axis=1)
    assert mean_pass_at_k(np.full(groups, 6), correct, 2) == pytest.approx(pairs.mean(), abs=0.015)
    assert mean_pass_at_k(np.full(groups, 6), correct, 2) == pytest.approx(1 - (2 / 3) ** 2, abs=0.01)

    ways = np.arange(3)  # a coupled group of three, in the order drawn
    group_of_two = bool((ways[:2] == 1).any())
    subset_of_three = mean_pass_at_k([3], [(ways == 1).sum()], 2)
    assert (float(group_of_two), subset_of_three) == (1.0, pytest.approx(2 / 3))
