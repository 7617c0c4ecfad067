r"""MATH-500 and GSM8K: the boxed answer, or the one after ``####``, compared by `math-verify`."""

import re
from collections.abc import Sequence

from typing_extensions import override

from esamp.tasks.base import Grade, Item
from esamp.tasks.boxed import Box, boxes, last_boxed
from esamp.tasks.contest import INSTRUCTION
from esamp.tasks.final_answer import final_answer
from esamp.tasks.math_text import differ, listed, normal, same_words, without_base
from esamp.tasks.math_verifier import LONGEST, MathVerifier
from esamp.tasks.numerals import number, number_in_words
from esamp.tasks.rows import RowsTask
from esamp.tasks.sources import DataSet, Row
from esamp.tasks.thought import without_thought

_HASHES = re.compile(r"####[ \t]*\n?([^\n]*)")
ADJACENT = 120
"""Largest number of characters between two boxes of one list."""
_RETRACTION = re.compile(
    r"\b(?:no|not|wait|wrong|but|instead|actually|hmm|rather|however|mistake|error|correct(?:ed|ion)?|again|check|sorry|"
    r"oops)\b",
    re.IGNORECASE,
)
"""Words between an answer and an earlier one that it replaces."""


class Math500(RowsTask):
    """500 problems of the MATH benchmark.

    The answer is the last box, else the text after ``####``, else the text after ``Answer:`` or ``answer is``; thoughts
    are ignored. Where the reference is a list of solutions, adjacent boxes also form a list. An answer is right if its
    text equals the reference's or `math-verify` finds the two equal, with the same number base and power of the unit.
    """

    name = "math500"
    summary = "MATH-500: competition problems with any kind of answer"
    source = "Hendrycks et al. 2021, arXiv 2103.03874; the 500 of Lightman et al. 2023, arXiv 2305.20050"
    data_set = DataSet("HuggingFaceH4/MATH-500")

    def __init__(self, items: Sequence[Item], verifier: MathVerifier | None = None) -> None:
        super().__init__(items)
        self._verifier = MathVerifier() if verifier is None else verifier

    @classmethod
    @override
    def item(cls, row: Row) -> Item:
        problem = row.text("problem", "question")
        gold = cls.reference(row.text("answer", "solution"))
        return Item(f"{cls.name}/{row.place:04d}", f"{problem}\n{INSTRUCTION}", {"answer": gold})

    @classmethod
    def reference(cls, answer: str) -> str:
        """The reference answer in the answer field of a row."""
        return last_boxed(answer) or answer.strip()

    @override
    def grade(self, item: Item, text: str) -> Grade:
        gold = str(item.data["answer"])
        answer = answer_of(without_thought(text), several=listed(gold))
        if not answer:
            return Grade(False, None, None, "no box and nothing after #### or Answer:")
        correct = self.equal(gold, answer)
        canonical = gold if correct else re.sub(r"\s+", "", answer)
        return Grade(correct, answer, canonical, "correct" if correct else "another answer")

    def equal(self, gold: str, answer: str) -> bool:
        """Whether an answer equals the reference, by its text or by `math-verify`."""
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
    """1,319 word problems with whole-number answers, read as in MATH-500 or from a sentence with one number."""

    name = "gsm8k"
    summary = "GSM8K: word problems of primary school"
    source = "Cobbe et al. 2021, arXiv 2110.14168"
    data_set = DataSet("openai/gsm8k", "main")

    @classmethod
    @override
    def reference(cls, answer: str) -> str:
        return answer.rpartition("####")[2].strip().replace(",", "")

    @override
    def equal(self, gold: str, answer: str) -> bool:
        found, wanted = number_in_words(answer), number(gold)
        between = re.split("[0-9]", answer)[1:-1]
        if found is None and any(re.search(r"\b(?:or|and|to)\b", each) for each in between):
            return False
        return super().equal(gold, answer) if found is None or wanted is None else found == wanted


def answer_of(text: str, *, several: bool = False) -> str | None:
    """The answer of a text without thoughts, None if it has none; with `several`, adjacent boxes form one list."""
    spans = boxes(text)
    if spans:
        return _joined(text, spans) if several else spans[-1].inside
    after_hashes = [each for each in _HASHES.findall(text) if re.search(r"[0-9\\]", each)]
    if after_hashes:
        return str(after_hashes[-1]).strip()
    box = text.rfind("\\boxed{")
    cut_off = box >= 0 and "}" not in text[box:]
    return None if cut_off else final_answer(text) or None


def _joined(text: str, found: Sequence[Box]) -> str:
    """The last boxes, back to the first retraction between two of them, as a list without repetitions."""
    first = len(found) - 1
    if listed(found[first].inside):
        return found[first].inside
    while first > 0 and _adjacent(text[found[first - 1].end : found[first].begin]):
        first -= 1
    return ", ".join(dict.fromkeys(box.inside for box in found[first:]))


def _adjacent(between: str) -> bool:
    return len(between) <= ADJACENT and _RETRACTION.search(between) is None
