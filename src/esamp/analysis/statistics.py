"""Estimates with intervals, and differences from the baseline with paired tests and Holm's correction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.measures import Measure, Values, measures, subset_pass, table
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation
from esamp.study.claim import TESTED_MEASURES

SEED = 0
NOT_MEASURED = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Estimate:
    """One measure of one arm."""

    arm: str
    measure: str
    interval: Interval
    """95 %, bootstrap over problems, each with its seeds"""


@dataclass(frozen=True)
class PairedTest:
    """The mean of paired differences and its test, as one of a family."""

    interval: Interval
    """95 %, bootstrap over problems"""
    p: float
    """paired permutation test over problems"""
    adjusted: float
    """p after Holm's correction over the family"""


@dataclass(frozen=True)
class Difference:
    """One arm against the baseline on one measure."""

    arm: str
    measure: str
    interval: Interval
    """of arm minus baseline, paired by problem and seed"""
    p: float
    """paired permutation test over problems"""
    adjusted: float
    """Holm's correction over the arms compared on this measure"""


def generator() -> np.random.Generator:
    """A new generator with a fixed seed, so that the same records always give the same report."""
    return np.random.default_rng(SEED)


def paired_tests(
    pairs: Sequence[tuple[Values, Values]], rng: Callable[[], np.random.Generator] = generator
) -> list[PairedTest]:
    """Test the differences ``a - b`` of each pair; all pairs are one family for Holm's correction.

    Args:
        pairs: a and b, each `[problems]` or `[problems, seeds]`, paired by problem and seed.
        rng: called for the generator of each permutation test, then of each bootstrap; by default a new one each time.
    """
    p_values = [paired_permutation(a, b, rng()) for a, b in pairs]
    return [
        PairedTest(bootstrap_mean(a - b, rng()), p, float(adjusted))
        for (a, b), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def estimates(block: Block) -> list[Estimate]:
    """Every measure of every arm, and for graded tasks ``pass@k (subset of n)`` for k = 2, 4, ... below n."""
    return block.cached("estimates", lambda: _estimates(block))


def _estimates(block: Block) -> list[Estimate]:
    rows = []
    for arm, groups in block.arms.items():
        values = {measure.name: table(groups, block.items, measure) for measure in measures(graded=block.graded)}
        subsets = _powers_of_two_below(block.n) if block.graded else []
        values |= {f"pass@{k} (subset of {block.n})": subset_pass(groups, block.items, k) for k in subsets}
        rows += [Estimate(arm, name, _mean(own)) for name, own in values.items()]
    return rows


def differences(block: Block, baseline: str) -> list[Difference]:
    """Every other arm against the baseline, on the measures that methods are compared on."""
    return block.cached(("differences", baseline), lambda: _differences(block, baseline))


def _differences(block: Block, baseline: str) -> list[Difference]:
    rows: list[Difference] = []
    for measure in measures(graded=block.graded):
        if measure.name in TESTED_MEASURES:
            rows += _family(block, baseline, measure)
    return rows


def _family(block: Block, baseline: str, measure: Measure) -> list[Difference]:
    base = table(block.arms[baseline], block.items, measure)
    others: Mapping[str, Values] = {
        arm: table(groups, block.items, measure) for arm, groups in block.arms.items() if arm != baseline
    }
    measured = {arm: own for arm, own in others.items() if np.isfinite(own).all() and np.isfinite(base).all()}
    tests = paired_tests([(own, base) for own in measured.values()])
    return [
        Difference(arm, measure.name, test.interval, test.p, test.adjusted)
        for arm, test in zip(measured, tests, strict=True)
    ]


def _mean(values: Values) -> Interval:
    return bootstrap_mean(values, generator()) if np.isfinite(values).all() else NOT_MEASURED


def _powers_of_two_below(n: int) -> list[int]:
    """2, 4, 8, ... below n."""
    return [2**power for power in range(n.bit_length()) if 1 < 2**power < n]
