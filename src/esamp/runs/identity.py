"""Hashes that name what is stored: two values have the same name exactly if their JSON is the same.

Names in existing stores and output files depend on these functions, so what they return must never change.
"""

import hashlib
import json


def json_digest(value: object, digits: int) -> str:
    """The first hexadecimal digits of the SHA-256 of a value's JSON, with sorted keys.

    Args:
        value: mappings, lists, texts and numbers; anything else counts as its `str`.
        digits: length of the result, at most 64.
    """
    return text_digest(json.dumps(value, sort_keys=True, default=str), digits)


def text_digest(text: str, digits: int) -> str:
    """The first hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:digits]
