r"""AIME 2024, AIME 2025 and AMC 2023: answers are whole numbers in the last ``\boxed{}``, and nothing else counts."""

from typing import Literal, Self

from typing_extensions import override

from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item
from esamp.tasks.boxed import last_boxed
from esamp.tasks.numerals import number
from esamp.tasks.rows import RowsTask
from esamp.tasks.sources import DataSet, Row, SourceOptions
from esamp.tasks.thought import without_thought

DATA_SETS = {
    "aime24": DataSet("HuggingFaceH4/aime_2024", split="train"),
    "aime25": DataSet("MathArena/aime_2025", split="train"),
    "amc23": DataSet("math-ai/amc23", split="test"),
}
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
LONGEST = 13
"""Digits and sign of a whole number."""


class ContestOptions(SourceOptions):
    """Options of the contests."""

    contest: Literal["aime24", "aime25", "amc23"] = "aime24"
    """which contest: 30, 30 and 40 problems"""


class Contest(RowsTask):
    r"""Whole-number answers.

    The last non-empty ``\boxed{}`` outside of thoughts is graded: a whole number in any of its usual forms. There is
    no fallback to the last number of a text, so a text that was cut off has no answer.
    """

    name = "aime"
    summary = "AIME 2024, AIME 2025, AMC 2023: whole-number answers in a box"
    source = "Mathematical Association of America, as on the Hugging Face hub"
    options = ContestOptions

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        contest = narrowed(options, ContestOptions).contest
        return cls(cls.load_items(options, DATA_SETS[contest], contest))

    @classmethod
    @override
    def item(cls, row: Row) -> Item:
        problem = row.text("prompt", "problem", "question", "Problem")
        answer = whole(row.text("answer", "Answer"))
        if answer is None:
            raise InputError(f"{row.where}: its answer is not a whole number")
        prompt = problem if "\\boxed" in problem else f"{problem}\n{INSTRUCTION}"
        return Item(f"{row.source}/{row.place:02d}", prompt, {"answer": answer})

    @override
    def grade(self, item: Item, text: str) -> Grade:
        boxed = last_boxed(without_thought(text))
        if boxed is None:
            return Grade(False, None, None, "no box")
        found = whole(boxed)
        if found is None:
            return Grade(False, boxed, None, "not a whole number")
        correct = found == item.data["answer"]
        return Grade(correct, boxed, str(found), "correct" if correct else f"{found} is wrong")


def whole(text: str) -> int | None:
    r"""The whole number that an answer consists of: ``073``, ``73.0``, ``1\,234``, ``\textbf{73}``, ``m+n = 73``."""
    found = number(text)
    return int(found) if found is not None and "." not in found and len(found) <= LONGEST else None
