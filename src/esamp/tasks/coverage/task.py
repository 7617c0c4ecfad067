"""`Coverage`: questions with many right answers, such as "Name one US state"."""

from collections.abc import Sequence
from typing import Literal, Self

from typing_extensions import override

from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, ItemsTask
from esamp.tasks.thought import without_thought

from .answers import Answers
from .questions import Question, questions


class CoverageOptions(Options):
    """Options of the coverage task."""

    answers: Literal["all", "closed", "open"] = "all"
    """which questions: all, those whose list of right answers is complete (closed), or the others (open)"""


class Coverage(ItemsTask):
    """Questions that ask for one of many right answers.

    The number of different right answers in a group of samples measures how much of the model's knowledge the samples
    reach, and the share of right samples measures at what cost. `Answers` defines which answer a text gives. The data
    of an item holds everything that its grades depend on.
    """

    name = "coverage"
    summary = "name one of many right answers (a US state, a fruit, a prime): how many do the samples reach?"
    source = "written for this package from general knowledge; the lists of right answers come with it"
    options = CoverageOptions

    def __init__(self, selected: Sequence[Question]) -> None:
        self._questions = {f"{self.name}/{question.id}": question for question in selected}
        self._answers: dict[str, Answers] = {}
        super().__init__([Item(name, question.prompt, question.data) for name, question in self._questions.items()])

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        wanted = narrowed(options, CoverageOptions).answers
        return cls([each for each in questions() if wanted in ("all", "closed" if each.closed else "open")])

    @override
    def grade(self, item: Item, text: str) -> Grade:
        if item.id not in self._questions:
            raise TypeError(f"{item.id} is not an item of this coverage task")
        if item.id not in self._answers:
            self._answers[item.id] = Answers(self._questions[item.id])
        return self._answers[item.id].grade(without_thought(text))
