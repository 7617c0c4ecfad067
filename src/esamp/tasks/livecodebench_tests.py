"""The tests of LiveCodeBench's problems.

The sandbox runs the text of this file, so it may import only the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any


def same_output(printed: str, expected: str) -> bool:
    """Whether the lines of two outputs are equal, apart from white space at their ends, or hold the same numbers."""
    lines, wanted = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    return len(lines) == len(wanted) and all(a == b or same_numbers(a, b) for a, b in zip(lines, wanted, strict=True))


def same_numbers(line: str, wanted: str) -> bool:
    """Whether two lines hold the same numbers in any notation, such as ``1.50`` and ``1.5``.

    Numbers are compared exactly, except that where nine or more decimals are expected, a number printed with more
    decimals is rounded to as many.
    """
    try:
        printed, expected = ([Decimal(word) for word in each.split()] for each in (line, wanted))
        return len(printed) == len(expected) and all(
            one == two or rounds_to(one, two) for one, two in zip(printed, expected, strict=True)
        )
    except InvalidOperation:
        return False


def rounds_to(printed: Decimal, expected: Decimal) -> bool:
    """Whether `printed`, rounded to the decimals of `expected`, equals it; False outside of 9 to 20 decimals."""
    if not (printed.is_finite() and expected.is_finite()):
        return False
    decimals, more = (-int(each.as_tuple().exponent) for each in (expected, printed))
    return (
        9 <= decimals <= 20 and decimals < more <= 400 and abs(printed - expected) <= Decimal(5).scaleb(-decimals - 1)
    )


def programs(run: Callable[[str], tuple[int, str, str]], cases: Sequence[tuple[str, str]]) -> None:
    """Run a program on every input.

    Raises:
        AssertionError: a run failed or printed something else. The message names the test, not the expected output.
    """
    for place, (text, expected) in enumerate(cases, 1):
        code, printed, error = run(text)
        if code:
            raise AssertionError(f"test {place} of {len(cases)}: {error or f'ended with {code}'}")
        if not same_output(printed, expected):
            raise AssertionError(f"test {place} of {len(cases)}: another output")


def calls(find: Callable[[], Callable[..., Any]], cases: Sequence[tuple[Sequence[Any], Any]]) -> None:
    """Call a function with the arguments of every test. A returned tuple counts as a list of the same values.

    Raises:
        AssertionError: a result differs. The message names the test, not the expected result.
    """
    for place, (arguments, expected) in enumerate(cases, 1):
        result = find()(*arguments)
        if (list(result) if isinstance(result, tuple) else result) != expected:
            raise AssertionError(f"test {place} of {len(cases)}: another result")
