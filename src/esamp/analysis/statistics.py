"""Estimates with intervals, and every arm against the baseline: paired, tested, corrected."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.measures import Measure, Values, measures, subset_pass, table
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation
from esamp.study.claim import TESTED

SEED = 0
NOTHING = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Estimate:
    """One measure of one arm."""

    arm: str
    measure: str
    interval: Interval
    """95 %, bootstrap over problems, each with its seeds"""


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


def estimates(block: Block) -> list[Estimate]:
    """Every measure of every arm, and ``pass@k (subset of n)`` for k = 2, 4, ... below n if samples can be right."""
    return block.once("estimates", lambda: _estimates(block))


def _estimates(block: Block) -> list[Estimate]:
    found = []
    for arm, groups in block.arms.items():
        values = {measure.name: table(groups, block.items, measure) for measure in measures(graded=block.graded)}
        subsets = _powers(block.n) if block.graded else []
        values |= {f"pass@{k} (subset of {block.n})": subset_pass(groups, block.items, k) for k in subsets}
        found += [Estimate(arm, name, _mean(own)) for name, own in values.items()]
    return found


def differences(block: Block, baseline: str) -> list[Difference]:
    """Every other arm against the baseline, on the measures that claims are made of."""
    return block.once(("differences", baseline), lambda: _differences(block, baseline))


def _differences(block: Block, baseline: str) -> list[Difference]:
    found: list[Difference] = []
    for measure in measures(graded=block.graded):
        if measure.name in TESTED:
            found += _family(block, baseline, measure)
    return found


def _family(block: Block, baseline: str, measure: Measure) -> list[Difference]:
    base = table(block.arms[baseline], block.items, measure)
    others: Mapping[str, Values] = {
        arm: table(groups, block.items, measure) for arm, groups in block.arms.items() if arm != baseline
    }
    sound = {arm: own for arm, own in others.items() if np.isfinite(own).all() and np.isfinite(base).all()}
    if not sound:
        return []
    p_values = [paired_permutation(own, base, generator()) for own in sound.values()]
    return [
        Difference(arm, measure.name, bootstrap_mean(own - base, generator()), p, float(adjusted))
        for (arm, own), p, adjusted in zip(sound.items(), p_values, holm(p_values), strict=True)
    ]


def _mean(values: Values) -> Interval:
    return bootstrap_mean(values, generator()) if np.isfinite(values).all() else NOTHING


def _powers(n: int) -> list[int]:
    return [2**power for power in range(n.bit_length()) if 1 < 2**power < n]


def generator() -> np.random.Generator:
    """Of every resampling anew, so that the same records give the same report."""
    return np.random.default_rng(SEED)
