"""Converts arithmetic in chat models' notation (TeX, any brackets, ``x`` for times) to the notation of `parse`."""

import re

from esamp.tasks.final_answer import plain_characters, undressed

from .expression import MAX_LENGTH, ExpressionError

LONGEST = 4 * MAX_LENGTH
"""Characters of an answer that is converted; TeX is longer than plain notation."""
_SIGNS = {"times": "*", "cdot": "*", "ast": "*", "div": "/", "left": "", "right": "", "big": "", "Big": ""}
_COMMAND = re.compile(rf"\\({'|'.join(sorted(_SIGNS, key=len, reverse=True))})(?![A-Za-z])\s{{0,4}}|\\[,;:! ]")
_FRACTION = re.compile(r"\\[dtc]?frac\s{0,4}(?:\{([^{}]*)\}|([0-9]))\s{0,4}(?:\{([^{}]*)\}|([0-9]))")
_CHARACTERS = str.maketrans("[]{}⋅∙•∗∕⁄", "()()****//")
_TIMES = re.compile(r"(?<=[0-9)])\s{0,4}[xX]\s{0,4}(?=[0-9(])")
_PRODUCT = re.compile(r"(?<=\))\s{0,4}(?=[0-9(])|(?<=[0-9])\s{0,4}(?=\()")


def arithmetic(answer: str) -> str:
    """The answer with numbers, + - * /, ``=`` and round brackets in plain notation; anything else stays unchanged.

    Raises:
        ExpressionError: the answer is too long.
    """
    text = undressed(plain_characters(answer))
    if len(text) > LONGEST:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    text, changed = _COMMAND.sub(lambda found: _SIGNS.get(found[1] or "", " "), text), 1
    while changed:
        text, changed = _FRACTION.subn(_quotient, text)
    return _PRODUCT.sub(" * ", _TIMES.sub(" * ", text.translate(_CHARACTERS)))


def left_side(text: str, target: int) -> str:
    """The expression in ``expression = target`` or ``target = expression``; a text without ``=`` is returned as it is.

    Raises:
        ExpressionError: the equation states another value than the target.
    """
    sides = [side.strip() for side in text.split("=")]
    if len(sides) == 1:
        return text
    if sides[-1].strip("() ") == str(target):
        return sides[0]
    if sides[0] == str(target) and len(sides) == 2:
        return sides[1]
    raise ExpressionError("'=' is not followed by the target")


def _quotient(found: re.Match[str]) -> str:
    return f"(({found[1] or found[2]})/({found[3] or found[4]}))"
