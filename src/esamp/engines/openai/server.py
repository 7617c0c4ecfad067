"""`Server`: sends requests with the official client. `ServerInfo`: what the server is."""

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
"""Limit on the slots that a server of `esamp serve` reports."""
MOST_CONTEXT = 2**31
"""Limit on the context length that a server reports, in tokens."""


@dataclass(frozen=True)
class ServerInfo:
    """What a server reports about itself."""

    model: str
    """name of the model that requests will use"""
    vllm: bool
    """whether it is vLLM, with or without our classes"""
    context: int | None
    """most tokens of prompt and sample together; None if it is not reported"""
    methods: frozenset[str] | None
    """names of the methods that requests can use; None for a server that does not explore"""
    slots: int | None = None
    """groups that can explore at a time; None for a server that does not explore"""
    defaults: frozenset[str] = frozenset()
    """names of the parameters for which the server has defaults of its own"""


class Server:
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
        """Close the connections."""
        await self._client.close()

    async def post(self, path: str, body: Mapping[str, Any], *, what: str, extras: Collection[str] = ()) -> object:
        """Send a body, and return the parsed JSON of the answer.

        Args:
            path: below the base URL.
            body: as JSON values.
            what: names the request in errors.
            extras: fields of the body that are not in the API's standard.

        Raises:
            EsampError: the server refuses the request, fails, or cannot be reached; see `Endpoint.explained`.
            UnansweredError: the answer is not JSON, or is an error with status 200.
        """
        response, error = await self._sent("post", path, body=dict(body))
        if error is not None:
            raise self.endpoint.explained(error, what=what, tries=self._tries, extras=extras)
        answer = self._read(response, what)
        if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
            raise UnansweredError(f"{what}: {self.endpoint.url} says: {self.endpoint.quoted(sentence(answer))}")
        return answer

    async def info(self, model: str | None) -> ServerInfo:
        """Ask the server for its models, its methods and its settings.

        Args:
            model: the model to use; None is the only one.

        Raises:
            InputError: it does not serve `model`, or `model` is None and it serves several.
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
        return ServerInfo(
            name,
            vllm=about is not None or card.get("owned_by") == "vllm",
            context=length if type(length) is int and 1 < length < MOST_CONTEXT else None,
            methods=None if about is None else frozenset(about["methods"]),
            slots=None if about is None else about["settings"]["slots"],
            defaults=frozenset() if about is None else frozenset(about["settings"].get("defaults") or ()),
        )

    async def _models(self, *, required: bool) -> dict[str, dict[str, Any]]:
        """The entries of ``/v1/models`` by model name; empty if there is no such path and it is not `required`."""
        import openai

        what = "list of models"
        response, error = await self._sent("get", "/models")
        if isinstance(error, openai.NotFoundError) and not required:
            return {}
        if error is not None:
            tries = 1 if isinstance(error, openai.NotFoundError) else self._tries
            raise self.endpoint.explained(error, what=what, tries=tries)
        answer = self._read(response, what)
        data = answer.get("data") if isinstance(answer, dict) else None
        cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
        return {card["id"]: card for card in cards if isinstance(card.get("id"), str)}

    async def _about(self) -> dict[str, Any] | None:
        """The answer to ``GET /esamp``; None for a server that does not explore."""
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
        """The client's response and its error, one of them None.

        The error is returned and not raised because it holds the key among its headers: if it were the context of an
        error of ours, a log could show the key.
        """
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
        with suppress(ValueError, RecursionError):  # the parser's error holds the text, and so perhaps the key
            return json.loads(response.text)
        text = shortened(self.endpoint.quoted(response.text))
        raise UnansweredError(f"{what}: the answer of {self.endpoint.url} is not JSON: {text!r}; is its path right?")


def _account_headers() -> set[str]:
    """Headers in which the official client sends the account that the environment names."""
    custom = (line.partition(":") for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n"))
    return {"OpenAI-Organization", "OpenAI-Project", *(name.strip() for name, colon, _ in custom if colon)}
