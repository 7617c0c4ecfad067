"""Agreement of verdicts: of one judge between orders, rounds and rankings, and of several judges."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from esamp.judge.options import JudgeOptions
from esamp.judge.run import Verdict
from esamp.judge.scores import PairResult, complete_rounds, pair_results, score
from esamp.metrics.agreement import alpha_interval, cohen_kappa, fleiss_kappa, kendall_w, observed_agreement
from esamp.metrics.intervals import Interval, bootstrap_mean

Between = Literal["orders", "rounds", "judges", "presentations"]
Ratings: TypeAlias = dict[str, list[list[float | None]]]
"""For each problem, its units; for each unit, the raters' scores of the first arm, None where one is missing."""
NOTHING = Interval(math.nan, math.nan, math.nan)
SEED = 0


@dataclass(frozen=True)
class Agreement:
    """Coefficients of one kind of agreement; NaN where a coefficient does not apply or is undefined."""

    judge: str
    """the judge whose verdicts are compared; empty for agreement between judges"""
    between: Between
    """orders: both orders of a pair; rounds: repetitions; judges; presentations: rankings of the same groups"""
    raters: int
    units: int
    """units with two ratings or more"""
    observed: float
    """share of equal verdicts (win, tie, loss)"""
    kappa: float
    """Cohen's for two raters, Fleiss' for more, over the units that all of them rated"""
    alpha: Interval
    """Krippendorff's, with a 95 % interval over problems"""
    w: Interval
    """Kendall's, for rankings: mean over problems with a 95 % interval"""


def agreements(verdicts: Sequence[Verdict], judges: Sequence[str], options: JudgeOptions) -> Iterable[Agreement]:
    """All kinds of agreement for which the verdicts have at least two raters."""
    if options.mode == "ranked":
        yield from _of_rankings(verdicts, judges)
        return
    results = pair_results(verdicts, options.mode)
    for judge in judges:
        yield _nominal(judge, "orders", _orders([each for each in verdicts if each.presentation.judge == judge]))
        if options.rounds > 1:
            own = [result for result in results if result.judge == judge]
            yield _nominal(judge, "rounds", _ratings(own, lambda result: result.pair, lambda result: result.round))
    if len(judges) > 1:
        yield _nominal(
            "", "judges", _ratings(results, lambda result: (result.pair, result.round), lambda result: result.judge)
        )


def _orders(verdicts: Sequence[Verdict]) -> Ratings:
    """Scores when the first arm was shown first, and when it was shown second."""
    ratings: Ratings = {}
    for (_, problem, *_), turns in complete_rounds(verdicts):
        ordered = sorted(turns, key=lambda turn: turn.presentation.order[0] != turn.presentation.arms[0])
        scores = [None if turn.ranks is None else score(*turn.ranks) for turn in ordered]
        ratings.setdefault(problem, []).append(scores)
    return ratings


def _ratings(
    results: Iterable[PairResult], unit: Callable[[PairResult], object], rater: Callable[[PairResult], object]
) -> Ratings:
    """Ratings with the given units and raters."""
    by_unit: dict[object, dict[object, float | None]] = {}
    problems: dict[object, str] = {}
    raters: dict[object, None] = {}
    for result in results:
        by_unit.setdefault(unit(result), {})[rater(result)] = result.score
        problems[unit(result)] = result.pair[0]
        raters[rater(result)] = None
    ratings: Ratings = {}
    for name, own in by_unit.items():
        ratings.setdefault(problems[name], []).append([own.get(each) for each in raters])
    return ratings


def _nominal(judge: str, between: Between, ratings: Ratings) -> Agreement:
    units = [unit for own in ratings.values() for unit in own]
    raters = max(map(len, units), default=0)
    rated = [[rating for rating in unit if rating is not None] for unit in units]
    complete = [unit for unit in rated if len(unit) == raters]
    kappa = math.nan
    if complete and raters == 2:
        kappa = cohen_kappa([unit[0] for unit in complete], [unit[1] for unit in complete])
    elif complete and raters > 2:
        kappa = fleiss_kappa([[unit.count(value) for value in (1.0, 0.5, 0.0)] for unit in complete])
    alpha = alpha_interval(list(ratings.values()), np.random.default_rng(SEED))
    pairable = sum(len(unit) > 1 for unit in rated)
    return Agreement(judge, between, raters, pairable, observed_agreement(units), kappa, alpha, NOTHING)


def _of_rankings(verdicts: Sequence[Verdict], judges: Sequence[str]) -> Iterable[Agreement]:
    """W of each judge's rankings of the same groups, and of the mean ranks of several judges."""
    rankings: dict[tuple[str, int], dict[str, list[tuple[float, ...]]]] = {}
    for verdict in verdicts:
        if verdict.ranks is not None:
            groups, judge = verdict.presentation.groups, verdict.presentation.judge
            rankings.setdefault((groups.item, groups.seed), {}).setdefault(judge, []).append(verdict.ranks)
    for judge in judges:
        yield _concordance(judge, "presentations", {key: np.array(own.get(judge, [])) for key, own in rankings.items()})
    if len(judges) > 1:
        means = {key: np.array([np.mean(each, axis=0) for each in own.values()]) for key, own in rankings.items()}
        yield _concordance("", "judges", means)


def _concordance(judge: str, between: Between, tables: Mapping[tuple[str, int], NDArray[np.float64]]) -> Agreement:
    kept = {key: table for key, table in tables.items() if len(table) > 1}
    values: dict[str, list[float]] = {}
    for (problem, _), table in kept.items():
        if not math.isnan(value := kendall_w(table)):
            values.setdefault(problem, []).append(value)
    means = [float(np.mean(own)) for own in values.values()]
    w = bootstrap_mean(means, np.random.default_rng(SEED)) if means else NOTHING
    raters = max(map(len, kept.values()), default=0)
    return Agreement(judge, between, raters, len(kept), math.nan, math.nan, NOTHING, w)
