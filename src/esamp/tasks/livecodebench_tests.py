"""The tests of LiveCodeBench's problems. The sandbox's judge runs this text: standard library only, no relatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs agree: line by line without white space at the ends, or as the same numbers."""
    lines, wanted = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    return len(lines) == len(wanted) and all(a == b or same_numbers(a, b) for a, b in zip(lines, wanted, strict=True))


def same_numbers(line: str, wanted: str) -> bool:
    """Whether two lines hold the same numbers however they are written, such as ``1.50`` and ``1.5``.

    They are compared exactly; only where nine decimals or more are expected, a number printed with more decimals counts
    if it is the expected one when it is rounded.
    """
    try:
        printed, expected = ([Decimal(word) for word in each.split()] for each in (line, wanted))
        return len(printed) == len(expected) and all(
            one == two or rounds_to(one, two) for one, two in zip(printed, expected, strict=True)
        )
    except InvalidOperation:
        return False


def rounds_to(printed: Decimal, expected: Decimal) -> bool:
    """Whether a number with more decimals is the expected one, rounded to as many decimals as that has."""
    if not (printed.is_finite() and expected.is_finite()):
        return False
    decimals, more = (-int(each.as_tuple().exponent) for each in (expected, printed))
    return (
        9 <= decimals <= 20 and decimals < more <= 400 and abs(printed - expected) <= Decimal(5).scaleb(-decimals - 1)
    )


def programs(run: Callable[[str], tuple[int, str, str]], cases: Sequence[tuple[str, str]]) -> None:
    """Run a program on every input.

    Raises:
        AssertionError: a run failed or printed something else; tells its place, never what was expected.
    """
    for place, (text, expected) in enumerate(cases, 1):
        code, printed, error = run(text)
        if code:
            raise AssertionError(f"test {place} of {len(cases)}: {error or f'ended with {code}'}")
        if not same_output(printed, expected):
            raise AssertionError(f"test {place} of {len(cases)}: another output")


def calls(find: Callable[[], Callable[..., Any]], cases: Sequence[tuple[Sequence[Any], Any]]) -> None:
    """Call a function with all arguments. A tuple counts as the list of the same values.

    Raises:
        AssertionError: it gave something else; tells the place, never what was expected.
    """
    for place, (arguments, expected) in enumerate(cases, 1):
        found = find()(*arguments)
        if (list(found) if isinstance(found, tuple) else found) != expected:
            raise AssertionError(f"test {place} of {len(cases)}: another result")
