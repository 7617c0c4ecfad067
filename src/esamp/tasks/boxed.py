r"""The ``\boxed{...}`` of a text, as TeX reads them and as chat models write them."""

import re
from dataclasses import dataclass

_MARK = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox)(?![A-Za-z])|\x08oxed)(?P<open>\s*\{)?"  # \x08oxed: JSON's reading of "\boxed"
    r"|\\.|[{}]",
    re.DOTALL,
)
_FORMULA_ENDS = r"(?=\.?[ \t]{0,4}(?:\$|\\\)|\\\]|\n|\Z))"
_BARE = re.compile(
    rf"[ \t]{{0,4}}(?:[A-Za-z]{_FORMULA_ENDS}|\\[A-Za-z][^\n$]{{0,80}}?{_FORMULA_ENDS}"
    r"|[-+−]?[0-9][0-9,]{0,30}(?:\.[0-9]{1,30})?(?:_\{?[0-9]{1,3}\}?|\\?%)?)"
)
"""What a box without braces holds: a letter or command before the end of the formula or line, or a number."""
_EMPTY = re.compile(r"(?:[\s.…?_,;:~]|\\[,;:! ]|\\(?:[lc]?dots|quad|qquad|square)(?![A-Za-z]))*+")


@dataclass(frozen=True)
class Box:
    """What a box holds, and where the box begins and ends in the text."""

    inside: str
    begin: int
    end: int


def boxes(text: str) -> list[Box]:
    r"""The boxes that say something, in their order; none if a later one was cut off.

    Braces within must balance; ``\{`` and ``\}`` are text. ``\boxed 7`` is a box too, ``\boxed{}`` and ``\boxed{...}``
    are none. Of a box within a box the outer one counts. A text that ends within a box that begins behind all the
    others has withdrawn those: it has no answer. Linear in the text, whatever is in it.
    """
    opened: list[tuple[int, int] | None] = []  # for each open brace: where its box and the content of that begin
    found: list[tuple[int, int, int, int]] = []  # where the box and its content begin and end
    for mark in _MARK.finditer(text):
        token = mark[0]
        if token == "}":
            begun = opened.pop() if opened else None
            if begun is not None and not _EMPTY.fullmatch(text, begun[1], mark.start()):
                while found and found[-1][0] > begun[0]:
                    found.pop()
                found.append((*begun, mark.start(), mark.end()))
        elif mark["open"] is not None:
            opened.append((mark.start(), mark.end()))
        elif mark["box"] is not None:
            if bare := _BARE.match(text, mark.end()):
                found.append((mark.start(), *bare.span(), bare.end()))
        elif token == "{":
            opened.append(None)
    last = found[-1][3] if found else 0
    if any(each is not None and each[0] >= last for each in opened):
        return []
    return [Box(_content(text, *span), span[0], span[3]) for span in found]


def last_boxed(text: str) -> str | None:
    """What the last box holds, None if there is no box."""
    found = boxes(text)
    return found[-1].inside if found else None


def _content(text: str, box: int, begin: int, end: int, _: int) -> str:
    inside = text[begin:end].strip()
    if text.startswith("\\\\", box):  # the whole answer was escaped once too often
        return re.sub(r"\\\\(?=[A-Za-z{}%,])", r"\\", inside)
    return inside
