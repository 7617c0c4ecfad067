"""Run requests, check that their methods acted, and count failed requests as progress."""

from collections.abc import Iterable, Iterator

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request
from esamp.engines.checks import check_active
from esamp.search.base import outcomes


def decode(engine: Engine, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
    """Yield one outcome per request, in the engine's order: a `Completion`, or a `Failure` with its error.

    Args:
        engine: runs decoding methods itself; searches make several calls to it.
        requests: of any methods.
        progress: called with the samples finished and the tokens generated. A failed request counts as finished.

    Raises:
        InactiveMethodError: a method should have acted on a request and did not.
    """
    for outcome in outcomes(engine, requests, progress=progress):
        if isinstance(outcome, Completion):
            check_active(outcome)
        elif progress is not None:
            progress(outcome.request.n, 0)
        yield outcome
