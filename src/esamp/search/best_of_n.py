"""Best of n: the sample with the highest score."""

from typing_extensions import override

from esamp.engines.base import Completion, Engine, Progress, Request
from esamp.search.options import BestOfNOptions
from esamp.search.selection import Selection, draw
from esamp.search.votes import best


class BestOfN(Selection):
    """The sample with the highest score: ``argmax_i s(x, y_i)``.

    Of equal scores the first drawn wins. A sample whose score is not a finite number is chosen only if no sample has a
    finite score; then the first sample wins.
    """

    name = "best_of_n"
    summary = "the sample of n that a scorer or a reward model rates highest"
    citation = "Cobbe et al., Training Verifiers to Solve Math Word Problems, arXiv 2110.14168, 2021"
    options = BestOfNOptions

    @classmethod
    @override
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        drawn = draw(engine, request, progress=progress)
        winner = best(drawn.scores, range(len(drawn.scores)))
        unscored = sum(score is None for score in drawn.scores)
        return drawn.choose(request, winner, unscored=unscored)
