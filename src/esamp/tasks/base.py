"""Tasks: a list of problems with prompts, and a grader for the texts that a model writes after them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from typing_extensions import override

from esamp.options import Options


@dataclass(frozen=True)
class Item:
    """One problem. `id` never changes, so that stored records can refer to it; `data` is what grading it needs."""

    id: str
    prompt: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """The verdict on one text."""

    correct: bool
    answer: str | None
    """the answer found in the text; None if there is none"""
    canonical: str | None
    """the answer in a form that equal answers share; None if the answer cannot be parsed"""
    reason: str
    """an explanation of the verdict for readers"""


UNGRADED = Grade(False, None, None, "not graded")
"""The grade of every text of a task that has no right answers."""


class Task(ABC):
    """A set of items and the rule by which texts are graded. Found by entry point (`esamp.tasks`)."""

    name: ClassVar[str]
    """the task's name in commands and reports"""
    summary: ClassVar[str]
    """one line for lists"""
    source: ClassVar[str]
    """who made it and where its items are from"""
    options: ClassVar[type[Options]]
    """the class of its options, such as which variant or which file to load"""
    private: ClassVar[bool] = False
    """whether its authors ask that no item be published: then no text of a prompt or sample is stored or printed"""
    graded: ClassVar[bool] = True
    """whether texts can be right; if not, reports leave out the measures that count right answers"""
    chat: ClassVar[bool] = True
    """whether a chat model gets the prompts as user messages; if not, they bypass the chat template"""

    @classmethod
    @abstractmethod
    def build(cls, options: Options) -> Self:
        """Load the items.

        Raises:
            InputError: the items cannot be loaded; the message names the option that takes a local file.
        """

    @abstractmethod
    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The items of a split, always the same ones in the same order.

        Args:
            split: a name that the task defines; None for its default split.
            limit: return only this many items from the beginning; None for all.
        """

    @abstractmethod
    def grade(self, item: Item, text: str) -> Grade:
        """Grade a model's text. The text is untrusted: every string gets a grade, in bounded time."""


class ItemsTask(Task):
    """A task with one fixed list of items. It has no splits and ignores that argument."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = list(items)

    @override
    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        return self._items[:limit]
