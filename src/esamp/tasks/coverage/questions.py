"""The questions and right answers in ``questions.jsonl``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Question:
    """One question and its right answers."""

    id: str
    prompt: str
    closed: bool
    """whether `answers` is complete, disputed cases included; if not, it is a large selection"""
    plural: bool
    """whether plurals of the answers are accepted"""
    words: tuple[str, ...]
    """words that may stand beside an answer, in addition to those of the prompt"""
    others: tuple[str, ...]
    """phrases that contain an answer but are not one, such as "Kansas City" """
    answers: Mapping[str, tuple[str, ...]]
    """every right answer with its other names"""

    @property
    def data(self) -> dict[str, Any]:
        """Everything that grades depend on, as JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("id", "prompt")}


@lru_cache(maxsize=1)
def questions() -> tuple[Question, ...]:
    """All questions in the order of the file. The lists of answers were written for this package."""
    text = files(__package__).joinpath("questions.jsonl").read_text(encoding="utf-8")
    return tuple(_question(json.loads(line)) for line in text.splitlines())


def _question(row: Mapping[str, Any]) -> Question:
    answers = {name: tuple(aliases) for name, aliases in row["answers"].items()}
    return Question(
        row["id"], row["prompt"], row["closed"], row["plural"], tuple(row["words"]), tuple(row["not"]), answers
    )
