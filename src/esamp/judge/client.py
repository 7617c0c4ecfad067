"""Requests to a judge at any chat endpoint; a presentation is repeated a few times if its verdict cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from esamp.engines.openai.answers import token_count
from esamp.engines.openai.background import Background
from esamp.engines.openai.bodies import CHAT
from esamp.engines.openai.endpoint import Endpoint
from esamp.engines.openai.server import Server, ServerInfo
from esamp.errors import EsampError
from esamp.judge.options import JudgeOptions
from esamp.judge.presentations import Presentation
from esamp.judge.prompt import reminder
from esamp.judge.verdict import parse_verdict

SHOWN_AGAIN = 1000
"""Last characters of an unreadable answer that the judge is shown together with the reminder."""
SEEDS = 2**31


@dataclass(frozen=True)
class Reply:
    """The result of one presentation."""

    ranks: tuple[float, ...] | None
    """ranks of the groups in the order shown, 1 for the best; None if no answer could be read"""
    reason: str
    """why no answer could be read; else empty"""
    answer: str
    """the last answer"""
    attempts: int
    tokens: int
    """tokens generated in all attempts, as far as the server reports them"""


class JudgeClient:
    """A server and the judges it serves."""

    def __init__(self, server: Server, infos: Mapping[str, ServerInfo], background: Background) -> None:
        """Use `JudgeClient.find`."""
        self.background = background
        self._server, self._infos = server, infos

    @classmethod
    def find(cls, options: JudgeOptions) -> Self:
        """Connect to the server and check that it serves the judges.

        Raises:
            OptionError: no address is given, or the address or the key is invalid.
            InputError: the server does not serve one of the judges, or refuses the key.
            EsampError: the server cannot be reached.
        """
        endpoint = Endpoint.find(options.base_url)
        server, background = Server(endpoint, timeout=options.timeout, retries=options.retries), Background()
        try:
            infos = {name: background.submit(server.info(name)).result() for name in options.judge}
        except BaseException:
            background.submit(server.close()).result()
            background.close()
            raise
        return cls(server, infos, background)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.background.submit(self._server.close()).result()
        self.background.close()

    async def judge(self, presentation: Presentation) -> Reply:
        """Send a presentation until there is a verdict, at most 1 + `again` times.

        Raises:
            EsampError: the server refuses or fails, or its answer is not a chat completion.
        """
        options, first = presentation.options, {"role": "user", "content": presentation.prompt()}
        messages, tokens = [first], 0
        for attempt in range(1, options.again + 2):
            body = self._body(presentation, messages, attempt)
            what = f"problem {presentation.groups.item!r}"
            response = await self._server.post(CHAT, body, what=what, extras=tuple(options.extra))
            answer, cut, spent = _answer(response, what)
            tokens += spent
            ranks = None if cut else parse_verdict(answer, presentation.names, options.mode)
            if ranks is not None:
                return Reply(ranks, "", answer, attempt, tokens)
            messages = [first]
            if answer.strip():
                messages.append({"role": "assistant", "content": answer[-SHOWN_AGAIN:]})
                messages.append({"role": "user", "content": reminder(presentation.names, options.mode)})
        return Reply(None, "cut off" if cut else "no verdict", answer, options.again + 1, tokens)

    def _body(self, presentation: Presentation, messages: list[dict[str, str]], attempt: int) -> dict[str, Any]:
        options = presentation.options
        body: dict[str, Any] = {
            "seed": (int(presentation.key, 16) + attempt) % SEEDS,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            **({"vllm_xargs": {"method": "vanilla"}} if self._infos[presentation.judge].defaults else {}),
            **options.extra,
        }
        kept = {name: value for name, value in body.items() if value is not None}
        return {"model": presentation.judge, "messages": messages, **kept}


def _answer(response: object, what: str) -> tuple[str, bool, int]:
    """The answer's text, whether it was cut off, and the number of its tokens."""
    choices = response.get("choices") if isinstance(response, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(response, dict) or not isinstance(choice, dict) or not isinstance(message, dict):
        raise EsampError(f"{what}: the server's answer is not a chat completion: it has no choice with a message")
    content, spent = message.get("content"), token_count(response.get("usage"), "completion_tokens", what)
    text = content.encode(errors="replace").decode() if isinstance(content, str) else ""
    return text, choice.get("finish_reason") == "length", spent or 0
