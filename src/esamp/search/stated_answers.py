"""Reads several answers with stated probabilities from one text. Accepts any string and takes linear time."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LONGEST = 1 << 20
"""Most characters that are read; the rest of a text is ignored."""
ATTEMPTS = 64
"""Failed attempts to parse JSON after which the rest of a text is skipped."""
TEXT_NAMES, PROBABILITY_NAMES = ("text", "response", "answer"), ("probability", "prob", "p")

_TAG = re.compile(r"<(/?)(response|text|probability)\b[^<>]*>", re.IGNORECASE | re.ASCII)
_OPENING = re.compile(r"[\[{]")
_NUMBER = re.compile(r"\s*([0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:e([-+]?[0-9]{1,3}))?\s*(%?)\s*", re.ASCII)


@dataclass(frozen=True)
class StatedAnswer:
    """One answer of several in a text."""

    text: str
    probability: float | None
    """from 0 to 1 as the model stated it; None if it stated none, or no number in this range"""
    whole: bool = True
    """False if the text ended before the answer did"""


def parse(text: str) -> list[StatedAnswer]:
    """The answers in `text`, in their order; an empty list if it has none in either format.

    The formats are ``<response><text>...</text><probability>...</probability></response>`` and JSON objects with a
    ``text`` and a ``probability``, anywhere in the text and nested in other JSON values. Empty answers are dropped.
    """
    text = text[:LONGEST]
    parts = list(_tagged(text)) or list(_json(text))
    return [each for each in parts if each.text]


def weights(probabilities: Sequence[float | None]) -> list[float]:
    """Stated probabilities as a distribution: ``p_i / sum p``.

    A missing probability is replaced by the mean of the others. If all are missing or zero, the weights are equal.
    """
    stated = [value for value in probabilities if value is not None]
    mean = math.fsum(stated) / len(stated) if stated else 1.0
    filled = [mean if value is None else value for value in probabilities]
    total = math.fsum(filled)
    return [value / total for value in filled] if total > 0 else [1 / len(filled)] * len(filled)


# ---- tags


def _tagged(text: str) -> Iterator[StatedAnswer]:
    tags = list(_TAG.finditer(text))
    opening = [place for place, tag in enumerate(tags) if _is(tag, "response")]
    opening = opening or [place for place, tag in enumerate(tags) if _is(tag, "text")]
    for place, until in pairwise([*opening, len(tags)]):
        end = tags[until].start() if until < len(tags) else len(text)
        yield _one(text, tags[place:until], end)


def _one(text: str, tags: Sequence[re.Match[str]], end: int) -> StatedAnswer:
    """The answer of one response, whose `tags` start with the opening one and stop before `end`, the next response."""
    closed = next((tag for tag in tags if _is(tag, "response", closing=True)), None)
    if closed is not None:
        end = closed.start()
    tags = [tag for tag in tags if tag.start() < end]
    text_start = next((tag for tag in tags if _is(tag, "text")), tags[0])
    text_end = next((tag for tag in tags if tag.start() >= text_start.end()), None)
    number = next((tag for tag in tags if _is(tag, "probability")), None)
    if number is not None and number.start() < text_start.start():  # the probability comes before the text
        text_end = next((tag for tag in tags if _is(tag, "text", closing=True)), closed)
    probability = None if number is None else _probability(text[number.end() : end].partition("<")[0])
    written = text[text_start.end() : end if text_end is None else min(text_end.start(), end)]
    return StatedAnswer(written.strip(), probability, whole=text_end is not None or end < len(text))


def _is(tag: re.Match[str], name: str, *, closing: bool = False) -> bool:
    return tag[2].lower() == name and (tag[1] == "/") == closing


# ---- JSON


def _json(text: str) -> Iterator[StatedAnswer]:
    """The answers in all JSON values of the text. Of a value that was cut off, its complete objects are read."""
    decoder = json.JSONDecoder(parse_constant=lambda name: None)
    at, failures = 0, 0
    while failures < ATTEMPTS:
        start = _OPENING.search(text, at)
        if start is None:
            return
        at = start.start()
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at, failures = at + 1, failures + 1
            continue
        yield from _objects(value)


def _objects(value: Any) -> Iterator[StatedAnswer]:
    """The answers in a JSON value and in what it holds, three levels deep; breadth first."""
    level = [value]
    for _ in range(4):
        below: list[Any] = []
        for each in level:
            answer = _answer(each) if isinstance(each, dict) else None
            if answer is not None:
                yield answer
            elif isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        level = below


def _answer(value: Mapping[str, Any]) -> StatedAnswer | None:
    text = next((value[name] for name in TEXT_NAMES if isinstance(value.get(name), str | int | float)), None)
    if text is None or isinstance(text, bool):
        return None
    number = next((value[name] for name in PROBABILITY_NAMES if name in value), None)
    return StatedAnswer(str(text).strip(), _probability(number))


def _probability(value: object) -> float | None:
    """`value` as a number from 0 to 1; texts may be ``0.25`` or ``25%``. None for anything else."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value[:100])
        if match is None:
            return None
        value = float(f"{match[1]}e{match[2] or 0}") / (100 if match[3] else 1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1 else None
