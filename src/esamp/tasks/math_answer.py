r"""MATH-500 and GSM8K: the boxed answer, or the one behind ``####``, compared by `math-verify`."""

import re
from collections.abc import Sequence
from typing import ClassVar, Self

from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Grade, Item, Task
from esamp.tasks.boxed import Box, boxes, last_boxed
from esamp.tasks.contest import ASK
from esamp.tasks.final_answer import final_answer
from esamp.tasks.math_text import differ, listed, normal, same_words, without_base
from esamp.tasks.numerals import number, number_in_words
from esamp.tasks.sources import SourceOptions
from esamp.tasks.thought import without_thought
from esamp.tasks.verifier import LONGEST, Verifier

_HASHES = re.compile(r"####[ \t]*\n?([^\n]*)")
BESIDE = 120
"""Characters between two boxes of one list, at most."""
_TAKEN_BACK = re.compile(
    r"\b(?:no|not|wait|wrong|but|instead|actually|hmm|rather|however|mistake|error|correct(?:ed|ion)?|again|check|sorry|"
    r"oops)\b",
    re.IGNORECASE,
)
"""What separates an answer from an earlier one that it replaces."""


class Math500(Task):
    """500 problems of the MATH benchmark.

    The last boxed answer counts, or one behind ``####``, else one behind ``Answer:`` or ``answer is``; nothing in a
    thought does. Where the reference is a list of solutions, several boxes side by side are one too. An answer is right
    if it is the reference's text or `math-verify` finds the two equal, with the same base and unit's power.
    """

    name = "math500"
    summary = "MATH-500: competition problems with any kind of answer"
    source = "Hendrycks et al. 2021, arXiv 2103.03874; the 500 of Lightman et al. 2023, arXiv 2305.20050"
    options = SourceOptions
    hub: ClassVar[tuple[str, str | None, str]] = ("HuggingFaceH4/MATH-500", None, "test")
    """name, configuration and split"""

    def __init__(self, items: list[Item], verifier: Verifier) -> None:
        """Use `build`."""
        self._items, self._verifier = items, verifier

    @classmethod
    def build(cls, options: Options) -> Self:
        """Load the problems.

        Raises:
            InputError: they cannot be loaded.
        """
        hub, config, split = cls.hub
        rows = sources.load(narrowed(options, SourceOptions), hub, config=config, split=split)
        items = []
        for place, row in enumerate(rows):
            where = f"{cls.name}, problem {place + 1}"
            text = str(sources.field(where, row, "problem", "question"))
            gold = cls.reference(str(sources.field(where, row, "answer", "solution")))
            items.append(Item(f"{cls.name}/{place:04d}", f"{text}\n{ASK}", {"answer": gold}))
        return cls(items, Verifier())

    @classmethod
    def reference(cls, answer: str) -> str:
        """The reference answer of a row."""
        return last_boxed(answer) or answer.strip()

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The problems in the order of the data set."""
        return self._items[:limit]

    def grade(self, item: Item, text: str) -> Grade:
        """The boxed answer, or the one behind the last ``####``, else behind ``Answer:``."""
        gold = str(item.data["answer"])
        answer = answer_of(without_thought(text), several=listed(gold))
        if not answer:
            return Grade(False, None, None, "no box and nothing behind #### or Answer:")
        right = self.equal(gold, answer)
        canonical = gold if right else re.sub(r"\s+", "", answer)
        return Grade(right, answer, canonical, "correct" if right else "another answer")

    def equal(self, gold: str, answer: str) -> bool:
        """Whether an answer is the reference, by its text or by `math-verify`."""
        if len(answer) > LONGEST:
            return False
        wanted, given = normal(gold), normal(answer)
        if differ(wanted, given):
            return False
        if same_words(wanted, given) or same_words(without_base(wanted), without_base(given)):
            return True
        found, value = number(given), number(wanted)
        if found is not None and value is not None and "%" not in wanted + given and "." not in found + value:
            return found == value
        return self._verifier.same(wanted, given)


class GSM8K(Math500):
    """1,319 word problems with whole-number answers; read as those of MATH-500 are, also out of a sentence."""

    name = "gsm8k"
    summary = "GSM8K: word problems of primary school"
    source = "Cobbe et al. 2021, arXiv 2110.14168"
    hub = ("openai/gsm8k", "main", "test")

    @classmethod
    def reference(cls, answer: str) -> str:
        """What is behind ``####``, without the commas of large numbers."""
        return answer.rpartition("####")[2].strip().replace(",", "")

    def equal(self, gold: str, answer: str) -> bool:
        """Whether the one number of the answer is the reference; without one, as in MATH-500."""
        found, wanted = number_in_words(answer), number(gold)
        between = re.split("[0-9]", answer)[1:-1]
        if found is None and any(re.search(r"\b(?:or|and|to)\b", each) for each in between):
            return False
        return super().equal(gold, answer) if found is None or wanted is None else found == wanted


def answer_of(text: str, *, several: bool = False) -> str | None:
    """What a text without thoughts gives as its answer; with `several`, boxes side by side are one list."""
    found = boxes(text)
    if found:
        return _joined(text, found) if several else found[-1].inside
    behind = [each for each in _HASHES.findall(text) if re.search(r"[0-9\\]", each)]
    if behind:
        return str(behind[-1]).strip()
    box = text.rfind("\\boxed{")
    cut_off = box >= 0 and "}" not in text[box:]
    return None if cut_off else final_answer(text) or None


def _joined(text: str, found: Sequence[Box]) -> str:
    """The last boxes between which nothing is taken back, as a list without repetitions."""
    first = len(found) - 1
    if listed(found[first].inside):
        return found[first].inside
    while first > 0 and _beside(text[found[first - 1].end : found[first].begin]):
        first -= 1
    return ", ".join(dict.fromkeys(box.inside for box in found[first:]))


def _beside(between: str) -> bool:
    return len(between) <= BESIDE and _TAKEN_BACK.search(between) is None
