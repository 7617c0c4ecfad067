"""Keys in the texts of strangers: a server may repeat the key that it was sent, as a whole or cut off."""

import html
import json
from urllib.parse import quote

TOLD = 12
"""First characters of a key by which a part of it is known; shorter keys are only known as a whole."""
MARK = "***"


def redacted(text: str, key: str) -> str:
    """`text` without the key, however it is quoted, and without any longer part from the key's beginning."""
    for form in {key, json.dumps(key)[1:-1], quote(key, safe=""), html.escape(key)}:
        text = text.replace(form, MARK)
    return _without_parts(text, key) if len(key) > TOLD else text


def _without_parts(text: str, key: str) -> str:
    kept, end = [], 0
    while (start := text.find(key[:TOLD], end)) >= 0:
        kept += [text[end:start], MARK]
        end = start + TOLD
        while text[end : end + 1] and text[end] == key[end - start : end - start + 1]:
            end += 1
    return "".join([*kept, text[end:]])
