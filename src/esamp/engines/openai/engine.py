"""`OpenAIEngine`: requests in, completions out, through a server."""

import asyncio
import queue
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Self

from esamp.engines.base import Completion, Engine, Failure, Outcome, Progress, Request
from esamp.engines.openai.answers import Answer, answer, completion
from esamp.engines.openai.background import Background
from esamp.engines.openai.bodies import Call, call
from esamp.engines.openai.endpoint import Endpoint, refuse
from esamp.engines.openai.server import Facts, Server
from esamp.errors import EsampError, OptionError, RequestError


class OpenAIEngine(Engine):
    """Runs requests at an OpenAI-compatible server, several at a time; completions come in the order they end.

    A server that `esamp serve` started decodes by any method that acts there and tells what it did; at others only
    methods that set the sampler work. There are no token ids where the server gives none, and never traces.
    """

    def __init__(
        self, server: Server, facts: Facts, background: Background, *, batch_rows: int = 64, concurrency: int = 64
    ) -> None:
        """`OpenAIEngine.load` finds all of these; `background` runs `server` and is the engine's from here on."""
        self.facts = facts
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
        """Find a server and what it is.

        Args:
            model: its name at the server; None takes the only one that is served.
            device: "auto": the server's matter.
            dtype: "auto": the server's matter.
            batch_rows: most samples in flight; a request of more goes alone.
            base_url: where the server is, ending in ``/v1`` as a rule; by default ``$OPENAI_BASE_URL``.
            api_key: by default ``$OPENAI_API_KEY``; a server that wants none needs none.
            concurrency: most requests in flight.
            timeout: seconds to wait for one whole answer.
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
            facts = background.submit(server.facts(model)).result()
        except BaseException:
            background.submit(server.close()).result()
            background.close()
            raise
        return cls(server, facts, background, batch_rows=batch_rows, concurrency=concurrency)

    def close(self) -> None:
        """Leave the server; requests in flight are given up."""
        if self._open:
            self._open = False
            self._background.submit(self._server.close()).result()
            self._background.close()

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield completions as they arrive, and failures as they are known.

        Raises:
            UnsupportedError: the server cannot do what a request asks for.
            OptionError: a request cannot be sent.
            InputError: the server refuses the key or the model, or sends us elsewhere.
            EsampError: this engine was closed.
        """
        if not self._open:
            raise EsampError("this engine was closed: load another one")
        source = map(self._call, requests)
        following = next(source, None)
        flying: dict[Future[Completion], Call] = {}
        landed: queue.SimpleQueue[Future[Completion]] = queue.SimpleQueue()
        try:
            while flying or following is not None:
                while following is not None and (isinstance(following, Failure) or self._fits(following, flying)):
                    if isinstance(following, Failure):
                        yield following
                    else:
                        future = self._background.submit(self._complete(following))
                        flying[future] = following
                        future.add_done_callback(landed.put)
                    following = next(source, None)
                if not flying:
                    continue
                future = landed.get()
                outcome = _landed(flying.pop(future).request, future)
                if progress is not None and isinstance(outcome, Completion):
                    progress(len(outcome.samples), outcome.cost.tokens)
                yield outcome
        finally:
            for future in flying:
                future.cancel()

    def _call(self, request: Request) -> Call | Failure:
        try:
            return call(request, self.facts)
        except RequestError as error:
            return Failure(request, error)

    def _fits(self, following: Call, flying: dict["Future[Completion]", Call]) -> bool:
        """Whether another request may start beside those in flight; one may always."""
        if not flying:
            return True
        groups = sum(each.explores for each in flying.values())
        if following.explores and groups >= (self.facts.slots or 1):
            return False
        rows = following.request.n + sum(each.request.n for each in flying.values())
        return len(flying) < self._concurrency and rows <= self._batch_rows

    async def _complete(self, call: Call) -> Completion:
        start = time.perf_counter()
        answers = await asyncio.gather(*(self._ask(call, place) for place in range(len(call.bodies))))
        return completion(call, answers, time.perf_counter() - start, self._server.endpoint.quoted)

    async def _ask(self, call: Call, place: int) -> Answer:
        what = f"request {call.request.id!r}"
        response = await self._server.post(call.path, call.bodies[place], what=what, extras=call.extras)
        return answer(response, call, place, self._server.endpoint.quoted)


def _landed(request: Request, future: Future[Completion]) -> Outcome:
    try:
        return future.result()
    except RequestError as error:
        return Failure(request, error)
