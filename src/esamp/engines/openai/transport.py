"""`Client`: the official client's HTTP client, with limits on the time and the size of an answer."""

import asyncio
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import openai
from typing_extensions import override

LIBRARY = import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
"""The HTTP library of the official client: httpx, or its successor. Looked up in the base class of the official
client's ``DefaultAsyncHttpxClient``, because no public name gives it."""
MOST_BYTES = 64 << 20
"""Limit on the bytes of an answer, uncompressed."""
ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""Accepted compressions; each uncompresses a chunk to at most a thousand times its size."""
TOO_LONG, PACKED = f"is longer than {MOST_BYTES >> 20} MiB", "has a compression that was not requested"
REFUSED = "esamp_refused"
"""Extension of a response whose body was not read completely: the reason, as the end of a sentence."""


class Client(openai.DefaultAsyncHttpxClient):  # type: ignore[misc]  # its base is whichever HTTP library it uses
    """Follows no redirects, which would send prompts to another address, and keeps at most `MOST_BYTES` of an answer.

    `seconds` is the time limit for a complete answer. The HTTP library's own timeout is for each read, so a server that
    sends a byte now and then could keep the client waiting forever.
    """

    def __init__(self, *, seconds: float) -> None:
        super().__init__(
            follow_redirects=False, timeout=None, headers={"Accept-Encoding": "gzip, deflate"}, trust_env=True
        )
        self._seconds = seconds

    @override
    async def send(self, request: Any, *, stream: bool = False, **more: Any) -> Any:
        try:
            async with asyncio.timeout(self._seconds):
                response = await super().send(request, stream=True, **more)
                try:
                    return await _bounded(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise LIBRARY.ReadTimeout("the answer was not complete in time", request=request) from None


async def _bounded(response: Any) -> Any:
    """The same response with its body read and uncompressed, if it is within the limits."""
    refused, parts, size = "", list[bytes](), 0
    if response.headers.get("content-encoding", "").strip().lower() not in ENCODINGS:
        refused = PACKED
    else:
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                refused = TOO_LONG
                break
    return LIBRARY.Response(
        response.status_code,
        headers=list(_unpacked(response.headers.multi_items())),
        content=b"" if refused else b"".join(parts),
        request=response.request,
        extensions={**response.extensions, REFUSED: refused},
    )


def _unpacked(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """The headers without those that describe the compressed body."""
    return (pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length"))
