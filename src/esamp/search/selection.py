"""`Selection`: methods that draw n samples with another method and answer with one of them."""

import time
from abc import ABC
from dataclasses import dataclass, replace
from typing import Any

from esamp.engines.base import Completion, Engine, Progress, Request
from esamp.engines.checks import check_active
from esamp.errors import OptionError
from esamp.search.base import SearchMethod, answer
from esamp.search.calls import Meter
from esamp.search.options import SelectionOptions
from esamp.search.scorers import score


@dataclass(frozen=True)
class Drawn:
    """The samples of the inner method with their scores."""

    completion: Completion
    scores: list[float | None]
    meter: Meter
    scoring_seconds: float

    @property
    def texts(self) -> list[str]:
        return [sample.text for sample in self.completion.samples]

    def choose(self, request: Request, winner: int, **details: Any) -> Completion:
        """The completion of `request` with the winner as its only sample; `Completion.details` has the others."""
        all_details: dict[str, Any] = {
            "over": self.completion.request.method,
            "winner": winner,
            "texts": self.texts,
            "scores": self.scores,
            "scoring_seconds": self.scoring_seconds,
            **details,
        }
        if self.completion.details:
            all_details["over_details"] = dict(self.completion.details)
        spent = self.meter.cost()
        return replace(
            self.completion,
            request=request,
            samples=(self.completion.samples[winner],),
            seconds=spent.seconds,
            spent=spent,
            details=all_details,
        )


class Selection(SearchMethod, ABC):
    """Draws n samples with an inner method, which must not be a selection itself, and answers with one of them.

    The samples are the same as if the inner method had been requested by itself, and the chosen one keeps its index.
    `Completion.spent` covers all samples; its seconds include the scoring.
    """

    kind = "selection"


def draw(engine: Engine, request: Request, *, progress: Progress | None) -> Drawn:
    """Draw the n samples of a selection's request, and score them if the options name a scorer.

    Raises:
        InactiveMethodError: the inner method should have acted and never did.
        OptionError: the inner method returned no samples.
    """
    options = request.own_options
    assert isinstance(options, SelectionOptions)
    meter = Meter()
    inner = replace(request, method=options.over, options=options.inner_options())
    [completion] = answer(engine, [inner], progress=progress)
    check_active(completion)
    meter.add(completion)
    if not completion.samples:
        raise OptionError(f"over {options.over!r}: the method returned no samples to choose from")
    started = time.perf_counter()
    scores: list[float | None] = [None] * len(completion.samples)
    if options.scored_by is not None:
        scores = score(options.scored_by, options.scorer_device, engine, inner, completion.samples)
    return Drawn(completion, scores, meter, time.perf_counter() - started)
