"""`SearchMethod`: a method made of many calls. `outcomes` and `answer` run requests of any method on any engine."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import groupby

from esamp.engines.base import Completion, Engine, Failure, OnText, Outcome, Progress, Request, completions, passed_on
from esamp.errors import RequestError
from esamp.methods import registry
from esamp.methods.base import Method


class SearchMethod(Method, ABC):
    """A method that answers one request by making several requests to an engine."""

    kind = "search"
    above_engines = True

    @classmethod
    @abstractmethod
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        """Answer `request` with at most ``request.n`` samples, the best first if the method ranks them.

        `Completion.cost` counts everything that was generated. Calls that do not depend on each other go to the engine
        together, so that it can batch them. Each call has its own seed, derived from the request's.

        Raises:
            OptionError: the options do not fit the request or the engine.
        """


def outcomes(engine: Engine, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
    """Run requests of any method: decoding methods in the engine, searches by calls to the engine.

    If one call of a search fails, the outcome of the search is a `Failure` with the error of that call.
    """
    for searches, some in groupby(requests, key=_searches):
        if searches:
            yield from (_search(engine, request, progress) for request in some)
        else:
            yield from engine.outcomes(some, progress=progress)


def answer(engine: Engine, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Completion]:
    """`outcomes` for callers who need all answers: raises the first failure.

    Raises:
        RequestError: a request failed.
    """
    return completions(outcomes(engine, requests, progress=progress))


def stream(engine: Engine, request: Request, on_text: OnText, *, progress: Progress | None = None) -> Outcome:
    """Run one request of any method as `outcomes` does, passing its samples' texts on while they are decoded.

    A search decides at its end which samples it returns, so it passes their texts on then (`Engine.stream`).
    """
    if _searches(request):
        return passed_on(_search(engine, request, progress), on_text)
    return engine.stream(request, on_text, progress=progress)


def _search(engine: Engine, request: Request, progress: Progress | None) -> Outcome:
    method = registry.get(request.method)
    assert issubclass(method, SearchMethod)
    try:
        return method.run(engine, request, progress=progress)
    except RequestError as error:
        return Failure(request, error)


def _searches(request: Request) -> bool:
    return issubclass(registry.get(request.method), SearchMethod)
