"""The calls that a search makes: instructions around a prompt, a seed for every call, and their total cost."""

import hashlib
import time

from esamp.engines.base import Completion, Content, Progress
from esamp.engines.cost import Cost
from esamp.errors import PromptError


def instruct(prompt: Content, instructions: str) -> Content:
    """`prompt` with `instructions` and an empty line before it; in a chat, before the last message of the user.

    No system message is added, as not every chat template accepts one.

    Raises:
        PromptError: the chat has no message with the role "user".
    """
    if isinstance(prompt, str):
        return f"{instructions}\n\n{prompt}"
    places = [place for place, turn in enumerate(prompt) if turn.get("role") == "user"]
    if not places:
        raise PromptError("the chat has no message with role 'user' that instructions could be added to")
    last = places[-1]
    turn = prompt[last]
    return (*prompt[:last], {**turn, "content": f"{instructions}\n\n{turn['content']}"}, *prompt[last + 1 :])


def derived_seed(seed: int, *labels: object) -> int:
    """A 62-bit seed for one call of a search, from the request's seed and labels that are unique to the call."""
    digest = hashlib.blake2b(repr((seed, *labels)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


class Meter:
    """Adds up the cost of everything that was generated for one answer.

    Tokens, prompt tokens and calls are sums over the completions. The seconds are the wall time since the meter was
    created: they include scoring, and a batch shared by several calls counts once.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._sum = Cost(0, 0, 0, 0.0)

    def add(self, completion: Completion) -> None:
        self._sum += completion.cost

    def cost(self) -> Cost:
        seconds = time.perf_counter() - self._started
        return Cost(self._sum.tokens, self._sum.prompt_tokens, self._sum.calls, seconds)


def tokens_only(progress: Progress | None) -> Progress | None:
    """Reports tokens but no finished samples, for calls whose samples are not answers."""
    if progress is None:
        return None

    def report(samples: int, tokens: int) -> None:
        progress(0, tokens)

    return report
