"""Steps of arithmetic in number games: read from untrusted text, checked exactly, applied to the numbers left."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from esamp.tasks.countdown import ExpressionError, Problem
from esamp.tasks.countdown.expression import parse

LONGEST_PROBLEM = 2000
"""Most characters of a prompt that are searched for a number game."""

_SPELLINGS = str.maketrans({"×": "*", "·": "*", "∙": "*", "÷": "/", "−": "-", "–": "-"})
_NUMBER = r"\(?(-?[0-9]{1,9}(?:\.[0-9]{1,9}|/[0-9]{1,9})?)\)?"
_STEP = re.compile(rf"(?<![0-9./]){_NUMBER} *([-+*/]) *{_NUMBER} *= *{_NUMBER}(?![0-9])", re.ASCII)
_LIST = r"\bnumbers?\s*:?((?:[\s,]+(?:and\s+)?[0-9]{1,9}){2,10})"
_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_TRACE = re.compile(rf"\s*{_LIST}[\s,;]+target\s*:?\s*([0-9]{{1,9}})\s*\.?\s*", _FLAGS)
_WORDS = re.compile(rf"{_LIST}\b.{{0,120}}?\bmakes?\s+([0-9]{{1,9}})\b", _FLAGS)
_BARE = re.compile(r"\s*([0-9]{1,9}(?:[\s,]+[0-9]{1,9}){3})\s*", re.ASCII)


@dataclass(frozen=True)
class ArithmeticStep:
    """A correct step: two of the numbers, an operator, and the exact result."""

    left: Fraction
    op: str
    right: Fraction
    result: Fraction

    def __str__(self) -> str:
        return f"{shown(self.left)} {self.op} {shown(self.right)} = {shown(self.result)}"


def trace_problem(text: str) -> Problem | None:
    """The problem in a text of exactly the form ``Numbers 3 5 8 9 target 24``; None for any other text."""
    if len(text) > LONGEST_PROBLEM:
        return None
    match = _TRACE.fullmatch(text)
    return _problem(match[1], match[2]) if match else None


def stated_problem(text: str) -> Problem | None:
    """The number game that a text states; None if it states none.

    The forms are that of `trace_problem`, four numbers alone (Game of 24), and sentences with ``numbers 3 5 8 9``
    followed by ``make 24``.
    """
    if problem := trace_problem(text):
        return problem
    if len(text) <= LONGEST_PROBLEM and (match := _BARE.fullmatch(text)):
        return _problem(match[1], "24")
    match = _WORDS.search(text[:LONGEST_PROBLEM])
    return _problem(match[1], match[2]) if match else None


def _problem(numbers: str, target: str) -> Problem:
    return Problem(tuple(int(number) for number in re.findall(r"[0-9]+", numbers)), int(target))


def shown(number: Fraction) -> str:
    """A number as text: ``5``, ``(8/3)``, ``(-4)``."""
    return str(number) if number.denominator == 1 and number >= 0 else f"({number})"


def read_step(line: str, left: Sequence[Fraction]) -> ArithmeticStep | None:
    """The first step in a line, if it takes two of the numbers left and its result is correct; else None.

    A decimal number matches a number left, or the result, that rounds to it.
    """
    match = _STEP.search(line.translate(_SPELLINGS))
    if match is None:
        return None
    first, op, second, claimed = match.groups()
    for a in _matching(first, left):
        others = list(left)
        others.remove(a)
        for b in _matching(second, others):
            result = _result(a, op, b)
            if result is not None and _matching(claimed, [result]):
                return ArithmeticStep(a, op, b, result)
    return None


def looks_like_a_step(line: str) -> bool:
    """Whether a line claims that an operation on two numbers has a result."""
    return _STEP.search(line.translate(_SPELLINGS)) is not None


def _matching(written: str, numbers: Sequence[Fraction]) -> list[Fraction]:
    """The numbers that a written number can stand for."""
    try:
        value = Fraction(written)
    except ZeroDivisionError:
        return []
    digits = len(written.partition(".")[2])
    return [each for each in numbers if each == value or (digits and abs(each - value) * 2 * 10**digits <= 1)]


def _result(a: Fraction, op: str, b: Fraction) -> Fraction | None:
    """`a op b`, by the parser that grades answers; None after a division by zero, or if a number is too large."""
    try:
        return parse(f"{_operand(a)} {op} {_operand(b)}").value
    except ExpressionError:
        return None


def _operand(number: Fraction) -> str:
    sign = "0 - " if number < 0 else ""
    return f"({sign}{abs(number.numerator)} / {number.denominator})"


def apply(left: Sequence[Fraction], step: ArithmeticStep) -> tuple[Fraction, ...]:
    """The numbers left after a step: both operands are removed, and the result is appended."""
    rest = list(left)
    rest.remove(step.left)
    rest.remove(step.right)
    return (*rest, step.result)


def expressions(numbers: Sequence[int], steps: Sequence[ArithmeticStep]) -> list[str]:
    """For each number left after `steps`, its expression in terms of the original numbers."""
    made = [(Fraction(number), str(number)) for number in numbers]
    for step in steps:
        parts = [_take(made, number) for number in (step.left, step.right)]
        made.append((step.result, f"({parts[0]} {step.op} {parts[1]})"))
    return [expression for _, expression in made]


def _take(made: list[tuple[Fraction, str]], number: Fraction) -> str:
    place = next(place for place, (result, _) in enumerate(made) if result == number)
    return made.pop(place)[1]
