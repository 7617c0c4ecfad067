"""The power of a study's own test, simulated from a pilot or from assumptions.

Differences between an arm and the baseline on one measure are modelled as d[p, s] = difference + b[p] + w[p, s] for
problem p and seed s. The variances are estimated from a pilot `[P, S]` by the analysis of variance: var_w = mean over
problems of the variance over seeds, var_b = var(problem means) - var_w / S, at least 0. A simulated study draws b and w
from the pilot's deviations, scaled to these variances, which keeps the shape of their distributions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.measures import MEASURES, Values, table
from esamp.analysis.plan_options import PlanOptions
from esamp.errors import OptionError
from esamp.metrics.intervals import holm, paired_permutation

SEED = 0
FLIPS = 1999
"""Random sign flips of a simulated test that is not exact."""
FEWEST = 6
"""Fewest problems of a pilot from which a spread is estimated."""
ASSUMED = ("pass@1", "solved")
"""Measures that can be planned without a pilot."""


@dataclass(frozen=True)
class Spread:
    """The deviations of differences from their mean, between problems and between the seeds of a problem."""

    between: Values
    """deviations of problems `[P]`, of variance var_b"""
    within: Values
    """deviations of seeds within their problem `[P * S]`, of variance var_w; empty for a pilot of one seed"""
    source: str
    """the origin of the deviations, for readers"""

    def variance(self, seeds: int) -> float:
        """The variance of a problem's mean difference over `seeds` seeds: var_b + var_w / seeds."""
        return float(self.between.var()) + (float(self.within.var()) / seeds if self.within.size else 0.0)


def pilot_spread(differences: Sequence[Values], source: str) -> Spread:
    """The spread of the differences `[P, S]` of the arm whose problem means vary most."""
    widest = max(differences, key=lambda own: float(own.mean(axis=1).var()))
    problems, seeds = widest.shape
    means = widest.mean(axis=1)
    centred = means - means.mean()
    total = float(means.var(ddof=1))
    if seeds == 1:
        return Spread(centred * math.sqrt(problems / (problems - 1)), np.empty(0), source)
    rest = (widest - means[:, None]) * math.sqrt(seeds / (seeds - 1))
    var_between = max(0.0, total - float((rest**2).mean()) / seeds)
    scale = math.sqrt(var_between / float(centred.var())) if total > 0 else 0.0
    return Spread(centred * scale, rest.ravel(), source)


def block_spread(block: Block, baseline: str, name: str) -> Spread:
    """The spread of a pilot's differences from the baseline.

    Raises:
        OptionError: the measure was not computed for all problems.
    """
    measure = next(measure for measure in MEASURES if measure.name == name)
    base = table(block.arms[baseline], block.items, measure)
    arms = [table(own, block.items, measure) - base for arm, own in block.arms.items() if arm != baseline]
    if not all(np.isfinite(own).all() for own in arms):
        raise OptionError(
            f"{name} is not known for every group of {block.title}: let esamp study report measure it, or plan with "
            "another measure"
        )
    count = len(block.items)
    return pilot_spread(arms, f"pilot of {count} problems and {base.shape[1]} seed{'s' * (base.shape[1] > 1)}")


def assumed_spread(options: PlanOptions, n: int) -> Spread:
    """The spread for groups of n, assuming Beta-distributed difficulty and independent samples of a problem.

    Raises:
        OptionError: the measure needs a pilot.
    """
    if options.measure not in ASSUMED:
        raise OptionError(f"{options.measure} cannot be planned without a pilot: run a few problems of the study first")
    rng = np.random.default_rng(SEED)
    a = options.difficulty * options.concentration
    chance = rng.beta(a, options.concentration - a, size=(20_000, 1))
    other = np.clip(chance + options.effect_spread * rng.normal(size=chance.shape), 0, 1)

    def draw(p: Values) -> Values:
        right = rng.binomial(n, np.broadcast_to(p, (len(p), 2)))
        return right / n if options.measure == "pass@1" else (right > 0).astype(np.float64)

    words = f"no pilot: assumed a chance of Beta(mean {options.difficulty:g}, a + b = {options.concentration:g})"
    return pilot_spread([draw(other) - draw(chance)], f"{words} and effects that spread by {options.effect_spread:g}")


def p_values(differences: Values, rng: np.random.Generator) -> Values:
    """`paired_permutation` for many simulated studies `[studies, problems]`, with the same flips for all."""
    studies, problems = differences.shape
    if int((differences != 0).sum(axis=1).max(initial=0)) <= 10:
        zeros = np.zeros(problems)
        return np.array([paired_permutation(study, zeros, rng) for study in differences])
    extreme = np.zeros(studies)
    tolerance = 1e-12 * problems * float(np.abs(differences).max())
    least = np.abs(differences.sum(axis=1)) - tolerance
    step = max(1, 8_000_000 // (problems + studies))
    for start in range(0, FLIPS, step):
        count = min(step, FLIPS - start)
        signs = (1 - 2 * rng.integers(2, size=(count, problems), dtype=np.int8)).astype(np.float64)
        extreme += (np.abs(differences @ signs.T) >= least[:, None]).sum(axis=1)
    return (extreme + 1) / (FLIPS + 1)


def simulate(
    spread: Spread, difference: float, problems: int, seeds: int, studies: int, rng: np.random.Generator
) -> Values:
    """The mean differences of the problems of simulated studies, `[studies, problems]`."""
    drawn = difference + rng.choice(spread.between, size=(studies, problems))
    if spread.within.size:
        for _ in range(seeds):
            drawn += rng.choice(spread.within, size=(studies, problems)) / seeds
    return drawn


def power(
    spread: Spread, difference: float, problems: int, seeds: int, comparisons: int, options: PlanOptions
) -> float:
    """The share of simulated studies in which the difference is significant after Holm's correction.

    The other arms are assumed to equal the baseline, so their p-values are uniform.
    """
    rng = np.random.default_rng(SEED)
    significant = 0
    chunk = max(1, min(options.simulations, 20_000_000 // problems))
    for start in range(0, options.simulations, chunk):
        count = min(chunk, options.simulations - start)
        own = p_values(simulate(spread, difference, problems, seeds, count, rng), rng)
        others = rng.random((count, comparisons - 1))
        significant += sum(float(holm([p, *rest])[0]) <= options.alpha for p, rest in zip(own, others, strict=True))
    return significant / options.simulations
