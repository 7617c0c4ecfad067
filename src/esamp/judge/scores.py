"""Verdicts as scores: which of two arms won a comparison, and whether the first place won."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from esamp.judge.run import Verdict

PairKey: TypeAlias = tuple[str, int, str, str]
"""Problem, seed and the two arms of a comparison."""
RoundKey: TypeAlias = tuple[str, str, int, tuple[str, ...], int]
"""Judge, problem, seed, arms and round of the presentations of one round."""


@dataclass(frozen=True)
class PairResult:
    """The result of one comparison of two arms."""

    judge: str
    pair: PairKey
    round: int
    score: float | None
    """score of the first arm: 1 won, 0.5 tied, 0 lost; None if a verdict could not be read"""


def pair_results(verdicts: Sequence[Verdict], mode: str) -> list[PairResult]:
    """A result for each pair of arms and each round (pairwise) or presentation (ranked).

    Pairwise, a group wins only if it wins in both orders. Everything else is a tie, such as two verdicts for the same
    place (arXiv 2306.05685). If one of the two verdicts could not be read, the score is None. In a ranking, the group
    with the better rank wins.
    """
    if mode == "ranked":
        return [result for verdict in verdicts for result in _of_ranking(verdict)]
    results = []
    for (judge, item, seed, arms, number), turns in complete_rounds(verdicts):
        ranks = [turn.ranks for turn in turns]
        scores = {score(pair[0], pair[1]) for pair in ranks if pair is not None}
        value = None if None in ranks else scores.pop() if len(scores) == 1 else 0.5
        results.append(PairResult(judge, (item, seed, arms[0], arms[1]), number, value))
    return results


def complete_rounds(verdicts: Iterable[Verdict]) -> list[tuple[RoundKey, list[Verdict]]]:
    """The verdicts of each round in the order of its presentations; rounds with missing verdicts are left out."""
    rounds: dict[RoundKey, dict[int, Verdict]] = {}
    for verdict in verdicts:
        shown = verdict.presentation
        key = (shown.judge, shown.groups.item, shown.groups.seed, shown.arms, shown.round)
        rounds.setdefault(key, {})[shown.turn] = verdict
    return [
        (key, [turns[turn] for turn in sorted(turns)]) for key, turns in rounds.items() if len(turns) == len(key[3])
    ]


def score(first: float, second: float) -> float:
    """Score of the first of two ranks: 1 if it is better, 0.5 for equal ranks, 0 if it is worse."""
    return 0.5 if first == second else float(first < second)


def shown_first(verdict: Verdict) -> float:
    """1 if the group shown first won, 1 / t if t groups including it share the best rank, else 0."""
    assert verdict.ranks is not None
    ranks = dict(zip(verdict.presentation.arms, verdict.ranks, strict=True))
    best = min(ranks.values())
    tied = sum(rank == best for rank in ranks.values())
    return 1 / tied if ranks[verdict.presentation.order[0]] == best else 0.0


def _of_ranking(verdict: Verdict) -> Iterable[PairResult]:
    shown, ranks = verdict.presentation, verdict.ranks
    for i, first in enumerate(shown.arms):
        for j, second in enumerate(shown.arms[i + 1 :], i + 1):
            value = None if ranks is None else score(ranks[i], ranks[j])
            yield PairResult(shown.judge, (shown.groups.item, shown.groups.seed, first, second), shown.round, value)
