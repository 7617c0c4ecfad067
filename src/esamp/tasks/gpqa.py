"""GPQA-Diamond: four options, one letter. Its authors ask that no question be published, so none leaves memory."""

import hashlib
import re
from typing import Literal

from typing_extensions import override

from esamp.tasks.base import Grade, Item
from esamp.tasks.boxed import boxes
from esamp.tasks.final_answer import mark_ends, plain_characters, undressed
from esamp.tasks.rows import RowsTask
from esamp.tasks.sources import DataSet, Row
from esamp.tasks.thought import without_thought

LETTERS = "ABCD"
COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
INSTRUCTION = 'Think step by step. Finish with a line "Answer: X", where X is one of the letters A, B, C and D.'
_LETTER = re.compile(r"[\[(<{*_\"'`“‘]{0,4}([A-D])[\])>}*_\"'`”’]{0,4}", re.IGNORECASE)
_SAID_BEFORE = re.compile(r"(?:(?:the|final|correct|answer|option|choice|letter|is)\b[\s:*_]{0,4}){1,5}", re.IGNORECASE)
_ENDS = re.compile(r"\s{0,4}(?:[.:;,!?)\]]|\Z)|\s{0,4}\n|\s{1,4}[-–—]\s|\s[(\"'“]")
"""What ends a letter that is an option: a sign, the line, or a dash or bracket that is set apart."""
_OTHER = re.compile(
    r"\s{0,4}(?:,|&|/|\+|\bor\b|\band\b)\s{0,4}(?:option\s|choice\s)?[(\[]?([A-D])(?![\w'’])", re.IGNORECASE
)
_SENTENCE = re.compile(
    r"\s{1,4}(?:is|was|because|since|as|and|which|where|for|due|by|would|will|has|with)\b", re.IGNORECASE
)
_LOOKED_AT = 300
"""Characters behind a mark in which its letter is."""


class GPQA(RowsTask):
    """198 questions by experts in biology, physics and chemistry.

    The options are shuffled by a hash of the question's id, so their order is the same for every method, model and
    run. The last ``Answer: X`` or boxed letter outside of thoughts is graded, else the letter in ``the answer is X``.
    """

    name = "gpqa"
    summary = "GPQA-Diamond: questions of experts with four options; no text of it is stored"
    source = "Rein et al. 2023, arXiv 2311.12022: Idavidrein/gpqa on the Hugging Face hub, gpqa_diamond"
    data_set = DataSet("Idavidrein/gpqa", "gpqa_diamond", "train")
    row_noun = "question"
    private = True

    @classmethod
    @override
    def item(cls, row: Row) -> Item:
        question = row.text("Question").strip()
        options = [row.text(column).strip() for column in COLUMNS]
        record = str(row.values.get("Record ID") or question)
        name = hashlib.sha256(record.encode(errors="backslashreplace")).hexdigest()[:12]  # reveals nothing of the text
        order = sorted(range(len(options)), key=lambda place: hashlib.sha256(f"{name}/{place}".encode()).digest())
        lines = [f"({letter}) {options[place]}" for letter, place in zip(LETTERS, order, strict=True)]
        prompt = "\n".join([question, "", *lines, "", INSTRUCTION])
        return Item(f"{cls.name}/{name}", prompt, {"answer": LETTERS[order.index(0)]})

    @override
    def grade(self, item: Item, text: str) -> Grade:
        found = last_letter(without_thought(text))
        if found is None:
            return Grade(False, None, None, "no answer")
        correct = found == item.data["answer"]
        return Grade(correct, found, found, "correct" if correct else "another letter")


def last_letter(text: str) -> str | None:
    r"""The last letter given as ``Answer: B``, ``**Answer:** (b)`` or ``\boxed{B}``, else as ``the answer is B``.

    A letter that begins a word or a formula (``Answer: Because``, ``Answer: C-H``), one of several (``A or B``) and
    the article (``Answer: a ketone``) are no answer. None if there is no letter.
    """
    text = plain_characters(text)
    given = [(box.begin, box.inside) for box in boxes(text)] + _behind(text, "colon")
    for places in (sorted(given), _behind(text, "verb")):
        found = [each for _, answer in places if (each := letter(answer)) is not None]
        if found:
            return found[-1]
    return None


def letter(answer: str) -> str | None:
    """The letter that an answer begins with, if it stands there as an option."""
    answer = answer[:_LOOKED_AT].lstrip()
    for end in (len(answer), answer.find("\n")):
        if end > 0 and (alone := _LETTER.fullmatch(undressed(answer[:end]))) is not None:
            return alone[1].upper()
    plain = re.sub(r"^[\s$*]{0,4}(?:\\[(\[])?[\s$]{0,2}", "", _without_styles(answer))
    if said := _SAID_BEFORE.match(plain):
        plain = plain[said.end() :]
    found = _LETTER.match(plain)
    if found is None:
        return None
    behind = re.sub(r"^(?:\s{0,2}\\[)\]]|\$)", "", plain[found.end() :])
    other = _OTHER.match(behind)
    if other is not None and (other[1].isupper() or found[1].islower()):
        return None
    bracketed = found[0][-1] in ")]>}" or found[0][-1] == "*"
    capital = found[1].isupper()
    sentence = capital and _SENTENCE.match(behind) is not None
    named = capital and found[1] != "A" and re.match(r"\s{1,4}\w", behind) is not None
    if (_ENDS.match(behind) or sentence or named or (bracketed and re.match(r"\s", behind))) and behind[:1] != "(":
        return found[1].upper()
    return None


def _behind(text: str, marks: Literal["colon", "verb"]) -> list[tuple[int, str]]:
    """Where each mark of an answer ends, and what stands there."""
    return [(end, text[end : end + _LOOKED_AT].lstrip(" \t\n*_:")) for end in mark_ends(text, marks)]


def _without_styles(answer: str) -> str:
    r"""Without ``\text{...}`` and the like."""
    return re.sub(r"\\(?:text|math)[a-z]{0,6}\s{0,4}\{([^{}]*)\}", r"\1", answer)
