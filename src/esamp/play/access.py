"""`AccessGate`: decides which requests reach the page."""

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE, PARAMETER = "esamp_play", "token"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Content-Security-Policy: the browser asks no other server for anything. Gradio itself needs inline scripts and
``Function``; model output never becomes markup in the first place (see `esamp.play.markup`)."""
UNFRAMED = "; frame-ancestors 'self'"
"""Added unless the page is public: no other site may show it in a frame."""


class AccessGate:
    """An ASGI application in front of another one.

    With a token, it admits browsers that have the token in a cookie. The address with ``?token=...`` sets the cookie
    and leads to the address without it, so that the token does not stay in the address bar. With `hosts` it admits only
    requests to these hosts that no page of another host makes: a web site that the browser shows beside this page
    cannot use it.
    """

    def __init__(self, app: App, *, token: str | None = None, hosts: frozenset[str] | None = None) -> None:
        """Guard `app`.

        Args:
            app: an ASGI application.
            token: in ASCII; None admits everybody.
            hosts: names in the ``Host`` header that are admitted; None for all.
        """
        self._app, self._token, self._hosts = app, token, hosts
        self._policy = POLICY if token is None and hosts is None else POLICY + UNFRAMED

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, redirect or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and self._is_foreign(headers):
            await _answer(scope, send, 421, "This server answers to the address that it printed at its start only.")
        elif self._token is None or self._same(_cookie(headers.get("cookie", ""), _cookie_name(scope))):
            await self._app(scope, receive, _with_policy(send, self._policy))
        elif scope["type"] == "http" and self._same(_parameter(scope)):
            await _redirect(scope, send, self._token)
        else:
            await _answer(scope, send, 401, "Open the address with the token that esamp play printed at its start.")

    def _is_foreign(self, headers: Mapping[str, str]) -> bool:
        hosts = [headers.get("host", "")]
        if "origin" in headers:
            hosts.append(headers["origin"].partition("://")[2])
        return not all(_host(host) in (self._hosts or ()) for host in hosts)

    def _same(self, given: str) -> bool:
        """Whether a text is the token, in a time that does not depend on how much of it agrees."""
        return hmac.compare_digest(given.encode(), (self._token or "").encode())


def _host(header: str) -> str:
    """The host in a ``Host`` header, without the port."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdigit() else header).lower()


def _cookie_name(scope: Message) -> str:
    """With the port in it: browsers send a cookie to all ports of a host."""
    server = scope.get("server") or (None, None)
    return f"{COOKIE}_{server[1]}"


def _cookie(header: str, name: str) -> str:
    try:
        cookies = SimpleCookie(header)
    except CookieError:
        return ""
    return str(cookies[name].value) if name in cookies else ""


def _parameter(scope: Message) -> str:
    query: bytes = scope["query_string"]
    return dict(parse_qsl(query.decode("latin-1"))).get(PARAMETER, "")


def _with_policy(send: Send, policy: str) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(b"content-security-policy", policy.encode()), (b"referrer-policy", b"no-referrer")]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return sent


async def _redirect(scope: Message, send: Send, token: str) -> None:
    rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name != PARAMETER]
    target = scope["path"] + (f"?{urlencode(rest)}" if rest else "")
    target = "/" + target.lstrip("/\\")  # two slashes would name another server
    cookie = f"{_cookie_name(scope)}={token}; Path=/; HttpOnly; SameSite=Strict"
    headers = [
        (b"location", target.encode("latin-1", "replace")),
        (b"set-cookie", cookie.encode()),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(scope: Message, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
