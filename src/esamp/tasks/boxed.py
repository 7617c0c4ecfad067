r"""Finds each ``\boxed{...}`` of a text, in the forms that TeX accepts and that chat models write."""

import re
from dataclasses import dataclass

_MARK = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox)(?![A-Za-z])|\x08oxed)(?P<open>\s*\{)?"  # \x08oxed: "\boxed" as JSON decodes it
    r"|\\.|[{}]",
    re.DOTALL,
)
_FORMULA_ENDS = r"(?=\.?[ \t]{0,4}(?:\$|\\\)|\\\]|\n|\Z))"
_BARE = re.compile(
    rf"[ \t]{{0,4}}(?:[A-Za-z]{_FORMULA_ENDS}|\\[A-Za-z][^\n$]{{0,80}}?{_FORMULA_ENDS}"
    r"|[-+−]?[0-9][0-9,]{0,30}(?:\.[0-9]{1,30})?(?:_\{?[0-9]{1,3}\}?|\\?%)?)"
)
"""The content of a box without braces: a letter or command before the end of the formula or line, or a number."""
_EMPTY = re.compile(r"(?:[\s.…?_,;:~]|\\[,;:! ]|\\(?:[lc]?dots|quad|qquad|square)(?![A-Za-z]))*+")


@dataclass(frozen=True)
class Box:
    """The content of a box, and where the box begins and ends in the text."""

    inside: str
    begin: int
    end: int


def boxes(text: str) -> list[Box]:
    r"""The boxes with content, in their order; none if the text ends within a box that begins after all others.

    Braces within a box must balance; ``\{`` and ``\}`` are text. ``\boxed 7`` is a box; ``\boxed{}`` and
    ``\boxed{...}`` are not. Of nested boxes only the outermost counts. A box that the end of the text cuts off would
    replace the earlier ones, so such a text has no answer. Takes time linear in the text.
    """
    opened: list[tuple[int, int] | None] = []  # for each open brace of a box: begin of the box, begin of its content
    spans: list[tuple[int, int, int, int]] = []  # begin of box, begin of content, end of content, end of box
    for mark in _MARK.finditer(text):
        token = mark[0]
        if token == "}":
            begun = opened.pop() if opened else None
            if begun is not None and not _EMPTY.fullmatch(text, begun[1], mark.start()):
                while spans and spans[-1][0] > begun[0]:
                    spans.pop()
                spans.append((*begun, mark.start(), mark.end()))
        elif mark["open"] is not None:
            opened.append((mark.start(), mark.end()))
        elif mark["box"] is not None:
            if bare := _BARE.match(text, mark.end()):
                spans.append((mark.start(), *bare.span(), bare.end()))
        elif token == "{":
            opened.append(None)
    last = spans[-1][3] if spans else 0
    if any(each is not None and each[0] >= last for each in opened):
        return []
    return [Box(_content(text, *span), span[0], span[3]) for span in spans]


def last_boxed(text: str) -> str | None:
    """The content of the last box, None if there is no box."""
    spans = boxes(text)
    return spans[-1].inside if spans else None


def _content(text: str, box: int, begin: int, end: int, _: int) -> str:
    inside = text[begin:end].strip()
    if text.startswith("\\\\", box):  # every backslash of the answer is doubled
        return re.sub(r"\\\\(?=[A-Za-z{}%,])", r"\\", inside)
    return inside
