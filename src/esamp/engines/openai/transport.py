"""`Client`: the official client's HTTP client, with limits of what a server may make it wait for and keep."""

import asyncio
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import openai
from typing_extensions import override

LIBRARY = import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
"""The HTTP library of the official client: httpx, or what follows it."""
MOST_BYTES = 64 << 20
"""Bytes of an answer, unpacked."""
ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""What a body may be packed with: of these a chunk unpacks to a thousand times its size at most."""
TOO_LONG, PACKED = f"is longer than {MOST_BYTES >> 20} MiB", "is packed in a way that nobody asked for"
REFUSED = "esamp_refused"
"""Extension of a response whose body was not read to its end: why, as the end of a sentence."""


class Client(openai.DefaultAsyncHttpxClient):  # type: ignore[misc]  # its base is whichever HTTP library it uses
    """Follows no redirect, which would take prompts along; keeps no more than `MOST_BYTES` of an answer.

    `seconds` is the time for one answer as a whole. The timeout of the library underneath is for each read, so that a
    server which sends a byte now and then would hold its client for ever.
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
    """The same response with its body read and unpacked, as far as the limits allow."""
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
    """Without those that describe the body as it was sent."""
    return (pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length"))
