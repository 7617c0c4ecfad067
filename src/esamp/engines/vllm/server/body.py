"""Parses a request's body with bounded work: it is untrusted, and parsing blocks the server's event loop."""

import json
from typing import Any

from esamp.errors import OptionError

MAX_PARTS = 50_000
"""Limit on the lists, objects, named entries and fractional numbers of a body. Texts and integers, such as a prompt's
tokens, are not counted: they are cheap to parse."""
COSTLY = "[{:."
"""Characters of the parts that are counted; those with an exponent (``1e9``) are counted as well."""


def read(body: bytes) -> Any:
    """Parse as `json.loads` does; None for invalid JSON, which vLLM refuses too.

    Raises:
        OptionError: the body has more than `MAX_PARTS` parts.
    """
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        if _parts(text) > MAX_PARTS and (parts := _parts(_without_texts(text))) > MAX_PARTS:
            raise OptionError(
                f"the body has {parts:,} lists, objects, named entries and fractional numbers: a request that explores "
                f"may have {MAX_PARTS:,}; send fewer prompts at a time"
            )
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parts(text: str) -> int:
    """An upper bound of the number of parts in a JSON text."""
    return sum(map(text.count, (*COSTLY, "e", "E")))


def _without_texts(text: str) -> str:
    """A JSON text without the contents of its strings."""
    unescaped = text.replace("\\\\", "").replace('\\"', "")
    return "".join(unescaped.split('"')[::2])
