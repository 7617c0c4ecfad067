"""`Exchange`: one HTTP request that may explore, and its response, on their way through the middleware."""

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from zlib import crc32

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Send

from esamp.engines.vllm.server.events import EventStream
from esamp.engines.vllm.server.frontend import XARGS, ExploringRequest, FrontEnd
from esamp.errors import OptionError

logger = logging.getLogger("vllm.esamp")

KEY = "esamp"
"""The field of a response that holds telemetry."""
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
REPORTED = frozenset({COMPLETIONS, CHAT})
"""Paths whose responses can carry telemetry."""


class BufferedResponse:
    """Buffers a response until it is complete, to change its body."""

    def __init__(self, send: Send, change: Callable[[Message, bytes], Awaitable[bytes]]) -> None:
        """Take the server's `send`, and a function of the message with status and headers, and of the body."""
        self._send, self._change = send, change
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Take the application's next message of the response."""
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
    """One request to the model and its response."""

    def __init__(self, front_end: FrontEnd, path: str, headers: Headers, receive: Receive, send: Send) -> None:
        """Take the server's `receive` and `send`; the application is given the methods of that name instead."""
        self._front_end, self._path, self._headers = front_end, path, headers
        self._receive, self._send = receive, send
        self._examined = self._consumed = self._answered = False
        self._pending: deque[Message] = deque()
        self._request: ExploringRequest | None = None
        self._refusal: str | None = None
        self._buffer: BufferedResponse | None = None
        self._events: EventStream | None = None

    async def receive(self) -> Message:
        """The next message of the request. The first call reads and examines the whole body."""
        await self._examine()
        self._consumed = True
        return self._pending.popleft() if self._pending else await self._receive()

    async def send(self, message: Message) -> None:
        """Pass on the next message of the response, or what replaces it."""
        if not self._consumed:
            await self._send(message)
        elif self._refusal is not None:
            await self._refuse()
        elif self._request is None:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._begin(message)
        elif self._buffer is not None:
            await self._buffer.send(message)
        elif self._events is not None and message["type"] == "http.response.body":
            await self._stream(message, self._events)
        else:
            await self._send(message)

    async def rank(self, number: int) -> int | None:
        """The data-parallel engine for the request; None if vLLM may choose one for each sample.

        The samples of a group must be in one engine. vLLM reads the header for it before the body, so with several
        engines the body is examined here already.

        Args:
            number: a number of the request, by which requests are distributed evenly.
        """
        engines = self._front_end.engines
        if engines == 1:
            return None
        await self._examine()
        if self._request is None:
            return None
        group = self._request.parsed.group
        return (number if group is None else crc32(group.encode(errors="surrogatepass"))) % engines

    async def _examine(self) -> None:
        if self._examined:
            return
        self._examined = True
        while True:
            message = await self._receive()
            self._pending.append(message)
            if message["type"] != "http.request":
                return
            if not message.get("more_body", False):
                break
        try:
            body = b"".join(part.get("body", b"") for part in self._pending)
            self._request = self._front_end.examine(body, self._headers)
            if self._request is not None and self._request.changed is not None:
                self._pending = deque([{"type": "http.request", "body": self._request.changed, "more_body": False}])
        except OptionError as error:
            self._refusal = str(error)
            self._pending = deque([{"type": "http.request", "body": b"", "more_body": False}])

    async def _refuse(self) -> None:
        """Send an error as vLLM formats it, once, in place of the application's response to an empty body."""
        if self._answered:
            return
        self._answered = True
        error = {"message": self._refusal, "type": "BadRequestError", "param": XARGS, "code": 400}
        refusal = Response(json.dumps({"error": error}), 400, media_type="application/json")  # escaped to ASCII
        await refusal({"type": "http"}, self._receive, self._send)

    async def _begin(self, start: Message) -> None:
        headers = Headers(raw=start["headers"])
        kind = headers.get("content-type", "").partition(";")[0].strip()
        if start["status"] == 200 and self._path in REPORTED and "content-encoding" not in headers:
            if kind == "application/json":
                self._buffer = BufferedResponse(self._send, self._with_report)
                await self._buffer.send(start)
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
        """Telemetry of each prompt, if the request asked for it or one of its groups was refused."""
        response_id = response.get("id") if isinstance(response, dict) else None
        if self._request is None or not isinstance(response_id, str):
            return None
        ids = [response_id]
        if self._path == COMPLETIONS:
            ids = [f"{response_id}-{index}" for index in range(self._request.prompts)]
        prompts = await asyncio.gather(*(self._telemetry(request_id) for request_id in ids))
        refused = sum(bool(prompt and prompt.get("groups_refused")) for prompt in prompts)
        if not (self._request.parsed.telemetry or refused):
            return None
        if not any(prompts):
            logger.warning("No telemetry of %r", response_id)
            return None
        report: dict[str, Any] = {"method": self._request.parsed.method.name, "explored": not refused}
        if refused:
            answers = await asyncio.gather(*(self._front_end.call_workers("esamp_refusal", name) for name in ids))
            reasons = sorted({reason for engines in answers for reason in engines if reason})
            report["message"] = f"{refused} of {len(prompts)} prompts ran as plain sampling: {'; '.join(reasons)}"
        return {**report, "prompts": prompts}

    async def _telemetry(self, request_id: str) -> dict[str, float | None] | None:
        """Telemetry from the engine that knows the request, with None for NaN, which JSON does not have."""
        for answer in await self._front_end.call_workers("esamp_telemetry", request_id):
            if answer is not None:
                return {name: value if math.isfinite(value) else None for name, value in answer.items()}
        return None
