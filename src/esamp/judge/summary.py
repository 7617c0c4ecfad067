"""Summary of the verdicts on one block. The unit of every interval and test is the problem."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from esamp.judge.agreement import Agreement, agreements
from esamp.judge.groups import BlockName
from esamp.judge.options import JudgeOptions
from esamp.judge.presentations import Presentation
from esamp.judge.run import Verdict
from esamp.judge.scores import PairResult, complete_rounds, pair_results, shown_first
from esamp.metrics.intervals import Interval, bootstrap_mean, holm, paired_permutation

ALL = "all judges"
SEED = 0
"""Seed of the resampling, so that the same verdicts give the same numbers."""


@dataclass(frozen=True)
class PairSummary:
    """The comparisons of two arms, by one judge or by all."""

    judge: str
    first: str
    second: str
    wins: int
    """comparisons that the first arm won"""
    ties: int
    losses: int
    unread: int
    """comparisons without a readable verdict"""
    problems: int
    rate: Interval
    """win rate of the first arm, ties counting half: mean over problems with a 95 % interval"""
    p: float
    """p-value of a sign-flip permutation test over problems that the rate is 1/2"""
    adjusted: float
    """`p` after Holm's correction over the pairs of this judge"""


@dataclass(frozen=True)
class RankSummary:
    """The mean rank of an arm, by one judge or by all; 1 is the best."""

    judge: str
    arm: str
    interval: Interval


@dataclass(frozen=True)
class PositionBias:
    """How the place of a group influences the verdict."""

    judge: str
    first: Interval
    """share of wins of the group shown first, shared ranks counting in part"""
    expected: float
    """the share without a bias"""
    same: float
    """share of comparisons whose verdict is the same in both orders; NaN when ranked"""
    flipped: float
    """share of comparisons where the same place wins in both orders; NaN when ranked"""


@dataclass(frozen=True)
class JudgeSummary:
    block: BlockName
    judges: tuple[str, ...]
    arms: tuple[str, ...]
    problems: int
    asked: int
    """presentations that the options describe"""
    read: int
    """presentations with a readable verdict"""
    unread: Mapping[str, int]
    """presentations without one, by reason"""
    missing: int
    """presentations not made yet"""
    cut: int
    """presentations in which a text was cut"""
    pairs: tuple[PairSummary, ...]
    ranks: tuple[RankSummary, ...]
    positions: tuple[PositionBias, ...]
    agreements: tuple[Agreement, ...]


def summaries(
    presentations: Sequence[Presentation], verdicts: Sequence[Verdict], options: JudgeOptions
) -> list[JudgeSummary]:
    """A summary for each block: the verdicts so far on all presentations that the options describe."""
    rows = []
    for block in dict.fromkeys(each.groups.block for each in presentations):
        planned = [each for each in presentations if each.groups.block == block]
        own = [verdict for verdict in verdicts if verdict.presentation.groups.block == block]
        rows.append(_summary(block, planned, own, options))
    return rows


def _summary(
    block: BlockName, planned: Sequence[Presentation], verdicts: Sequence[Verdict], options: JudgeOptions
) -> JudgeSummary:
    judges = tuple(dict.fromkeys(options.judge))
    by_judge: dict[str, list[Verdict]] = {
        judge: [each for each in verdicts if each.presentation.judge == judge] for judge in judges
    }
    if len(judges) > 1:
        by_judge[ALL] = list(verdicts)
    arms = tuple(planned[0].groups.texts)
    reasons = [each.reason for each in verdicts if each.ranks is None]
    return JudgeSummary(
        block,
        judges,
        arms,
        problems=len({each.groups.item for each in planned}),
        asked=len(planned),
        read=sum(each.ranks is not None for each in verdicts),
        unread={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        missing=len(planned) - len(verdicts),
        cut=sum(each.cut > 0 for each in verdicts),
        pairs=tuple(
            pair for judge, own in by_judge.items() for pair in _pairs(judge, pair_results(own, options.mode), arms)
        ),
        ranks=tuple(rank for judge, own in by_judge.items() for rank in _ranks(judge, own, arms, options.mode)),
        positions=tuple(_position(judge, own, options.mode) for judge, own in by_judge.items()),
        agreements=tuple(agreements(verdicts, judges, options)),
    )


def _pairs(judge: str, results: Sequence[PairResult], arms: Sequence[str]) -> list[PairSummary]:
    untested = [_pair(judge, first, second, results) for i, first in enumerate(arms) for second in arms[i + 1 :]]
    tested = [pair for pair in untested if pair.problems]
    adjusted = {(pair.first, pair.second): p for pair, p in zip(tested, holm([each.p for each in tested]), strict=True)}
    return [replace(pair, adjusted=float(adjusted.get((pair.first, pair.second), np.nan))) for pair in untested]


def _pair(judge: str, first: str, second: str, results: Sequence[PairResult]) -> PairSummary:
    own = [result for result in results if result.pair[2:] == (first, second)]
    scores = [each.score for each in own if each.score is not None]
    means = _by_problem((each.pair[0], each.score) for each in own if each.score is not None)
    p = paired_permutation(means, 1 - means, _generator()) if len(means) else float("nan")
    wins, ties, losses = (scores.count(value) for value in (1.0, 0.5, 0.0))
    unread = len(own) - len(scores)
    return PairSummary(judge, first, second, wins, ties, losses, unread, len(means), _mean(means), p, float("nan"))


def _ranks(judge: str, verdicts: Sequence[Verdict], arms: Sequence[str], mode: str) -> list[RankSummary]:
    if mode != "ranked":
        return []
    ranked = [(each.presentation.groups.item, each.ranks) for each in verdicts if each.ranks is not None]
    return [
        RankSummary(judge, arm, _mean(_by_problem((item, ranks[index]) for item, ranks in ranked)))
        for index, arm in enumerate(arms)
    ]


def _position(judge: str, verdicts: Sequence[Verdict], mode: str) -> PositionBias:
    """Position bias over complete rounds, in which each group was shown first equally often."""
    rounds = [turns for _, turns in complete_rounds(verdicts) if all(turn.ranks is not None for turn in turns)]
    values = _by_problem((turn.presentation.groups.item, shown_first(turn)) for turns in rounds for turn in turns)
    expected = 1 / len(rounds[0]) if rounds else float("nan")
    same = flipped = float("nan")
    if mode == "pairwise" and rounds:
        both = [(one.ranks, other.ranks) for one, other in rounds]
        same = sum(a == b for a, b in both) / len(both)
        flipped = sum(a != b and (1.5, 1.5) not in (a, b) for a, b in both) / len(both)
    return PositionBias(judge, _mean(values), expected, same, flipped)


def _by_problem(values: Iterable[tuple[str, float]]) -> np.ndarray:
    """The mean of each problem's values, `[problems]`."""
    scores: dict[str, list[float]] = {}
    for item, value in values:
        scores.setdefault(item, []).append(value)
    return np.array([np.mean(own) for own in scores.values()], dtype=np.float64)


def _mean(values: np.ndarray) -> Interval:
    return bootstrap_mean(values, _generator()) if len(values) else Interval(*[float("nan")] * 3)


def _generator() -> np.random.Generator:
    return np.random.default_rng(SEED)
