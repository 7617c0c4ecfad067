"""Makes untrusted texts and values safe to print in messages, terminals and logs: short, no control characters."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Control characters for the direction of text, which can reorder the text after them."""
LONGEST = 80
"""Default limit on the characters of a value in a message."""
DEEPEST = 5
"""Limit on the levels of nested lists and tables in a message."""
LONGEST_INTEGER = 256
"""Limit on the bits of an integer whose digits are printed; computing digits takes quadratic time."""


def printable(text: str) -> str:
    r"""`text` with escape sequences for all characters that could control a terminal, such as ``\x1b`` for escape.

    Newlines and tabs stay. Texts of models and of files are untrusted.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character) for character in text)


def one_line(text: str) -> str:
    """`text` without line breaks and without control characters."""
    return printable(" ".join(text.split("\n")))


def shortened(text: str, most: int = LONGEST) -> str:
    """The beginning of a text, at most `most` characters with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def cut_at_word(text: str, most: int) -> str:
    """The beginning of a text, at most `most` characters: cut between words if it can be, and with an ellipsis."""
    if len(text) <= most:
        return text
    start = text[: most - 2]
    whole = start if text[most - 2].isspace() else start.rpartition(" ")[0]
    return f"{whole.rstrip()} …" if whole else f"{text[: most - 1]}…"


def first_words(text: str, most: int = 60) -> str:
    """The beginning of a text on one line, in quotation marks, without control characters."""
    line = " ".join(text[: 4 * most].split())
    return f'"{cut_at_word(one_line(line), most)}"'


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'esamp'?)"`` if one of the `known` names is close to `name`, else an empty text."""
    close = get_close_matches(name[:LONGEST], list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shown(value: object, most: int = LONGEST) -> str:
    """A value as one short line, in Python's notation. Only the part of the value that is shown is read."""
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
