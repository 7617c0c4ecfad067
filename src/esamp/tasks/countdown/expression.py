"""Arithmetic expressions from untrusted text: a bounded parser, exact values, and a canonical form.

Sums and differences are flattened into one sorted sum of signed terms, products and quotients into one sorted product
of factors and divisors; signs move outwards. Two expressions have the same canonical form when they differ only in the
order of operands, in brackets, in the position of minus signs (a - (c - b) is (a + b) - c), or in dividing by a value
of one instead of multiplying by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MAX_LENGTH = 400  # characters
MAX_DEPTH = 32  # nested brackets
MAX_DIGITS = 9

_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])", re.ASCII)
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})


class ExpressionError(ValueError):
    """The text is not an arithmetic expression within the bounds, or it divides by zero."""


@dataclass(frozen=True)
class Form:
    """A canonical expression without its sign, so that `value` >= 0.

    `operands` are the terms of a sum with their signs, or the factors (1) and divisors (-1) of a product.
    """

    kind: Literal["number", "sum", "product"]
    value: Fraction
    text: str
    operands: tuple[tuple[int, Form], ...] = ()


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its exact value, the numbers in it from left to right, and its canonical form."""

    value: Fraction
    numbers: tuple[int, ...]
    canonical: str


Signed = tuple[int, Form]  # (1 or -1, form)


def number(value: int) -> Form:
    """The form of a number >= 0."""
    return Form("number", Fraction(value), str(value))


def _order(operand: Signed) -> tuple[int, Fraction, str]:
    sign, form = operand
    return -sign, -form.value, form.text


def sum_of(terms: list[Signed]) -> Signed:
    """The canonical form of a signed sum."""
    operands: list[Signed] = []
    for sign, form in terms:
        inner = form.operands if form.kind == "sum" else ((1, form),)
        operands += [(sign * s if term.value else 1, term) for s, term in inner]
    total = sum((sign * form.value for sign, form in operands), Fraction(0))
    flipped = [(-sign if form.value else 1, form) for sign, form in operands]
    operands.sort(key=_order)
    flipped.sort(key=_order)
    outer = 1
    if total < 0:
        operands, outer = flipped, -1
    elif total == 0:
        operands = min(operands, flipped, key=lambda option: [_order(term) for term in option])
    text = operands[0][1].text + "".join(f" {'+' if sign > 0 else '-'} {form.text}" for sign, form in operands[1:])
    return outer, Form("sum", abs(total), text, tuple(operands))


def product_of(factors: list[tuple[int, Signed]]) -> Signed:
    """The canonical form of a product; each factor comes with its exponent, 1 or -1."""
    operands: list[Signed] = []
    outer, value = 1, Fraction(1)
    for exponent, (sign, form) in factors:
        if exponent < 0 and not form.value:
            raise ExpressionError("division by zero")
        outer *= sign
        value *= form.value**exponent
        inner = form.operands if form.kind == "product" else ((1, form),)
        operands += [(exponent * e if factor.value != 1 else 1, factor) for e, factor in inner]
    operands.sort(key=_order)
    written = [f"({form.text})" if form.kind == "sum" else form.text for _, form in operands]
    signs = ["*" if exponent > 0 else "/" for exponent, _ in operands]
    text = " ".join([written[0], *(f"{sign} {factor}" for sign, factor in zip(signs[1:], written[1:], strict=True))])
    return outer if value else 1, Form("product", value, text, tuple(operands))


class _Parser:
    """A recursive-descent parser. Only brackets deepen the recursion, so `MAX_DEPTH` bounds it."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionError(f"longer than {MAX_LENGTH} characters")
        text = text.translate(_SPELLINGS).strip()
        self.tokens: list[str] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ExpressionError(f"unexpected {text[at : at + 10].strip()!r}")
            self.tokens.append(match[1])
            at = match.end()
        self.tokens.append("")
        self.at = 0
        self.numbers: list[int] = []

    def take(self, allowed: str) -> str:
        """The current token if it is one of the allowed characters, else the empty string."""
        token = self.tokens[self.at]
        if token and token in allowed:
            self.at += 1
            return token
        return ""

    def sum(self, depth: int) -> Signed:
        terms = [self.product(depth)]
        while op := self.take("+-"):
            sign, form = self.product(depth)
            terms.append((sign if op == "+" else -sign, form))
        return terms[0] if len(terms) == 1 else sum_of(terms)

    def product(self, depth: int) -> Signed:
        factors = [(1, self.atom(depth))]
        while op := self.take("*/"):
            factors.append((1 if op == "*" else -1, self.atom(depth)))
        return factors[0][1] if len(factors) == 1 else product_of(factors)

    def atom(self, depth: int) -> Signed:
        token = self.tokens[self.at]
        if self.take("("):
            if depth >= MAX_DEPTH:
                raise ExpressionError(f"brackets nested deeper than {MAX_DEPTH}")
            inner = self.sum(depth + 1)
            if not self.take(")"):
                raise ExpressionError("a bracket is not closed")
            return inner
        if not token.isdigit():
            raise ExpressionError(f"a number is missing before {token!r}" if token else "it is incomplete")
        if len(token) > MAX_DIGITS:
            raise ExpressionError(f"a number has more than {MAX_DIGITS} digits")
        self.at += 1
        self.numbers.append(int(token))
        return 1, number(int(token))


def parse(text: str) -> Expression:
    """Parse an expression of numbers >= 0, + - * / and brackets.

    Raises:
        ExpressionError: the text is something else, exceeds a bound or divides by zero.
    """
    parser = _Parser(text)
    sign, form = parser.sum(0)
    if parser.tokens[parser.at]:
        raise ExpressionError(f"unexpected {parser.tokens[parser.at]!r}")
    minus = "" if sign > 0 else "-"
    text = f"-({form.text})" if minus and form.kind == "sum" else minus + form.text
    return Expression(sign * form.value, tuple(parser.numbers), text)


def canonical(text: str) -> str:
    """The canonical form of an expression.

    Raises:
        ExpressionError: the text cannot be parsed.
    """
    return parse(text).canonical
