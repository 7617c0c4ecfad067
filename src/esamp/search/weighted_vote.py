"""Weighted vote: every sample's vote is weighted by its score."""

import math
from collections.abc import Sequence

from typing_extensions import override

from esamp.engines.base import Completion, Engine, Progress, Request
from esamp.search.answers import key
from esamp.search.majority_vote import elected
from esamp.search.options import WeightedVoteOptions
from esamp.search.selection import Selection, draw
from esamp.search.votes import tally


class WeightedVote(Selection):
    """The answer with the largest total weight: ``argmax_a sum_i w_i [answer(y_i) = a]``.

    * ``exp``: ``w_i = exp(s_i)``. With the scorer ``logprob`` this is the paper's weighted sum normalised by length,
      ``exp(1/T sum_t log p(y_t | x, y_<t))``; with ``logprob_sum`` it is the unnormalised one.
    * ``score``: ``w_i = max(s_i, 0)``, for scores that are weights already, such as ``self_certainty``.
    * ``rank``: ``w_i = (n - r_i + 1) ** rank_power`` for the sample of rank r_i = 1 .. n by falling score, the Borda
      voting of arXiv 2502.18581; of equal scores the first drawn ranks first.

    The weights are scaled so that the largest is 1, which does not change the vote. A sample without a finite score has
    weight 0 and the last rank. Ties, abstentions and the sample shown are as in `MajorityVote`.
    """

    name = "weighted_vote"
    summary = "the answer of n samples with the largest sum of weighted votes"
    citation = (
        "Wang, Wei, Schuurmans, Le, Chi, Narang, Chowdhery, Zhou, Self-Consistency Improves Chain of Thought Reasoning "
        "in Language Models, arXiv 2203.11171, 2022; Kang, Zhao, Song, Scalable Best-of-N Selection for Large Language "
        "Models via Self-Certainty, arXiv 2502.18581, 2025"
    )
    options = WeightedVoteOptions

    @classmethod
    @override
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        options = request.own_options
        assert isinstance(options, WeightedVoteOptions)
        drawn = draw(engine, request, progress=progress)
        keys = [key(text, options.answer) for text in drawn.texts]
        weights = weigh(drawn.scores, options.weighting, options.rank_power)
        return elected(drawn, request, keys, tally(keys, drawn.scores, weights), weights=weights)


def weigh(scores: Sequence[float | None], weighting: str, power: float = 1.0) -> list[float]:
    """The weights of votes with these scores, as in `WeightedVote`. The largest is 1 unless all are 0."""
    known = [score for score in scores if score is not None]
    if not known:
        return [0.0] * len(scores)
    if weighting == "exp":
        return [0.0 if score is None else math.exp(score - max(known)) for score in scores]
    if weighting == "score":
        top = max(known)
        return [0.0 if score is None or score <= 0 else score / top for score in scores]
    order = sorted(range(len(scores)), key=lambda place: (-math.inf if (s := scores[place]) is None else s, -place))
    weights = [0.0] * len(scores)
    for rank, place in enumerate(order, 1):  # from the last to the first
        weights[place] = 0.0 if scores[place] is None else (rank / len(scores)) ** power
    return weights
