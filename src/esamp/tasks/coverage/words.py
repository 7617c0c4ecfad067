"""Splits a text into words and the gaps between them, in one pass over at most `LONGEST` characters."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

LONGEST = 4096
"""Characters of a text that are read, not counting white space at its beginning."""

_ABBREVIATED = frozenset({"st", "mt", "dr", "mr", "mrs", "sr", "jr", "vs"})
"""Abbreviations whose full stop does not end a sentence."""
_WORD = re.compile(
    r"(?<![^\W_])[-−]?(?>[0-9]+(?:[.,][0-9]+)*)(?![^\W_])"  # 17, -17, 17.5, 1,017, but not the 17 of 17th
    r"|[^\W_]+(?:'[^\W_]+)*[+#]*"  # o'keeffe, c++, c#
)
_INITIALS = re.compile(r"(?<![\w.])(?:[a-z]\.){2,}")
_SENTENCE_END = re.compile(r"[.!?…。][\"'”»)\]*_`]*(?:\s|$)|\n")
_COLON = re.compile(r"[\"'”»)\]*_]*:[\"'*_]*(?:\s|$)")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": " "})


class Gap(IntEnum):
    """The separator between a word and the one before it."""

    SPACE = 0
    HYPHEN = 1
    COMMA = 2
    MARK = 3
    """a bracket, a dash, emphasis or any other punctuation"""
    COLON = 4
    END = 5
    """the end of a sentence or of a line"""


@dataclass(frozen=True)
class Word:
    """One word or number, in lower case and without accents."""

    text: str
    before: Gap
    line: bool
    """whether it begins a line"""
    listed: bool
    """whether it is the number of a list entry: at the beginning of a line and followed by ``.`` or ``)``"""


def plain(text: str) -> str:
    """`text` in lower case and without accents, with uniform quotes, ``U.S.`` as ``us`` and ``&`` as ``and``."""
    folded = unicodedata.normalize("NFD", text.translate(_QUOTES).casefold())
    bare = "".join(sign for sign in folded if not unicodedata.combining(sign))
    return _INITIALS.sub(lambda found: found[0].replace(".", ""), bare).replace(" & ", " and ")


def words(text: str) -> list[Word]:
    """The words of the first `LONGEST` characters of a text."""
    text = plain(text.lstrip()[:LONGEST])
    collected: list[Word] = []
    matches = list(_WORD.finditer(text))
    for place, match in enumerate(matches):
        begin = matches[place - 1].end() if place else 0
        end = matches[place + 1].start() if place + 1 < len(matches) else len(text)
        between, following = text[begin : match.start()], text[match.end() : end]
        line = not collected or "\n" in between
        listed = line and match[0].isdigit() and len(match[0]) < 3 and _opens_item(following)
        gap = Gap.END if listed and match[0] == "1" else _gap(between, collected)
        collected.append(Word(match[0], gap, line, listed))
    return collected


def phrase(text: str) -> tuple[str, ...]:
    """The words of a name, for comparison with those of a text."""
    return tuple(word.text for word in words(text))


def statements(found: Sequence[Word]) -> list[tuple[int, int]]:
    """Begin and end of each sentence or line; one that ends with a colon includes the next line."""
    starts = [place for place, word in enumerate(found) if place == 0 or word.before == Gap.END]
    return list(pairwise([*starts, len(found)]))


def _opens_item(text: str) -> bool:
    return text.startswith((". ", ".\n", ") ", ")\n", ".*", ")*"))


def _gap(between: str, before: Sequence[Word]) -> Gap:
    if not before:
        return Gap.END
    last = before[-1]
    if last.listed and _opens_item(between):
        return Gap.END
    if between == ". " and last.text in _ABBREVIATED:
        return Gap.SPACE
    if between == ". " and len(last.text) == 1 and last.text.isalpha():  # an initial, as in George W. Bush
        return Gap.MARK
    if _COLON.match(between):
        return Gap.COLON
    if _SENTENCE_END.search(between):
        return Gap.END
    if between.strip(" *_\"'") == ",":
        return Gap.COMMA
    return Gap.HYPHEN if between == "-" else Gap.MARK if between.strip() else Gap.SPACE
