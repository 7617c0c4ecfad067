"""``--middleware esamp.engines.vllm.server.middleware.Middleware``: exploring over HTTP.

    POST a request      parameters that the operator does not allow are refused; telemetry is added to the response;
                        the header X-ESamp-Group joins it with others (`esamp.engines.vllm.server.grouping`)
    GET /metrics        our metrics after vLLM's
    GET /esamp          versions, settings and methods as JSON

vLLM runs middleware before its own check of API keys. A body is therefore examined when vLLM reads it, which is after
that check, and a refusal replaces vLLM's response.
"""

import itertools
from importlib.metadata import version
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from esamp.engines.vllm import distribution
from esamp.engines.vllm.server import metrics
from esamp.engines.vllm.server.exchange import REPORTED, BufferedResponse, Exchange
from esamp.engines.vllm.server.frontend import FrontEnd
from esamp.methods import registry

RANK_HEADER = b"x-data-parallel-rank"
"""vLLM's header that names the data-parallel engine for a request and all its samples."""

EXAMINED = REPORTED | {"/v1/chat/completions/batch", "/v1/responses", "/v1/messages", "/invocations"}
"""Paths whose requests can name a method."""


class Middleware:
    """A pure ASGI middleware: requests that do not explore, and their responses, pass through unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the rest of vLLM's application. Its engine is looked up at the first request."""
        self.app = app
        self._front_end: FrontEnd | None = None
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        method = scope.get("method") if scope["type"] == "http" else None
        path = scope["path"].removeprefix(scope.get("root_path", "")) if method else ""
        if method == "POST" and path in EXAMINED:
            exchange = Exchange(self._find_front_end(scope), path, Headers(scope=scope), receive, send)
            rank = await exchange.rank(next(self._numbers))
            if rank is not None:
                scope = {**scope, "headers": [*scope["headers"], (RANK_HEADER, str(rank).encode())]}
            await self.app(scope, exchange.receive, exchange.send)
        elif method == "GET" and path in ("/metrics", "/metrics/"):
            await self._metrics(scope, receive, send)
        elif method == "GET" and path == "/esamp":
            await JSONResponse(_about(self._find_front_end(scope)))(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _find_front_end(self, scope: Scope) -> FrontEnd:
        if self._front_end is None:
            self._front_end = FrontEnd.of(scope["app"])
        return self._front_end

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        front_end = self._find_front_end(scope)
        # Without compression, so that text can be appended to the response.
        headers = [header for header in scope["headers"] if header[0] != b"accept-encoding"]

        async def extend(start: Message, body: bytes) -> bytes:
            succeeded = front_end.explores and start["status"] == 200
            counters = await front_end.call_workers("esamp_counters") if succeeded else []
            content_type = Headers(raw=start["headers"]).get("content-type", "")
            return metrics.extended(body, content_type, front_end.model, counters) if counters else body

        await self.app({**scope, "headers": headers}, receive, BufferedResponse(send, extend).send)


def _about(front_end: FrontEnd) -> dict[str, Any]:
    """The response to ``GET /esamp``."""
    return {
        "versions": {"esamp": version("esamp"), "vllm": distribution.imported_version()},
        "exploring": front_end.explores,
        "waves": front_end.waves,
        "settings": front_end.settings.model_dump(mode="json"),
        "methods": {name: method.summary for name, method in registry.available().items()},
    }
