"""Texts and values of strangers as error messages, terminals and logs may repeat them: short, and without control."""

import unicodedata
from collections.abc import Iterator, Mapping

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that reorder what is shown after them."""
LONGEST = 80
"""Characters of a value in a message."""
DEEPEST = 5
"""Levels of lists and tables that a message repeats."""
LONGEST_INTEGER = 256
"""Bits of an integer up to which its digits are written out; the work for more digits grows with their square."""


def printable(text: str) -> str:
    r"""`text` with everything that could control a terminal spelled out: ``\x1b`` for escape, and so on.

    Newlines and tabs stay. What a model writes, and what a file holds, is never trusted.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character) for character in text)


def one_line(text: str) -> str:
    """`text` without line breaks and without control characters."""
    return printable(" ".join(text.split("\n")))


def shortened(text: str, most: int = LONGEST) -> str:
    """The beginning of a text, whatever its length."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object, most: int = LONGEST) -> str:
    """A value as one short line, in Python's notation. Only as much of the value is read as is shown."""
    text = ""
    for piece in _pieces(value, most, DEEPEST):
        text += piece
        if len(text) > most:
            break
    return shortened(text, most)


def _spelled(character: str) -> str:
    if character in "\n\t":
        return character
    unsafe = character in BIDI or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if unsafe else character


def _pieces(value: object, most: int, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield repr(value[: most + 1])
    elif isinstance(value, bytes | bytearray):
        yield repr(bytes(value[: most + 1]))
    elif isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        yield f"an integer of {value.bit_length():,} bits"
    elif isinstance(value, list | tuple | Mapping):
        yield from _entries(value, most, depth - 1)
    else:
        yield repr(value)


def _entries(
    value: list[object] | tuple[object, ...] | Mapping[object, object], most: int, depth: int
) -> Iterator[str]:
    opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")") if isinstance(value, tuple) else ("{", "}")
    yield opening
    for place, entry in enumerate(value if depth else ()):
        yield ", " if place else ""
        yield from _pieces(entry, most, depth)
        if isinstance(value, Mapping):
            yield ": "
            yield from _pieces(value[entry], most, depth)
    yield "," if isinstance(value, tuple) and len(value) == 1 else "" if depth or not value else "..."
    yield closing
