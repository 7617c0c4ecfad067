"""`OpenAIEngine`: runs requests at an OpenAI-compatible server."""

import asyncio
import queue
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Self

from typing_extensions import override

from esamp.engines.base import Completion, Engine, Failure, Outcome, Progress, Request
from esamp.engines.openai.answers import Answer, answer, completion
from esamp.engines.openai.background import Background
from esamp.engines.openai.bodies import Call, call
from esamp.engines.openai.endpoint import Endpoint, refuse
from esamp.engines.openai.server import Server, ServerInfo
from esamp.engines.titles import title
from esamp.errors import EsampError, OptionError, RequestError


class OpenAIEngine(Engine):
    """Runs requests at an OpenAI-compatible server, several at a time. Completions come in the order in which they end.

    At a server of `esamp serve` all methods work that work in vLLM, with telemetry; at others only methods that set the
    sampler. Samples have token ids only if the server returns them, and never traces.
    """

    def __init__(
        self, server: Server, info: ServerInfo, background: Background, *, batch_rows: int = 64, concurrency: int = 64
    ) -> None:
        """Take the parts that `load` creates; `background`, which runs `server`, now belongs to the engine."""
        self.info = info
        self._server, self._background, self._open = server, background, True
        self._batch_rows, self._concurrency = batch_rows, concurrency

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_rows: int = 64,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int = 64,
        timeout: float = 1800.0,
        retries: int = 4,
    ) -> Self:
        """Connect to a server, and ask it for its model and methods.

        Args:
            model: its name at the server; None is the only one that is served.
            device: must be "auto": the server decides.
            dtype: must be "auto": the server decides.
            batch_rows: most samples in flight; a request with more is sent alone.
            base_url: address of the server, usually ending in ``/v1``; by default ``$OPENAI_BASE_URL``.
            api_key: by default ``$OPENAI_API_KEY``; not every server needs one.
            concurrency: most requests in flight.
            timeout: seconds to wait for a complete answer.
            retries: how often a request is sent again after 408, 409, 429, 5xx or a broken connection, with growing
                pauses.

        Raises:
            OptionError: an option is wrong, or there is no base URL.
            InputError: the server does not serve the model, or refuses the key.
            EsampError: the server cannot be reached.
        """
        refuse(device, dtype, base_url or "")
        for name, least, number in (
            ("concurrency", 1, concurrency),
            ("batch_rows", 1, batch_rows),
            ("retries", 0, retries),
        ):
            if number < least:
                raise OptionError(f"{name} = {number} must be at least {least}")
        if not 0 < timeout < 1e9:
            raise OptionError(f"timeout = {timeout} must be a number of seconds above 0")
        endpoint = Endpoint.find(base_url, api_key)
        server, background = Server(endpoint, timeout=timeout, retries=retries), Background()
        try:
            info = background.submit(server.info(model)).result()
        except BaseException:
            background.submit(server.close()).result()
            background.close()
            raise
        return cls(server, info, background, batch_rows=batch_rows, concurrency=concurrency)

    @override
    def close(self) -> None:
        """Close the connections. Requests in flight are cancelled."""
        if self._open:
            self._open = False
            self._background.submit(self._server.close()).result()
            self._background.close()

    @override
    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield completions and failures in the order in which they are known.

        Raises:
            UnsupportedError: the server cannot run a request.
            OptionError: a request cannot be sent.
            InputError: the server refuses the key or the model, or redirects.
            EsampError: this engine was closed.
        """
        if not self._open:
            raise EsampError("this engine was closed: load another one")
        source = map(self._call, requests)
        upcoming = next(source, None)
        in_flight: dict[Future[Completion], Call] = {}
        done: queue.SimpleQueue[Future[Completion]] = queue.SimpleQueue()
        try:
            while in_flight or upcoming is not None:
                while upcoming is not None and (isinstance(upcoming, Failure) or self._fits(upcoming, in_flight)):
                    if isinstance(upcoming, Failure):
                        yield upcoming
                    else:
                        future = self._background.submit(self._complete(upcoming))
                        in_flight[future] = upcoming
                        future.add_done_callback(done.put)
                    upcoming = next(source, None)
                if not in_flight:
                    continue
                future = done.get()
                outcome = _outcome(in_flight.pop(future).request, future)
                if progress is not None and isinstance(outcome, Completion):
                    progress(len(outcome.samples), outcome.cost.tokens)
                yield outcome
        finally:
            for future in in_flight:
                future.cancel()

    def _call(self, request: Request) -> Call | Failure:
        try:
            return call(request, self.info)
        except RequestError as error:
            return Failure(request, error)

    def _fits(self, upcoming: Call, in_flight: dict["Future[Completion]", Call]) -> bool:
        """Whether another request may start now; always if none is in flight."""
        if not in_flight:
            return True
        groups = sum(call.explores for call in in_flight.values())
        if upcoming.explores and groups >= (self.info.slots or 1):
            return False
        rows = upcoming.request.n + sum(call.request.n for call in in_flight.values())
        return len(in_flight) < self._concurrency and rows <= self._batch_rows

    async def _complete(self, call: Call) -> Completion:
        start = time.perf_counter()
        answers = await asyncio.gather(*(self._ask(call, place) for place in range(len(call.bodies))))
        return completion(call, answers, time.perf_counter() - start, self._server.endpoint.quoted)

    async def _ask(self, call: Call, place: int) -> Answer:
        what = f"{title(call.request)}"
        response = await self._server.post(call.path, call.bodies[place], what=what, extras=call.extras)
        return answer(response, call, place, self._server.endpoint.quoted)


def _outcome(request: Request, future: Future[Completion]) -> Outcome:
    try:
        return future.result()
    except RequestError as error:
        return Failure(request, error)
