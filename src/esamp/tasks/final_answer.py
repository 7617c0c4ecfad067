r"""Finds the final answer of a text, for all tasks and votes: in a box or after ``Answer:``, without its markup.

Texts are untrusted: every function takes time linear in the text, or reads a bounded part of it.
"""

import re
from typing import Literal

from esamp.tasks.boxed import last_boxed

LONGEST = 4_000
"""Characters of an answer that are read."""
_COLON = re.compile(
    r"\banswer[*_`'\" \t]{0,8}(?:(?:is|are)\b[*_ \t]{0,8})?[:：](?:__)?[* \t]{0,8}"
    r"|^[ \t]{0,3}#{1,6}[ \t]{1,4}(?:\w{1,20}[ \t]{1,4})?answer[*_ \t]{0,8}$"
    r"|^[ \t]{0,3}[*_]{1,3}(?:\w{1,20}[ \t]{1,4})?answer[*_ \t]{0,8}$",
    re.IGNORECASE | re.ASCII | re.MULTILINE,
)
_VERB = re.compile(r"\banswer[*_ \t]{0,8}\b(?:is|are)\b[:：]?(?:__)?[* \t]{0,8}", re.IGNORECASE | re.ASCII)
_OPENING_LINE = re.compile(r"(?:```|~~~)[\w+-]*|\$\$|\\\[|\*\*|<answer>", re.IGNORECASE | re.ASCII)
_PAIRS = (
    *(("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"), ("```", "```"), ("`", "`"), ("**", "**"), ("*", "*")),
    *(("__", "__"), ("_", "_"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("「", "」")),
    *(("<answer>", "</answer>"), ("{", "}"), ("<", ">"), ("[[", "]]")),
)
_STYLES = (
    r"text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|mbox|hbox|underline|emph|boxed|fbox"
)
_STYLED = re.compile(rf"\\(?:{_STYLES})\s{{0,4}}\{{")
_STYLE_COMMAND = re.compile(r"\\(?:displaystyle|textstyle|bf|rm|it|Large|large|huge|normalsize)(?![A-Za-z])\s{0,4}")
_SPACE_COMMAND = re.compile(r"\\(?:q?quad(?![A-Za-z])|[,;:! ])")
_STRAY = "* \t\r\n"
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_CHARACTERS = str.maketrans(
    _FULL_WIDTH
    | dict.fromkeys(map(ord, "−–—‐‑‒﹣⁻"), "-")
    | dict.fromkeys([0x00A0, 0x2007, 0x2009, 0x200A, 0x202F, 0x2002, 0x2003, 0x2005, 0x3000], " ")
    | dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0F], None)
)


def plain_characters(text: str) -> str:
    """The text with full-width and typographic digits, letters, signs and spaces replaced by ASCII."""
    return text.translate(_CHARACTERS)


def mark_ends(text: str, marks: Literal["colon", "verb", "any"] = "colon") -> list[int]:
    """Positions at which the marks of an answer end, in their order.

    Args:
        text: any text, without thoughts.
        marks: "colon" finds ``Answer:`` and headings of that word alone, "verb" finds ``answer is``, "any" finds both.
    """
    patterns = {"colon": (_COLON,), "verb": (_VERB,), "any": (_COLON, _VERB)}[marks]
    return sorted(match.end() for pattern in patterns for match in pattern.finditer(text))


def stated(text: str, marks: Literal["colon", "any"] = "colon") -> str | None:
    """The text from the last mark of an answer to the end of the line; None without a mark.

    Where the mark ends its line, the next line that is not empty counts.
    """
    ends = mark_ends(text, marks)
    if not ends:
        return None
    lines = [line.strip() for line in text[ends[-1] : ends[-1] + 2 * LONGEST].split("\n")]
    nonempty = [line for line in lines if line]
    if len(nonempty) > 1 and _OPENING_LINE.fullmatch(nonempty[0]):
        return nonempty[1]
    return nonempty[0] if nonempty else ""


def final_answer(text: str) -> str | None:
    """The last box, else the text after ``Answer:``, else after ``answer is``; None without any of these."""
    answer = last_boxed(text)
    if answer is None:
        answer = stated(text)
    return stated(text, "any") if answer is None else answer


def undressed(answer: str) -> str:
    r"""An answer without the markup that chat models put around it.

    Markup is emphasis, quotes, backticks, delimiters of formulas, boxes, ``\text{...}``, spaces and a final full stop,
    in any order and depth. Markup inside the answer stays.
    """
    answer = answer.strip(_STRAY)
    if len(answer) > LONGEST:
        return answer
    before = None
    while answer != before:
        before = answer
        answer = _STYLE_COMMAND.sub("", answer, count=1) if answer.startswith("\\") else answer
        answer = _without_space_commands(answer).rstrip(".。").strip(_STRAY)
        for opening, closing in _PAIRS:
            inner = answer[len(opening) : len(answer) - len(closing)]
            if _encloses(answer, opening, closing) and inner.strip():
                answer = inner.strip(_STRAY)
        if (style := _STYLED.match(answer)) and _closing_brace(answer, style.end()) == len(answer) - 1:
            answer = answer[style.end() : -1].strip(_STRAY)
    return answer


def _without_space_commands(answer: str) -> str:
    r"""The answer without commands such as ``\,`` at its ends."""
    while space := _SPACE_COMMAND.match(answer):
        answer = answer[space.end() :].lstrip()
    while space := re.search(r"\\(?:q?quad|[,;:!])$", answer):
        answer = answer[: space.start()].rstrip()
    return answer


def _encloses(answer: str, opening: str, closing: str) -> bool:
    """Whether the opening mark matches the closing one, which is not so in ``$a$ and $b$`` or ``{a}{b}``."""
    if len(answer) <= len(opening) + len(closing) or not (answer.startswith(opening) and answer.endswith(closing)):
        return False
    if opening == "{":
        return _closing_brace(answer, 1) == len(answer) - 1
    inner = answer[len(opening) : -len(closing)]
    return opening not in inner and closing not in inner


def _closing_brace(text: str, start: int) -> int:
    """Position of the brace that closes the one open at `start`; -1 if there is none."""
    depth = 1
    for mark in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if not depth:
            return mark.start()
    return -1
