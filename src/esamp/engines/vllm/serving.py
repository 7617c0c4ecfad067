"""``--middleware esamp.engines.vllm.serving.Middleware``: exploring over HTTP.

    POST a request      what the operator does not allow is refused; telemetry comes with the response
    GET /metrics        our metrics after vLLM's
    GET /esamp          what is on, as JSON

vLLM puts middleware outside its own check of API keys. A body is therefore looked at only when vLLM reads it, that is,
after that check: the refusal then takes the place of whatever vLLM answers.
"""

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import vllm
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from esamp.engines.vllm import metrics
from esamp.engines.vllm.events import EventStream
from esamp.engines.vllm.frontend import XARGS, Exploring, FrontEnd
from esamp.errors import OptionError
from esamp.methods import registry

logger = logging.getLogger("vllm.esamp")

KEY = "esamp"
"""Where telemetry is in a response."""
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
REPORTED = frozenset({COMPLETIONS, CHAT})
"""Paths whose responses can carry telemetry."""
EXAMINED = REPORTED | {"/v1/chat/completions/batch", "/v1/responses", "/v1/messages", "/invocations"}
"""Paths whose bodies can ask for a method."""


class Middleware:
    """A pure ASGI middleware: what does not explore passes through byte for byte."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is the rest of vLLM's application; its engine is known once the first request comes."""
        self.app = app
        self._front: FrontEnd | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        method = scope.get("method") if scope["type"] == "http" else None
        path = scope["path"].removeprefix(scope.get("root_path", "")) if method else ""
        if method == "POST" and path in EXAMINED:
            exchange = Exchange(self._engine(scope), path, receive, send)
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


class Whole:
    """Holds a response back until it is complete, to change its body."""

    def __init__(self, send: Send, change: Callable[[Message, bytes], Awaitable[bytes]]) -> None:
        """`change` is given the message with status and headers, and the body."""
        self._send, self._change = send, change
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Take the next message of the application."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body" or self._start is None:
            await self._send(message)
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(self._parts)
        changed = await self._change(self._start, body)
        headers = MutableHeaders(raw=list(self._start["headers"]))
        if changed is not body and "content-length" in headers:
            headers["content-length"] = str(len(changed))
        await self._send({**self._start, "headers": headers.raw})
        await self._send({**message, "body": changed})


class Exchange:
    """One request to the model and its response, on their way through."""

    def __init__(self, front: FrontEnd, path: str, receive: Receive, send: Send) -> None:
        """`receive` and `send` are the server's; the application gets the methods of that name."""
        self._front, self._path, self._receive, self._send = front, path, receive, send
        self._read = self._answered = False
        self._pending: deque[Message] = deque()
        self._exploring: Exploring | None = None
        self._refusal: str | None = None
        self._whole: Whole | None = None
        self._events: EventStream | None = None

    async def receive(self) -> Message:
        """The next message of the request. With the first one the whole body is read and examined."""
        if not self._read:
            self._read = True
            await self._examine()
        return self._pending.popleft() if self._pending else await self._receive()

    async def send(self, message: Message) -> None:
        """The next message of the response."""
        if self._refusal is not None:
            await self._refuse()
        elif self._exploring is None:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._begin(message)
        elif self._whole is not None:
            await self._whole.send(message)
        elif self._events is not None and message["type"] == "http.response.body":
            await self._stream(message, self._events)
        else:
            await self._send(message)

    async def _examine(self) -> None:
        while True:
            message = await self._receive()
            self._pending.append(message)
            if message["type"] != "http.request":
                return
            if not message.get("more_body", False):
                break
        try:
            self._exploring = self._front.examine(b"".join(part.get("body", b"") for part in self._pending))
        except OptionError as error:
            self._refusal = str(error)
            self._pending = deque([{"type": "http.request", "body": b"", "more_body": False}])

    async def _refuse(self) -> None:
        """Say no in vLLM's words, once, instead of what the application says to an empty body."""
        if self._answered:
            return
        self._answered = True
        error = {"message": self._refusal, "type": "BadRequestError", "param": XARGS, "code": 400}
        await JSONResponse({"error": error}, 400)({"type": "http"}, self._receive, self._send)

    async def _begin(self, start: Message) -> None:
        headers = Headers(raw=start["headers"])
        kind = headers.get("content-type", "").partition(";")[0].strip()
        if start["status"] == 200 and self._path in REPORTED and "content-encoding" not in headers:
            if kind == "application/json":
                self._whole = Whole(self._send, self._with_report)
                await self._whole.send(start)
                return
            if kind == "text/event-stream":
                self._events = EventStream()
        await self._send(start)

    async def _with_report(self, _: Message, body: bytes) -> bytes:
        try:
            response = json.loads(body)
        except ValueError:
            return body
        report = await self._report(response)
        end = body.rstrip()
        if report is None or not end.endswith(b"}"):
            return body
        return end[:-1] + b"," + json.dumps({KEY: report}, separators=(",", ":")).encode()[1:]

    async def _stream(self, message: Message, events: EventStream) -> None:
        before, after = events.feed(message.get("body", b""))
        if after is not None:
            self._events = None
            if before:
                await self._send({**message, "body": before, "more_body": True})
            report = await self._report(events.first)
            extra = b"" if report is None else events.like_first({"choices": [], KEY: report})
            await self._send({**message, "body": extra + after})
            return
        last = not message.get("more_body", False)
        if before or last:
            await self._send({**message, "body": before + (events.rest() if last else b"")})

    async def _report(self, response: Any) -> dict[str, Any] | None:
        """What was done for each prompt, if the request asked for it or one of its groups found no slot."""
        identity = response.get("id") if isinstance(response, dict) else None
        if self._exploring is None or not isinstance(identity, str):
            return None
        ids = [identity]
        if self._path == COMPLETIONS:
            ids = [f"{identity}-{index}" for index in range(self._exploring.prompts)]
        prompts = await asyncio.gather(*(self._telemetry(each) for each in ids))
        refused = sum(bool(prompt and prompt.get("groups_refused")) for prompt in prompts)
        if not (self._exploring.asked.telemetry or refused):
            return None
        if not any(prompts):
            logger.warning("No telemetry of %s", identity)
            return None
        report: dict[str, Any] = {"method": self._exploring.asked.method.name, "explored": not refused}
        if refused:
            report["message"] = f"{refused} of {len(prompts)} prompts got no slot and ran as plain sampling"
        return {**report, "prompts": prompts}

    async def _telemetry(self, request_id: str) -> dict[str, float | None] | None:
        """Of the engine that knows the request, without NaN, which JSON does not know."""
        for answer in await self._front.ask("esamp_telemetry", request_id):
            if answer is not None:
                return {name: value if math.isfinite(value) else None for name, value in answer.items()}
        return None


def _about(front: FrontEnd) -> dict[str, Any]:
    """The answer to ``GET /esamp``."""
    return {
        "versions": {"esamp": version("esamp"), "vllm": vllm.__version__},
        "exploring": front.explores,
        "waves": front.waves,
        "settings": front.settings.model_dump(mode="json"),
        "methods": {name: method.summary for name, method in registry.available().items()},
    }
