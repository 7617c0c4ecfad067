"""What a task is: items with prompts, and a grader for the texts that a model writes after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Item:
    """One problem. `id` names it for ever, `data` is what its task needs to grade it."""

    id: str
    prompt: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """The verdict on one text.

    `answer` is what the text gives as its answer, None where it gives none; `canonical` is the same for two answers
    that are the same solution written differently, None where the answer cannot be read; `reason` is for people.
    """

    correct: bool
    answer: str | None
    canonical: str | None
    reason: str


class Task(Protocol):
    """A set of items and the rule by which texts are graded."""

    @property
    def name(self) -> str:
        """How commands and reports call the task."""
        ...

    def items(self, split: str = "test", limit: int | None = None) -> list[Item]:
        """The first `limit` items of a split, always the same in the same order; all of them for None."""
        ...

    def grade(self, item: Item, text: str) -> Grade:
        """Grade what a model wrote. The text is untrusted: any string gets a grade, in bounded time."""
        ...
