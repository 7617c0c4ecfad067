"""Removes the key from texts of a server, which may repeat it, completely or in part."""

import html
import json
from urllib.parse import quote

PREFIX = 12
"""Characters at the beginning of a key that mark a part of it; shorter keys are only replaced as a whole."""
MARK = "***"


def redacted(text: str, key: str) -> str:
    """`text` with `MARK` in place of the key, in any quoting, and of beginnings of it from `PREFIX` characters on."""
    for form in {key, json.dumps(key)[1:-1], quote(key, safe=""), html.escape(key)}:
        text = text.replace(form, MARK)
    return _without_parts(text, key) if len(key) > PREFIX else text


def _without_parts(text: str, key: str) -> str:
    kept, end = [], 0
    while (start := text.find(key[:PREFIX], end)) >= 0:
        kept += [text[end:start], MARK]
        end = start + PREFIX
        while text[end : end + 1] and text[end] == key[end - start : end - start + 1]:
            end += 1
    return "".join([*kept, text[end:]])
