"""Scorer functions for searches: valid ones, and ones that return too few numbers or no numbers at all."""

from collections.abc import Sequence


def vowels(prompt: object, texts: Sequence[str]) -> list[float]:
    """The number of vowels."""
    return [float(sum(letter in "aeiou" for letter in text)) for text in texts]


def length_or_not_finite(prompt: object, texts: Sequence[str]) -> list[float]:
    """The length; NaN for a text with an x, infinity for one with a y."""
    return [float("nan") if "x" in text else float("inf") if "y" in text else float(len(text)) for text in texts]


def too_few(prompt: object, texts: Sequence[str]) -> list[float]:
    return [1.0]


def words(prompt: object, texts: Sequence[str]) -> list[str]:
    return ["good" for _ in texts]


def nothing(prompt: object, texts: Sequence[str]) -> None:
    return None


NOT_A_FUNCTION = 7
