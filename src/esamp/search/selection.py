"""What methods share that draw samples with another method and choose one of them."""

import time
from abc import ABC
from dataclasses import dataclass, replace
from typing import Any

from esamp.engines.base import Completion, Engine, Progress, Request, check_active
from esamp.errors import OptionError
from esamp.search.base import SearchMethod, answer
from esamp.search.options import SelectionOptions
from esamp.search.scorers import score
from esamp.search.spending import Meter


@dataclass(frozen=True)
class Drawn:
    """The samples of the method underneath, scored."""

    completion: Completion
    scores: list[float | None]
    meter: Meter
    scoring_seconds: float

    @property
    def texts(self) -> list[str]:
        """Of all samples."""
        return [sample.text for sample in self.completion.samples]

    def choose(self, request: Request, winner: int, **details: Any) -> Completion:
        """The answer to `request`: the winner alone, and everything about the others in `Completion.details`."""
        kept: dict[str, Any] = {
            "over": self.completion.request.method,
            "winner": winner,
            "texts": self.texts,
            "scores": self.scores,
            "scoring_seconds": self.scoring_seconds,
            **details,
        }
        if self.completion.details:
            kept["over_details"] = dict(self.completion.details)
        spent = self.meter.cost()
        return replace(
            self.completion,
            request=request,
            samples=(self.completion.samples[winner],),
            seconds=spent.seconds,
            spent=spent,
            details=kept,
        )


class Selection(SearchMethod, ABC):
    """Draws n samples with any method that is no selection, and answers with one of them.

    The samples are those that the method underneath gives the same request by itself. The one that is chosen keeps its
    index among them. `Completion.spent` covers all of them, and its seconds the scoring as well.
    """

    kind = "selection"


def draw(engine: Engine, request: Request, *, progress: Progress | None) -> Drawn:
    """Draw the n samples of a selection's request, and score them if it has a scorer.

    Raises:
        InactiveMethodError: the method underneath should have acted and never did.
    """
    options = request.own_options
    assert isinstance(options, SelectionOptions)
    meter = Meter()
    asked = replace(request, method=options.over, options=options.inner_options())
    [completion] = answer(engine, [asked], progress=progress)
    check_active(completion)
    meter.add(completion)
    if not completion.samples:
        raise OptionError(f"over {options.over!r}: it gave no samples to choose from")
    started = time.perf_counter()
    scores: list[float | None] = [None] * len(completion.samples)
    if options.scored_by is not None:
        scores = score(options.scored_by, options.scorer_device, engine, asked, completion.samples)
    return Drawn(completion, scores, meter, time.perf_counter() - started)
