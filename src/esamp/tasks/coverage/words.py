"""A text as words and the gaps between them, for reading short answers. One pass over at most `LONGEST` characters."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

LONGEST = 4096
"""Characters of a text that are read, white space at its beginning not counted."""

_ABBREVIATED = frozenset({"st", "mt", "dr", "mr", "mrs", "sr", "jr", "vs"})
"""A full stop behind these ends no sentence."""
_WORD = re.compile(
    r"(?<![^\W_])[-−]?(?>[0-9]+(?:[.,][0-9]+)*)(?![^\W_])"  # 17, -17, 17.5, 1,017, but not the 17 of 17th
    r"|[^\W_]+(?:'[^\W_]+)*[+#]*"  # o'keeffe, c++, c#
)
_INITIALS = re.compile(r"(?<![\w.])(?:[a-z]\.){2,}")
_SENTENCE_END = re.compile(r"[.!?…。][\"'”»)\]*_`]*(?:\s|$)|\n")
_COLON = re.compile(r"[\"'”»)\]*_]*:[\"'*_]*(?:\s|$)")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": " "})


class Gap(IntEnum):
    """What is between a word and the one before it."""

    SPACE = 0
    HYPHEN = 1
    COMMA = 2
    MARK = 3
    """a bracket, a dash, emphasis or any other sign"""
    COLON = 4
    END = 5
    """the end of a sentence or of a line"""


@dataclass(frozen=True)
class Word:
    """One word or number, without letter case and accents."""

    text: str
    before: Gap
    line: bool
    """whether a line begins here"""
    listed: bool
    """whether it is a number at the beginning of a line with ``.`` or ``)`` behind it, as in a numbered list"""


def plain(text: str) -> str:
    """`text` without letter case and accents; quotation marks in one form, ``U.S.`` as ``us``, ``&`` as ``and``."""
    folded = unicodedata.normalize("NFD", text.translate(_QUOTES).casefold())
    bare = "".join(sign for sign in folded if not unicodedata.combining(sign))
    return _INITIALS.sub(lambda found: found[0].replace(".", ""), bare).replace(" & ", " and ")


def words(text: str) -> list[Word]:
    """The words of a text, up to the limit."""
    text = plain(text.lstrip()[:LONGEST])
    found: list[Word] = []
    matches = list(_WORD.finditer(text))
    for place, match in enumerate(matches):
        begin = matches[place - 1].end() if place else 0
        end = matches[place + 1].start() if place + 1 < len(matches) else len(text)
        between, behind = text[begin : match.start()], text[match.end() : end]
        line = not found or "\n" in between
        listed = line and match[0].isdigit() and len(match[0]) < 3 and _opens_item(behind)
        gap = Gap.END if listed and match[0] == "1" else _gap(between, found)
        found.append(Word(match[0], gap, line, listed))
    return found


def phrase(text: str) -> tuple[str, ...]:
    """The words of a name, to be compared with those of a text."""
    return tuple(word.text for word in words(text))


def statements(found: Sequence[Word]) -> list[tuple[int, int]]:
    """Where the sentences and lines of a text begin and end; one that ends with a colon goes on in the next line."""
    starts = [place for place, word in enumerate(found) if place == 0 or word.before == Gap.END]
    return list(pairwise([*starts, len(found)]))


def _opens_item(behind: str) -> bool:
    return behind.startswith((". ", ".\n", ") ", ")\n", ".*", ")*"))


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
