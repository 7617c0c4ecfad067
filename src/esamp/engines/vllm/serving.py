"""``--middleware esamp.engines.vllm.serving.Middleware``: exploring over HTTP.

    POST a request      what the operator does not allow is refused; telemetry comes with the response
    GET /metrics        our metrics after vLLM's
    GET /esamp          what is on, as JSON

vLLM puts middleware outside its own check of API keys. A body is therefore looked at when vLLM reads it, that is, after
that check, and a refusal takes the place of whatever vLLM then answers.
"""

import itertools
from importlib.metadata import version
from typing import Any

import vllm
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from esamp.engines.vllm import metrics
from esamp.engines.vllm.exchange import REPORTED, Exchange, Whole
from esamp.engines.vllm.frontend import FrontEnd
from esamp.methods import registry

PINNED = b"x-data-parallel-rank"
"""The header by which vLLM is told the engine that a request, with all its samples, goes to."""

EXAMINED = REPORTED | {"/v1/chat/completions/batch", "/v1/responses", "/v1/messages", "/invocations"}
"""Paths whose bodies can ask for a method."""


class Middleware:
    """A pure ASGI middleware: what does not explore passes through byte for byte."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is the rest of vLLM's application; its engine is known once the first request comes."""
        self.app = app
        self._front: FrontEnd | None = None
        self._turn = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        method = scope.get("method") if scope["type"] == "http" else None
        path = scope["path"].removeprefix(scope.get("root_path", "")) if method else ""
        if method == "POST" and path in EXAMINED:
            exchange = Exchange(self._engine(scope), path, receive, send)
            rank = await exchange.rank(next(self._turn))
            if rank is not None:
                scope = {**scope, "headers": [*scope["headers"], (PINNED, str(rank).encode())]}
            await self.app(scope, exchange.receive, exchange.send)
        elif method == "GET" and path in ("/metrics", "/metrics/"):
            await self._metrics(scope, receive, send)
        elif method == "GET" and path == "/esamp":
            await JSONResponse(_about(self._engine(scope)))(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _engine(self, scope: Scope) -> FrontEnd:
        if self._front is None:
            self._front = FrontEnd.of(scope["app"])
        return self._front

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        front = self._engine(scope)
        plain = [header for header in scope["headers"] if header[0] != b"accept-encoding"]  # to append, not to unpack

        async def change(start: Message, body: bytes) -> bytes:
            answers = await front.ask("esamp_counters") if front.explores and start["status"] == 200 else []
            kind = Headers(raw=start["headers"]).get("content-type", "")
            return metrics.extended(body, kind, front.model, answers) if answers else body

        await self.app({**scope, "headers": plain}, receive, Whole(send, change).send)


def _about(front: FrontEnd) -> dict[str, Any]:
    """The answer to ``GET /esamp``."""
    return {
        "versions": {"esamp": version("esamp"), "vllm": vllm.__version__},
        "exploring": front.explores,
        "waves": front.waves,
        "settings": front.settings.model_dump(mode="json"),
        "methods": {name: method.summary for name, method in registry.available().items()},
    }
