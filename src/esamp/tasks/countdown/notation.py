"""Arithmetic as chat models write it, in TeX, with brackets of all kinds or ``x`` for times, as `parse` reads it."""

import re

from esamp.tasks.final_answer import plain_characters, undressed

from .expression import MAX_LENGTH, ExpressionError

LONGEST = 4 * MAX_LENGTH
"""Characters of an answer that are rewritten; TeX is longer than what it means."""
_SIGNS = {"times": "*", "cdot": "*", "ast": "*", "div": "/", "left": "", "right": "", "big": "", "Big": ""}
_COMMAND = re.compile(rf"\\({'|'.join(sorted(_SIGNS, key=len, reverse=True))})(?![A-Za-z])\s{{0,4}}|\\[,;:! ]")
_FRACTION = re.compile(r"\\[dtc]?frac\s{0,4}(?:\{([^{}]*)\}|([0-9]))\s{0,4}(?:\{([^{}]*)\}|([0-9]))")
_CHARACTERS = str.maketrans("[]{}⋅∙•∗∕⁄", "()()****//")
_TIMES = re.compile(r"(?<=[0-9)])\s{0,4}[xX]\s{0,4}(?=[0-9(])")
_PRODUCT = re.compile(r"(?<=\))\s{0,4}(?=[0-9(])|(?<=[0-9])\s{0,4}(?=\()")


def arithmetic(answer: str) -> str:
    """Numbers, + - * /, ``=`` and round brackets, as far as the answer consists of that.

    Raises:
        ExpressionError: it is too long.
    """
    text = undressed(plain_characters(answer))
    if len(text) > LONGEST:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    text, changed = _COMMAND.sub(lambda found: _SIGNS.get(found[1] or "", " "), text), 1
    while changed:
        text, changed = _FRACTION.subn(_quotient, text)
    return _PRODUCT.sub(" * ", _TIMES.sub(" * ", text.translate(_CHARACTERS)))


def left_side(text: str, target: int) -> str:
    """The expression of ``expression = target`` or ``target = expression``; the text itself without ``=``.

    Raises:
        ExpressionError: it is said to make something else than the target.
    """
    sides = [side.strip() for side in text.split("=")]
    if len(sides) == 1:
        return text
    if sides[-1].strip("() ") == str(target):
        return sides[0]
    if sides[0] == str(target) and len(sides) == 2:
        return sides[1]
    raise ExpressionError("it goes on after '='")


def _quotient(found: re.Match[str]) -> str:
    return f"(({found[1] or found[2]})/({found[3] or found[4]}))"
