"""The code of `MathVerifier`'s process: equality by `math-verify`, with its verdicts checked numerically."""

import logging
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from esamp.tasks.verifier_process import limit_memory

MEMORY = 2 << 30
DIGITS = 30
EXACT, ROUNDED = 1e-12, 5e-6
"""Largest relative difference of equal numbers, for exact numbers and for decimal fractions."""
POINTS = ((1.37, 2.61, 0.73, 3.19), (0.41, 1.83, 2.27, 0.59), (-1.37, 2.61, -0.73, 3.19), (-0.41, -1.83, -2.27, -0.59))
"""Values of the variables at which expressions are compared; the first two points are positive."""


def start(_: object) -> Callable[[Sequence[str]], bool]:
    """Import the libraries and limit the memory of this process.

    Raises:
        ModuleNotFoundError: math-verify is not installed.
    """
    import math_verify  # noqa: F401
    import sympy  # noqa: F401

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    limit_memory(MEMORY)
    return lambda request: equal(request[0], request[1])


def equal(gold: str, answer: str) -> bool:
    """Whether two formulas are equal.

    `math-verify` decides, with two corrections. It accepts small numbers whose first six decimals agree, so what it
    accepts is checked by relative differences. It simplifies without assumptions about variables, so what it rejects is
    checked again for positive variables.
    """
    from math_verify import parse, verify

    wanted, given = (parse(f"${each}$", parsing_timeout=None) for each in (gold, answer))
    expressions = [[each for each in found if not isinstance(each, str)] for found in (wanted, given)]
    if verify(wanted, given, timeout_seconds=None):
        return all(_agree(one, two) for one, two in product(*expressions))
    return any(_equal_if_positive(one, two) for one, two in product(*expressions))


def _agree(one: Any, two: Any) -> bool:
    """Whether two objects agree in all numbers that can be compared, element by element."""
    from sympy import Eq, Expr, Interval, MatrixBase, Tuple
    from sympy import FiniteSet as Finite

    one, two = (each.rhs if isinstance(each, Eq) and each.lhs.is_Symbol else each for each in (one, two))
    if isinstance(one, Expr) and isinstance(two, Expr):
        return _expressions_agree(one, two)
    elements = []
    for each in (one, two):
        if isinstance(each, MatrixBase):
            elements.append(list(each.flat()))
        elif isinstance(each, Interval):
            elements.append([each.start, each.end])
        elif isinstance(each, Finite | Tuple):
            elements.append(list(each.args))
        else:
            return True
    if len(elements[0]) != len(elements[1]) or not all(isinstance(each, Expr) for each in (*elements[0], *elements[1])):
        return True
    pairs = zip(*(sorted(each, key=_order) for each in elements), strict=True)
    return all(_expressions_agree(first, second) for first, second in pairs)


def _expressions_agree(one: Any, two: Any) -> bool:
    """Whether two expressions have the same value at the points where both have one."""
    for first, second in product(_values(one), _values(two)):
        if first == second:
            return True
        if first.is_Rational and second.is_Rational:
            continue
        symbols = sorted(first.free_symbols | second.free_symbols, key=str)
        limit = ROUNDED if _rounded(first) or _rounded(second) else EXACT
        points = POINTS[:2] if symbols else POINTS[:1]
        differences = [_difference(first, second, symbols, point) for point in points]
        if all(each is None or each <= limit for each in differences):
            return True
    return False


def _values(expression: Any) -> list[Any]:
    """The value of an expression, and for a percentage also the number before the sign."""
    from sympy import Mul, Rational, UnevaluatedExpr

    sign = UnevaluatedExpr(Rational(1, 100))
    values = [expression.doit()]
    if isinstance(expression, Mul) and sign in expression.args:
        values.append(Mul(*(each for each in expression.args if each != sign)).doit())
    return values


def _rounded(expression: Any) -> bool:
    from sympy import Float

    return bool(expression.has(Float))


def _order(expression: Any) -> tuple[float, str]:
    from sympy import N

    value = N(expression.doit())
    return (float(value) if value.is_real and value.is_number else 0.0), str(expression)


def _difference(one: Any, two: Any, symbols: Sequence[Any], point: Sequence[float]) -> float | None:
    """The relative difference at a point; None where one of the two is not a real number there."""
    from sympy import Rational

    values = {symbol: Rational(str(point[place % len(point)])) for place, symbol in enumerate(symbols)}
    first, second = (each.subs(values).evalf(DIGITS) for each in (one, two))
    if not all(each.is_number and each.is_finite for each in (first, second)):
        return None
    if symbols and not all(each.is_real for each in (first, second)):
        return None
    size = max(abs(first), abs(second))
    return float(abs(first - second) / size) if size else 0.0


def _equal_if_positive(one: Any, two: Any) -> bool:
    r"""Whether two expressions are equal for positive variables and differ at no point where both are real.

    So :math:`1/\sqrt n` equals :math:`\sqrt{1/n}`, but x does not equal \|x\|.
    """
    from sympy import Expr, Symbol, simplify

    if not (isinstance(one, Expr) and isinstance(two, Expr)) or one.free_symbols != two.free_symbols:
        return False
    symbols = sorted(one.free_symbols, key=str)
    if not symbols or _rounded(one) or _rounded(two):
        return False
    differences = [_difference(one, two, symbols, point) for point in POINTS]
    if any(each is not None and each > EXACT for each in differences) or all(each is None for each in differences[:2]):
        return False
    positive = {symbol: Symbol(symbol.name, positive=True) for symbol in symbols}
    return bool(simplify(one.subs(positive) - two.subs(positive)) == 0)
