"""`Server`: the official client, and what the server at the other end is."""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from esamp.engines.openai.endpoint import Endpoint, sentence
from esamp.errors import InputError, UnansweredError
from esamp.quoting import shortened, shown

MOST_SLOTS = 65_536
"""Slots that a server of ours can have."""
MOST_CONTEXT = 2**31
"""Tokens of the longest context that anybody may claim."""


@dataclass(frozen=True)
class Facts:
    """What a server tells about itself."""

    model: str
    """the one that is asked"""
    vllm: bool
    """whether it is vLLM, ours or anybody's"""
    context: int | None
    """tokens of prompt and answer together, where it tells"""
    methods: frozenset[str] | None
    """the methods that requests can choose; None for a server that is not ours"""
    slots: int | None = None
    """groups that can explore at a time, on ours"""
    defaults: frozenset[str] = frozenset()
    """parameters that ours fills in where a request leaves them out"""


class Server:
    """One server and the client that asks it."""

    def __init__(self, endpoint: Endpoint, *, timeout: float, retries: int) -> None:
        import openai

        from esamp.engines.openai.transport import LIBRARY, REFUSED, Client

        self._response, self._refused = LIBRARY.Response, REFUSED
        self.endpoint, self._tries = endpoint, retries + 1
        limits = openai.Timeout(timeout, connect=min(timeout, 10.0))
        withheld = set() if endpoint.account else _account_headers()
        own = {name: f"Bearer {endpoint.key}" for name in withheld if name.lower() == "authorization"}
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key,
            max_retries=retries,
            timeout=limits,
            default_headers={**dict.fromkeys(withheld, openai.omit), **own},
            http_client=Client(seconds=timeout),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def post(self, path: str, body: Mapping[str, Any], *, what: str, extras: Collection[str] = ()) -> object:
        """The JSON that the server answers to `body`.

        Raises:
            EsampError: it refuses, fails, or is not there; see `Endpoint.explained`.
            UnansweredError: it answers what is no JSON, or an error with status 200.
        """
        response, error = await self._sent("post", path, body=dict(body))
        if error is not None:
            raise self.endpoint.explained(error, what=what, tries=self._tries, extras=extras)
        answer = self._read(response, what)
        if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
            raise UnansweredError(f"{what}: {self.endpoint.url} says: {self.endpoint.quoted(sentence(answer))}")
        return answer

    async def facts(self, model: str | None) -> Facts:
        """Ask it what it is and serves.

        Raises:
            InputError: it does not serve `model`, or there are several and none was named.
            EsampError: it cannot be reached.
        """
        listed = await self._models(required=model is None)
        if model is None and len(listed) != 1:
            raise InputError(f"{self.endpoint.url} serves {self._names(listed)}: name one as the model")
        name = next(iter(listed)) if model is None else model
        if listed and name not in listed:
            raise InputError(f"{self.endpoint.url} does not serve {name!r}: it serves {self._names(listed)}")
        card = listed.get(name, {})
        about = await self._about()
        length = card.get("max_model_len")
        return Facts(
            name,
            vllm=about is not None or card.get("owned_by") == "vllm",
            context=length if type(length) is int and 1 < length < MOST_CONTEXT else None,
            methods=None if about is None else frozenset(about["methods"]),
            slots=None if about is None else about["settings"]["slots"],
            defaults=frozenset() if about is None else frozenset(about["settings"].get("defaults") or ()),
        )

    async def _models(self, *, required: bool) -> dict[str, dict[str, Any]]:
        """What ``/v1/models`` lists, by name. Not every server has it."""
        import openai

        what = "list of models"
        response, error = await self._sent("get", "/models")
        if isinstance(error, openai.NotFoundError) and not required:
            return {}
        if error is not None:
            tries = 1 if isinstance(error, openai.NotFoundError) else self._tries
            raise self.endpoint.explained(error, what=what, tries=tries)
        found = self._read(response, what)
        data = found.get("data") if isinstance(found, dict) else None
        cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
        return {card["id"]: card for card in cards if isinstance(card.get("id"), str)}

    async def _about(self) -> dict[str, Any] | None:
        """What ``GET /esamp`` says; None for a server that is not ours or does not explore."""
        response, error = await self._sent("get", f"{self.endpoint.root}/esamp")
        try:
            about = None if error is not None else json.loads(response.text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(about, dict) or about.get("exploring") is not True:
            return None
        methods, settings, versions = about.get("methods"), about.get("settings"), about.get("versions")
        if not (isinstance(methods, dict) and isinstance(settings, dict) and isinstance(versions, dict)):
            return None
        slots, defaults = settings.get("slots"), settings.get("defaults") or {}
        sound = type(slots) is int and 0 < slots <= MOST_SLOTS and isinstance(defaults, dict)
        return about if sound and "esamp" in versions else None

    async def _sent(self, verb: Literal["get", "post"], path: str, **more: Any) -> tuple[Any, Any]:
        """The client's response, or its error: that one has the key among its headers, so it is no error's context."""
        import openai

        try:
            call = self._client.get if verb == "get" else self._client.post
            return await call(path, cast_to=self._response, **more), None
        except openai.APIError as error:
            return None, error

    def _names(self, listed: Collection[str]) -> str:
        names = [shown(self.endpoint.quoted(name)) for name in sorted(listed)[:10]]
        return f"{', '.join(names)}{', ...' * (len(listed) > 10)}" or "no model"

    def _read(self, response: Any, what: str) -> object:
        if refused := response.extensions.get(self._refused):
            raise UnansweredError(f"{what}: the answer of {self.endpoint.url} {refused}: ask for less at a time")
        with suppress(ValueError, RecursionError):  # whose error holds the text, and so perhaps the key
            return json.loads(response.text)
        said = shortened(self.endpoint.quoted(response.text))
        raise UnansweredError(f"{what}: {self.endpoint.url} answered what is no JSON: {said!r}; is its path right?")


def _account_headers() -> set[str]:
    """Headers by which the official client tells an account that the environment names."""
    custom = (line.partition(":") for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n"))
    return {"OpenAI-Organization", "OpenAI-Project", *(name.strip() for name, colon, _ in custom if colon)}
