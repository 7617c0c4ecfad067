"""Run requests, check that their methods acted, and count failed requests as progress."""

from collections.abc import Iterable, Iterator

from esamp.engines.base import Completion, Engine, OnText, Outcome, Progress, Request
from esamp.engines.checks import check_active
from esamp.search.base import outcomes, stream


def decode(
    engine: Engine, requests: Iterable[Request], *, progress: Progress | None = None, on_text: OnText | None = None
) -> Iterator[Outcome]:
    """Yield one outcome per request, in the engine's order: a `Completion`, or a `Failure` with its error.

    Args:
        engine: runs decoding methods itself; searches make several calls to it.
        requests: of any methods.
        progress: called with the samples finished and the tokens generated. A failed request counts as finished.
        on_text: called with the samples' texts while they are decoded. Requests then run one after the other.

    Raises:
        InactiveMethodError: a method should have acted on a request and did not.
    """
    if on_text is None:
        decoded = outcomes(engine, requests, progress=progress)
    else:
        decoded = (stream(engine, request, on_text, progress=progress) for request in requests)
    for outcome in decoded:
        if isinstance(outcome, Completion):
            check_active(outcome)
        elif progress is not None:
            progress(outcome.request.n, 0)
        yield outcome
