"""How messages for people name a request: by the id that the user gave, or else by the first words of its prompt."""

import re

from esamp.engines.base import Content, Request
from esamp.quoting import first_words

DERIVED = re.compile(r"[0-9a-f]{12}(-\d+)?")
"""An id that was derived from the prompt (`esamp.runs.prompts`), which means nothing to a reader."""


def title(request: Request) -> str:
    """``request 'a'``, or ``prompt "Suggest a name …"`` for a request without an id of its own."""
    if DERIVED.fullmatch(request.id):
        return f"prompt {first_words(last_text(request.prompt))}"
    return f"request {request.id!r}"


def last_text(prompt: Content) -> str:
    """A text prompt, or the last message of a chat."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
