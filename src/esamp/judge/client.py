"""How a judge is asked: at any chat endpoint, again when its verdict cannot be read, and never endlessly."""

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
from esamp.judge.plan import Ask
from esamp.judge.prompt import reminder
from esamp.judge.verdict import read

SHOWN_AGAIN = 1000
"""Characters of an unreadable answer, its end, that the judge sees when it is asked again."""
SEEDS = 2**31


@dataclass(frozen=True)
class Reply:
    """What came of one presentation."""

    ranks: tuple[float, ...] | None
    """of the groups as shown, 1 for the best; None: no answer could be read"""
    reason: str
    """why not; empty if it could"""
    answer: str
    """the last one"""
    attempts: int
    tokens: int
    """generated, of all attempts, where the server tells"""


class Judges:
    """One server and the judges there."""

    def __init__(self, server: Server, infos: Mapping[str, ServerInfo], background: Background) -> None:
        """`Judges.find` finds all of these."""
        self.background = background
        self._server, self._infos = server, infos

    @classmethod
    def find(cls, options: JudgeOptions) -> Self:
        """Reach the server and see that it has the judges.

        Raises:
            OptionError: there is no address, or it or the key cannot be used.
            InputError: the server does not serve a judge, or refuses the key.
            EsampError: it cannot be reached.
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

    async def ask(self, ask: Ask) -> Reply:
        """Ask until there is a verdict, at most 1 + `again` times.

        Raises:
            EsampError: the server refuses, fails, or answers what is no chat completion.
        """
        options, first = ask.options, {"role": "user", "content": ask.question()}
        messages, tokens = [first], 0
        for attempt in range(1, options.again + 2):
            body = self._body(ask, messages, attempt)
            what = f"problem {ask.contest.item!r}"
            response = await self._server.post(CHAT, body, what=what, extras=tuple(options.extra))
            answer, cut, spent = _answer(response, what)
            tokens += spent
            ranks = None if cut else read(answer, ask.names, options.mode)
            if ranks is not None:
                return Reply(ranks, "", answer, attempt, tokens)
            messages = [first]
            if answer.strip():
                messages.append({"role": "assistant", "content": answer[-SHOWN_AGAIN:]})
                messages.append({"role": "user", "content": reminder(ask.names, options.mode)})
        return Reply(None, "cut off" if cut else "no verdict", answer, options.again + 1, tokens)

    def _body(self, ask: Ask, messages: list[dict[str, str]], attempt: int) -> dict[str, Any]:
        options = ask.options
        body: dict[str, Any] = {
            "seed": (int(ask.key, 16) + attempt) % SEEDS,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            **({"vllm_xargs": {"method": "vanilla"}} if self._infos[ask.judge].defaults else {}),
            **options.extra,
        }
        kept = {name: value for name, value in body.items() if value is not None}
        return {"model": ask.judge, "messages": messages, **kept}


def _answer(response: object, what: str) -> tuple[str, bool, int]:
    """The text, whether it was cut off, and its tokens."""
    choices = response.get("choices") if isinstance(response, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(response, dict) or not isinstance(choice, dict) or not isinstance(message, dict):
        raise EsampError(f"{what}: the server's answer is no chat completion: it has no choice with a message")
    content, spent = message.get("content"), token_count(response.get("usage"), "completion_tokens", what)
    text = content.encode(errors="replace").decode() if isinstance(content, str) else ""
    return text, choice.get("finish_reason") == "length", spent or 0
