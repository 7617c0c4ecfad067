"""The answer in a text, and which answers are equal. Texts are untrusted: linear time, and nothing is evaluated."""

import re
from collections.abc import Callable, Mapping
from functools import partial

from esamp.search.options import Reading
from esamp.tasks.boxed import last_boxed
from esamp.tasks.countdown.expression import MAX_LENGTH, ExpressionError, parse
from esamp.tasks.countdown.notation import arithmetic
from esamp.tasks.final_answer import plain_characters, stated, undressed
from esamp.tasks.numerals import number
from esamp.tasks.thought import without_thought

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(rf"(?:(?<![\w.)])[-+])?(?:{_DIGITS})", re.ASCII)
_LETTER = re.compile(r"\(([A-Za-z])\)\.?|([A-Za-z])[.)]", re.ASCII)


def read(text: str, reading: Reading) -> str | None:
    """The answer in `text` as written; None if there is none."""
    answer = READERS[reading](without_thought(text))
    return answer.strip() or None if answer is not None else None


def key(text: str, reading: Reading) -> str | None:
    """A text that is the same for texts with equal answers; None if `text` has no answer.

    With the reading "text", texts are compared up to white space. Otherwise answers are compared by `canonical`.
    """
    answer = read(text, reading)
    if answer is None:
        return None
    return " ".join(answer.split()) if reading == "text" else canonical(answer) or None


def canonical(answer: str) -> str:
    """The canonical form of an answer: equal answers in different notation have the same one.

    * Numbers, as `numerals.number` reads them: ``073``, ``73.0``, ``+73``, ``$73``, ``x = 73`` and ``73 cm`` become
      ``73``, and ``1,234`` becomes ``1234``. Nothing is computed.
    * Expressions of numbers, + - * / and brackets, as in the Countdown task: the order of operands does not matter, and
      a correct ``= value`` at the end is dropped.
    * A single letter, without its bracket or full stop.
    * Any other text, without letter case, white space, a full stop at the end and marks around it.
    """
    answer = undressed(plain_characters(" ".join(answer.split())))
    if "=" in answer and (equation := _expression(answer)) is not None:
        return equation
    return number(answer) or _expression(answer) or _word(answer)


# ---- readings


def _last_number(text: str) -> str | None:
    last = None
    for match in _NUMBER.finditer(plain_characters(text)):
        last = match[0]
    return last


def _last_line(text: str) -> str | None:
    return next((line for line in reversed(text.splitlines()) if line.strip()), None)


def _auto(text: str) -> str | None:
    answer = last_boxed(text)
    if answer is None:
        answer = stated(text, "any")
    if answer is None and len(text.strip().splitlines()) == 1:
        answer = text
    return answer


READERS: Mapping[Reading, Callable[[str], str | None]] = {
    "auto": _auto,
    "answer": partial(stated, marks="any"),
    "boxed": last_boxed,
    "number": _last_number,
    "line": _last_line,
    "text": lambda text: text,
}


# ---- canonical forms


def _expression(answer: str) -> str | None:
    if len(answer) > 2 * MAX_LENGTH:
        return None
    written, equals, result = answer.partition("=")
    try:
        expression = parse(arithmetic(written))
        if equals and parse(arithmetic(result)).value != expression.value:
            return None
    except ExpressionError:
        return None
    return expression.canonical


def _word(answer: str) -> str:
    letter = _LETTER.fullmatch(answer)
    return (letter[1] or letter[2] if letter else answer).casefold()
