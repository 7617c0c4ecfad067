"""`tally`: count the votes for answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerVotes:
    """One answer and the samples that gave it."""

    key: str
    votes: int
    weight: float
    score: float
    """sum of the samples' scores; samples without a score add nothing"""
    members: tuple[int, ...]
    """the samples with this answer: the one to show first, then the others in the order in which they were drawn"""


def tally(
    keys: Sequence[str | None], scores: Sequence[float | None], weights: Sequence[float] | None = None
) -> list[AnswerVotes]:
    """The candidates, best first: ``weight(a) = sum_i w_i [key_i = a]``.

    Candidates are ordered by weight, then by the sum of scores, then by the first sample drawn. Sums are rounded only
    once (``math.fsum``), so that they do not depend on the order of the samples.

    Args:
        keys: each sample's answer, the same text for equal answers; None abstains.
        scores: each sample's score; None if it has none.
        weights: each sample's weight; one by default.
    """
    votes: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        if key is not None:
            votes.setdefault(key, []).append(place)
    candidates = []
    for key, members in votes.items():
        weight = float(len(members)) if weights is None else math.fsum(weights[place] for place in members)
        known = [score for place in members if (score := scores[place]) is not None]
        shown = best(scores, members)
        rest = tuple(place for place in members if place != shown)
        candidates.append(AnswerVotes(key, len(members), weight, math.fsum(known), (shown, *rest)))
    return sorted(candidates, key=lambda each: (-each.weight, -each.score, min(each.members)))


def best(scores: Sequence[float | None], among: Sequence[int]) -> int:
    """The sample with the highest score; the first drawn of equals, and the first of all if none has a score."""
    return max(among, key=lambda place: (-math.inf if scores[place] is None else scores[place], -place))
