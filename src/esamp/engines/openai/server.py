"""`Server`: the official client, and what the server at the other end is."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from esamp.engines.openai.endpoint import Endpoint, sentence
from esamp.errors import InputError, UnansweredError


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

        self.endpoint, self._tries = endpoint, retries + 1
        limits = openai.Timeout(timeout, connect=min(timeout, 10.0))
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key,
            max_retries=retries,
            timeout=limits,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),  # a redirect would take prompts along
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
        import openai

        try:
            text = await self._client.post(path, cast_to=str, body=dict(body))
        except openai.APIError as error:  # its own chain of errors may show headers
            raise self.endpoint.explained(error, what=what, tries=self._tries, extras=extras) from None
        answer = self._read(text, what)
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
            raise InputError(f"{self.endpoint.url} serves {_names(listed)}: name one as the model")
        name = next(iter(listed)) if model is None else model
        if listed and name not in listed:
            raise InputError(f"{self.endpoint.url} does not serve {name!r}: it serves {_names(listed)}")
        card = listed.get(name, {})
        about = await self._about()
        length = card.get("max_model_len")
        return Facts(
            name,
            vllm=about is not None or card.get("owned_by") == "vllm",
            context=length if isinstance(length, int) and length > 1 else None,
            methods=None if about is None else frozenset(about["methods"]),
            slots=None if about is None else about["settings"]["slots"],
            defaults=frozenset() if about is None else frozenset(about["settings"].get("defaults") or ()),
        )

    async def _models(self, *, required: bool) -> dict[str, dict[str, Any]]:
        """What ``/v1/models`` lists, by name. Not every server has it."""
        import openai

        what = "list of models"
        try:
            found = self._read(await self._client.get("/models", cast_to=str), what)
        except openai.NotFoundError as error:
            if required:
                raise self.endpoint.explained(error, what=what, tries=1) from None
            return {}
        except openai.APIError as error:
            raise self.endpoint.explained(error, what=what, tries=self._tries) from None
        data = found.get("data") if isinstance(found, dict) else None
        cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
        return {card["id"]: card for card in cards if isinstance(card.get("id"), str)}

    async def _about(self) -> dict[str, Any] | None:
        """What ``GET /esamp`` says; None for a server that is not ours or does not explore."""
        import openai

        try:
            about = json.loads(await self._client.get(f"{self.endpoint.root}/esamp", cast_to=str))
        except (openai.APIError, ValueError, RecursionError):
            return None
        if not isinstance(about, dict) or about.get("exploring") is not True:
            return None
        methods, settings, versions = about.get("methods"), about.get("settings"), about.get("versions")
        if not (isinstance(methods, dict) and isinstance(settings, dict) and isinstance(versions, dict)):
            return None
        return about if isinstance(settings.get("slots"), int) and "esamp" in versions else None

    def _read(self, text: str, what: str) -> object:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            said = self.endpoint.quoted(text[:80])
            raise UnansweredError(
                f"{what}: {self.endpoint.url} answered what is no JSON: {said!r}; is its path right?"
            ) from None


def _names(listed: Collection[str]) -> str:
    names = sorted(listed)
    return f"{', '.join(map(repr, names[:10]))}{', ...' * (len(names) > 10)}" or "no model"
