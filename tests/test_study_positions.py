"""Similarity over positions: hand-computed with chosen vectors, and against the definition."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from esamp.analysis.positions import POSITIONS, WINDOW, similarity


class Angles:
    """An embedder that maps a text to the unit vector at the angle in its first word, in degrees, and records calls."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        angles = np.radians([float(text.split()[0]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def words(*angles: int, length: int) -> str:
    """A text of `length` words; the words at the windows' positions are the angles, in turn."""
    own = ["w"] * length
    for at, angle in zip(POSITIONS, angles, strict=False):
        own[at] = str(angle)
    return " ".join(own)


def test_similarities_match_hand_computed_values() -> None:
    """Angles of 0, 60 and 90 degrees: pairs 60, 30 and 90 apart; then 0 and 60; then one text alone."""
    encode = Angles()
    texts = [
        words(0, 0, 0, length=WINDOW + POSITIONS[2]),
        words(60, 60, length=WINDOW + POSITIONS[1]),
        words(90, length=WINDOW + POSITIONS[1] - 1),  # a word short of the second window
        words(length=WINDOW - 1),  # a word short of the first
        "",
    ]
    found = similarity(texts, encode)
    assert len(found) == len(POSITIONS)
    assert found[0] == pytest.approx((0.5 + math.sqrt(3) / 2 + 0) / 3, abs=1e-6)
    assert found[1] == pytest.approx(0.5, abs=1e-6)
    assert all(math.isnan(value) for value in found[2:])


def test_all_windows_are_embedded_in_one_call_without_repeats() -> None:
    encode = Angles()
    same = words(0, 30, length=WINDOW + POSITIONS[1])
    assert similarity([same, same, same], encode)[:2] == pytest.approx((1.0, 1.0))
    (asked,) = encode.asked
    assert len(asked) == len(set(asked)) == 2
    assert all(len(text.split()) == WINDOW for text in asked)


@pytest.mark.parametrize("texts", [[], [""], ["too short", "this as well"]], ids=["none", "empty", "short"])
def test_short_texts_are_not_embedded(texts: list[str]) -> None:
    encode = Angles()
    assert all(math.isnan(value) for value in similarity(texts, encode))
    assert encode.asked == []


def test_windows_keep_the_spaces_and_lines_of_the_text() -> None:
    seen: list[str] = []

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.extend(texts)
        return np.ones((len(texts), 1), np.float32)

    text = "\n\n" + "one two\n" * (WINDOW // 2) + " three"
    similarity([text, text], encode)
    assert seen == [("one two\n" * (WINDOW // 2)).strip()]


def test_ideographs_are_words() -> None:
    seen: list[str] = []

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.extend(texts)
        return np.ones((len(texts), 1), np.float32)

    similarity(["猫" * (WINDOW - 1) + "cat犬", "犬"], encode)
    assert seen == ["猫" * (WINDOW - 1) + "cat"]


def test_similarities_fall_where_texts_diverge() -> None:
    """Samples with the same beginning: similarity falls and equals the definition. Vectors count letters."""

    def letters(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)

    opening = "The old ship left the harbour at dawn and the sailors sang while gulls circled above the mast. " * 2
    endings = [
        "Prime numbers have no divisors but one and themselves, which Euclid used to prove there are many. " * 4,
        "Chop two onions, fry them slowly in butter, add the flour and stir until the sauce is thick. " * 4,
        "zzz " * 64,
    ]
    texts = [opening + ending for ending in endings]
    found = similarity(texts, letters)
    for place, at in enumerate(POSITIONS[:3]):
        rows = letters([" ".join(text.split()[at : at + WINDOW]) for text in texts]).astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        pairs = [rows[i] @ rows[j] for i in range(3) for j in range(i)]
        assert found[place] == pytest.approx(sum(pairs) / 3, abs=1e-5)
    assert found[0] == pytest.approx(1.0)
    assert found[1] < 0.99
    assert found[2] < 0.5
