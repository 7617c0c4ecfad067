"""`Coverage`: questions with many right answers, such as "Name one US state"."""

from typing import Literal, Self

from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, Task
from esamp.tasks.thought import without_thought

from .answers import Answers
from .questions import Question, questions


class CoverageOptions(Options):
    """Options of the coverage task."""

    answers: Literal["all", "closed", "open"] = "all"
    """which questions: all, those whose list of right answers is complete (closed), or the others (open)"""


class Coverage(Task):
    """Questions that ask for one of many right answers.

    The number of different right answers that a group of samples names says how much of what a model knows its
    samples reach, and the share of right samples what that costs. `Answers` says which answer a text gives.
    """

    name = "coverage"
    summary = "name one of many right answers (a US state, a fruit, a prime): how many do the samples reach?"
    source = "written for this package from general knowledge; the lists of right answers come with it"
    options = CoverageOptions

    def __init__(self, asked: tuple[Question, ...]) -> None:
        """Use `build`."""
        self._questions = {f"{self.name}/{question.id}": question for question in asked}
        self._answers: dict[str, Answers] = {}

    @classmethod
    def build(cls, options: Options) -> Self:
        """Nothing is loaded: the questions come with the package."""
        wanted = narrowed(options, CoverageOptions).answers
        return cls(tuple(each for each in questions() if wanted in ("all", "closed" if each.closed else "open")))

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The questions in the order of the file. An item's data: its right answers, and all that grades depend on."""
        return [Item(name, question.prompt, question.data) for name, question in self._questions.items()][:limit]

    def grade(self, item: Item, text: str) -> Grade:
        """The answer that the text gives, right if it is in the question's list. `canonical` is its first spelling."""
        if item.id not in self._questions:
            raise TypeError(f"{item.id} is no coverage item")
        if item.id not in self._answers:
            self._answers[item.id] = Answers(self._questions[item.id])
        return self._answers[item.id].grade(without_thought(text))
