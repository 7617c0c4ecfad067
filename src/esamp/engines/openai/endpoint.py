"""`Endpoint`: the base URL and key of a server, and the errors for its refusals."""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from esamp.engines.openai.keys import redacted
from esamp.errors import (
    EsampError,
    InputError,
    OptionError,
    PromptError,
    RefusedError,
    UnansweredError,
    UnsupportedError,
)
from esamp.quoting import shortened, shown

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
"""Environment variables, those of the official client."""
LIBRARY_URL = "https://api.openai.com/v1"
"""The official client's default base URL: without one in the environment, the environment's key is for this server."""
NO_KEY = "none"
"""The key for servers that need none, as the client requires one."""
LONGEST = 1_000_000
"""Limit on the characters of an error's body that is not text."""
SHOWN = 500
"""Limit on the characters of a server's text in a message."""
REFUSALS = frozenset({400, 403, 413, 422, 451})
"""Statuses with which a server refuses one request; 403 usually concerns the key, sometimes a moderated prompt."""
TOO_LONG = re.compile(r"context[ _]length|maximum context|context window|too long|longer than", re.IGNORECASE)
FILTERED = re.compile(r"content[ _-]?(filter|management|policy)|moderat(ed|ion)|flagged|safety", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """A base URL and a key. The key is in no message and no ``repr``."""

    url: str
    """without a slash at the end"""
    key: str = field(repr=False)
    account: bool = False
    """whether to send the environment's organisation, project and custom headers, which go where its key goes"""

    @classmethod
    def find(cls, base_url: str | None = None, api_key: str | None = None) -> "Endpoint":
        """The endpoint from the arguments or, where they are None, the environment.

        There is no default server, so that prompts are only sent to a server that the user has named.

        Raises:
            OptionError: there is no base URL, or the URL or the key cannot be used.
        """
        url = (base_url or os.environ.get(URL, "")).strip().rstrip("/")
        key = (os.environ.get(KEY, "") if api_key is None else api_key).strip()
        if not url:
            raise OptionError(f"no server: set {URL}, or base_url (--base-url), to an address such as {EXAMPLE}")
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            sound = False
        if not sound or parts.username is not None or parts.query or parts.fragment or not url.isprintable():
            raise OptionError(
                f"the base URL must look like {EXAMPLE}, without user, query or fragment; keys go in {KEY}"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise OptionError(
                f"the key ({KEY}) has characters that an HTTP header cannot contain: is it complete, and nothing else?"
            )
        return cls(url, key or NO_KEY, _is_for_environment_key(url) or (api_key is None and bool(key)))

    @property
    def root(self) -> str:
        """The server's address without the API's version."""
        return self.url.removesuffix("/v1")

    def quoted(self, value: object) -> str:
        """A text or other value of the server as one short line without the key, which is removed before shortening."""
        text = value if isinstance(value, str) else shown(value, LONGEST)
        words = " ".join((text if self.key == NO_KEY else redacted(text, self.key))[: 4 * SHOWN].split())
        return shortened("".join(character if character.isprintable() else "?" for character in words), SHOWN)

    def explained(self, error: Any, *, what: str, tries: int, extras: Collection[str] = ()) -> EsampError:
        """The error to raise for an error of the official client.

        Args:
            error: an ``openai.APIError``.
            what: names the request in the message.
            tries: number of attempts.
            extras: fields of the body that are not in the API's standard.
        """
        import openai

        if isinstance(error, openai.APITimeoutError):
            return UnansweredError(f"{what}: no answer from {self.url} in time, tried {tries} times: raise the timeout")
        if not isinstance(error, openai.APIStatusError):
            return UnansweredError(  # a connection that broke may be there again for the next request
                f"{what}: {self.url} cannot be reached, tried {tries} times: is the server up, and {URL} right?"
            )
        status, reason = error.status_code, self.quoted(sentence(error.body) or "no reason given")
        if 300 <= status < 400:
            target = self.quoted(error.response.headers.get("location", "an address that it does not give"))
            return InputError(
                f"{what}: {self.url} redirects to {target} ({status}). Prompts and keys only go to addresses that you "
                f"name: if that is the server, set {URL} to its address"
            )
        if status in REFUSALS and (status == 413 or TOO_LONG.search(reason) or FILTERED.search(reason)):
            return PromptError(f"{what}: {self.url} says: {reason}")
        if status in (401, 403):
            return InputError(f"{what}: {self.url} refuses the key ({status}: {reason}): set {KEY}, and check {URL}")
        if status == 404:
            return InputError(
                f"{what}: {self.url} does not know it (404: {reason}): check {URL} and the model's name; a key ({KEY}) "
                "may also be for other models"
            )
        if status in REFUSALS:
            refused = [name for name in extras if name in reason]
            if refused:
                return UnsupportedError(f"{what}: {self.url} does not take {', '.join(refused)}: {reason}")
            return RefusedError(f"{what}: {self.url} says: {reason}")
        return UnansweredError(f"{what}: {self.url} failed {tries} times, at last with {status}: {reason}")


EXAMPLE = "http://127.0.0.1:8000/v1"


def check_key(base_url: str, allowed: Collection[str] = ()) -> None:
    """Refuse to send the environment's key to an address that only a file names: the file may not be the user's.

    Args:
        base_url: the address in the file.
        allowed: addresses to which the user allows the key to be sent.

    Raises:
        InputError: there is a key, and neither the environment nor the user names the address.
    """
    if not os.environ.get(KEY, "").strip() or _is_for_environment_key(base_url):
        return
    if place(base_url) not in map(place, allowed):
        raise InputError(
            f"base_url = {shown(base_url)}: only the file names this server, so it does not get the key in {KEY}. "
            f"If you trust it with the key, set {URL} to its address or give it with --send-key-to; if it needs no "
            f"key, unset {KEY}"
        )


def _is_for_environment_key(url: str) -> bool:
    """Whether the environment's key is for this address."""
    return place(url) == place(os.environ.get(URL, "").strip() or LIBRARY_URL)


def place(url: str) -> tuple[object, ...]:
    """Equal for two spellings of one address: scheme, host, port and path."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return (url,)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def check() -> tuple[bool, str]:
    """Whether a server can be used, and the client's version and settings, for `esamp doctor`. Contacts no server."""
    installed = f"openai {version('openai')}"
    if not os.environ.get(URL):
        return True, f"{installed}; no server set: {URL} or --base-url"
    try:
        endpoint = Endpoint.find()
    except OptionError as error:
        return False, f"{installed}; {URL} or {KEY}: {error}"
    return True, f"{installed}; {URL} = {endpoint.url}, {KEY} is {'not set' if endpoint.key == NO_KEY else 'set'}"


def refuse(device: str, dtype: str, base_url: str) -> None:
    """Refuse a device or dtype, which only the server chooses, and a missing or wrong address. Contacts no server.

    Raises:
        OptionError: says what to leave out or to set.
    """
    for name, given in (("device", device), ("dtype", dtype)):
        if given != "auto":
            raise OptionError(f"{name} = {given!r}: the server decides that; leave it at 'auto'")
    Endpoint.find(base_url or None)


def sentence(body: object) -> object:
    """The reason in an error's body, under any of the names that servers use."""
    while isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body.get("error")
    return body
