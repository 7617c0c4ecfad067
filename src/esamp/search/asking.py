"""How a search puts its own questions: instructions around a prompt, and a seed for every call."""

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

from esamp.errors import PromptError

Prompt: TypeAlias = str | tuple[Mapping[str, str], ...]
"""As in `Request`: a text, or chat messages."""


def instruct(prompt: Prompt, instructions: str) -> Prompt:
    """`prompt` with `instructions` and an empty line before it; in a chat, before the last message of the user.

    They go into a message that is there already, as not every chat template takes a system message.

    Raises:
        PromptError: the chat has no message of a user.
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
    """A seed of 62 bits for one of a search's own calls, from the request's seed and what tells the call apart."""
    digest = hashlib.blake2b(repr((seed, *labels)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2
