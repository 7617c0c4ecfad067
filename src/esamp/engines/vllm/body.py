"""A request's body as JSON, with bounded work: it is a stranger's, and the event loop serves nobody else meanwhile."""

import json
from typing import Any

from esamp.errors import OptionError

MOST_PARTS = 50_000
"""Lists, tables, their entries by name and fractional numbers in a body. Texts and whole numbers, such as a prompt's
tokens, do not count: they cost next to nothing."""
COSTLY = "[{:."
"""Marks of what counts; an exponent (``1e9``) counts as well."""


def read(body: bytes) -> Any:
    """What `json.loads` gives; None for what it refuses, which vLLM refuses too.

    Raises:
        OptionError: the body has more parts than any request of use.
    """
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        if _parts(text) > MOST_PARTS and (parts := _parts(_without_texts(text))) > MOST_PARTS:
            raise OptionError(
                f"the body has {parts:,} lists, tables, named entries and fractional numbers: a request that explores "
                f"may have {MOST_PARTS:,}; send fewer prompts at a time"
            )
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parts(text: str) -> int:
    """At least as many as there are."""
    return sum(map(text.count, (*COSTLY, "e", "E")))


def _without_texts(text: str) -> str:
    """What of a JSON document stands outside its quotation marks."""
    plain = text.replace("\\\\", "").replace('\\"', "")
    return "".join(plain.split('"')[::2])
