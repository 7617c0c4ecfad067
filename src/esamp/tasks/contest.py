r"""AIME 2024, AIME 2025 and AMC 2023: answers are whole numbers in the last ``\boxed{}``, and nothing else counts."""

from typing import Literal, Self

from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Grade, Item, Task
from esamp.tasks.boxed import last_boxed
from esamp.tasks.numerals import number
from esamp.tasks.sources import SourceOptions
from esamp.tasks.thought import without_thought

HUB = {"aime24": "HuggingFaceH4/aime_2024", "aime25": "MathArena/aime_2025", "amc23": "math-ai/amc23"}
SPLIT = {"aime24": "train", "aime25": "train", "amc23": "test"}
ASK = "Please reason step by step, and put your final answer within \\boxed{}."
LONGEST = 13
"""Digits and sign of a whole number."""


class ContestOptions(SourceOptions):
    """Options of the contests."""

    contest: Literal["aime24", "aime25", "amc23"] = "aime24"
    """which one: 30, 30 and 40 problems"""


class Contest(Task):
    r"""Whole-number answers.

    Graded is the last ``\boxed{}`` that says something, outside of thoughts: a whole number, in any of the forms in
    which one is written. There is no fallback to the last number of a text: one that was cut off has no answer.
    """

    name = "aime"
    summary = "AIME 2024, AIME 2025, AMC 2023: whole-number answers in a box"
    source = "Mathematical Association of America, as on the Hugging Face hub"
    options = ContestOptions

    def __init__(self, contest: str, rows: list[Item]) -> None:
        """Use `build`."""
        self.contest, self._items = contest, rows

    @classmethod
    def build(cls, options: Options) -> Self:
        """Load the problems.

        Raises:
            InputError: they cannot be loaded.
        """
        wanted = narrowed(options, ContestOptions)
        rows = sources.load(wanted, HUB[wanted.contest], split=SPLIT[wanted.contest])
        items = []
        for place, row in enumerate(rows):
            where = f"{wanted.contest}, problem {place + 1}"
            text = str(sources.field(where, row, "prompt", "problem", "question", "Problem"))
            answer = whole(str(sources.field(where, row, "answer", "Answer")))
            if answer is None:
                raise InputError(f"{where}: its answer is not a whole number")
            prompt = text if "\\boxed" in text else f"{text}\n{ASK}"
            items.append(Item(f"{wanted.contest}/{place:02d}", prompt, {"answer": answer}))
        return cls(wanted.contest, items)

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The problems in the order of the contest."""
        return self._items[:limit]

    def grade(self, item: Item, text: str) -> Grade:
        """The whole number in the last box."""
        boxed = last_boxed(without_thought(text))
        if boxed is None:
            return Grade(False, None, None, "no box")
        found = whole(boxed)
        if found is None:
            return Grade(False, boxed, None, "not a whole number")
        right = found == item.data["answer"]
        return Grade(right, boxed, str(found), "correct" if right else f"{found} is wrong")


def whole(text: str) -> int | None:
    r"""The whole number that an answer consists of: ``073``, ``73.0``, ``1\,234``, ``\textbf{73}``, ``m+n = 73``."""
    found = number(text)
    return int(found) if found is not None and "." not in found and len(found) <= LONGEST else None
