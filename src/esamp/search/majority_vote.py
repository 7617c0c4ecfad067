"""Majority vote, also called self-consistency."""

from typing_extensions import override

from esamp.engines.base import Completion, Engine, Progress, Request
from esamp.search.answers import key
from esamp.search.options import MajorityVoteOptions
from esamp.search.selection import Drawn, Selection, draw
from esamp.search.votes import AnswerVotes, best, tally


class MajorityVote(Selection):
    """The most frequent answer: ``argmax_a sum_i [answer(y_i) = a]``.

    `esamp.search.answers.canonical` decides which answers are equal. A sample without an answer abstains. Of answers
    with equally many votes the one with the larger sum of scores wins; without a scorer, or at equal sums, the one that
    was drawn first. The sample shown is the one with the highest score among those with the winning answer, or the
    first drawn without a scorer. If all samples abstain, it is chosen among all samples in the same way.
    """

    name = "majority_vote"
    summary = "the most frequent answer of n samples (self-consistency)"
    citation = (
        "Wang, Wei, Schuurmans, Le, Chi, Narang, Chowdhery, Zhou, Self-Consistency Improves Chain of Thought Reasoning "
        "in Language Models, arXiv 2203.11171, 2022"
    )
    options = MajorityVoteOptions

    @classmethod
    @override
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        options = request.own_options
        assert isinstance(options, MajorityVoteOptions)
        drawn = draw(engine, request, progress=progress)
        keys = [key(text, options.answer) for text in drawn.texts]
        return elected(drawn, request, keys, tally(keys, drawn.scores))


def elected(
    drawn: Drawn, request: Request, keys: list[str | None], candidates: list[AnswerVotes], **details: object
) -> Completion:
    """The completion that a vote leads to: the first candidate's sample, or the best sample if all abstained."""
    winner = candidates[0].members[0] if candidates else best(drawn.scores, range(len(keys)))
    votes = [{"answer": each.key, "votes": each.votes, "weight": each.weight} for each in candidates]
    abstained = sum(each is None for each in keys)
    return drawn.choose(request, winner, keys=keys, votes=votes, abstained=abstained, **details)
