"""GPQA-Diamond: multiple choice with four options.

Its authors ask that no question be published, so no text of one is stored, printed or quoted in an error.
"""

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
_LEAD_IN = re.compile(r"(?:(?:the|final|correct|answer|option|choice|letter|is)\b[\s:*_]{0,4}){1,5}", re.IGNORECASE)
_ENDS = re.compile(r"\s{0,4}(?:[.:;,!?)\]]|\Z)|\s{0,4}\n|\s{1,4}[-–—]\s|\s[(\"'“]")
"""What follows the letter of an option: punctuation, the end of the line, or a dash or bracket after a space."""
_SECOND_LETTER = re.compile(
    r"\s{0,4}(?:,|&|/|\+|\bor\b|\band\b)\s{0,4}(?:option\s|choice\s)?[(\[]?([A-D])(?![\w'’])", re.IGNORECASE
)
_VERB_PHRASE = re.compile(
    r"\s{1,4}(?:is|was|because|since|as|and|which|where|for|due|by|would|will|has|with)\b", re.IGNORECASE
)
_REACH = 300
"""Characters after a mark in which its letter is searched."""


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
        chosen = last_letter(without_thought(text))
        if chosen is None:
            return Grade(False, None, None, "no answer")
        correct = chosen == item.data["answer"]
        return Grade(correct, chosen, chosen, "correct" if correct else "another letter")


def last_letter(text: str) -> str | None:
    r"""The last letter given as ``Answer: B``, ``**Answer:** (b)`` or ``\boxed{B}``, else as ``the answer is B``.

    Not an answer: a letter that begins a word or a formula (``Answer: Because``, ``Answer: C-H``), one of several
    letters (``A or B``), and the article (``Answer: a ketone``). None if no letter is left.
    """
    text = plain_characters(text)
    given = [(box.begin, box.inside) for box in boxes(text)] + _after(text, "colon")
    for places in (sorted(given), _after(text, "verb")):
        letters = [each for _, answer in places if (each := letter(answer)) is not None]
        if letters:
            return letters[-1]
    return None


def letter(answer: str) -> str | None:
    """The letter with which an answer begins, if it denotes an option."""
    answer = answer[:_REACH].lstrip()
    for end in (len(answer), answer.find("\n")):
        if end > 0 and (alone := _LETTER.fullmatch(undressed(answer[:end]))) is not None:
            return alone[1].upper()
    plain = re.sub(r"^[\s$*]{0,4}(?:\\[(\[])?[\s$]{0,2}", "", _without_styles(answer))
    if lead_in := _LEAD_IN.match(plain):
        plain = plain[lead_in.end() :]
    match = _LETTER.match(plain)
    if match is None:
        return None
    rest = re.sub(r"^(?:\s{0,2}\\[)\]]|\$)", "", plain[match.end() :])
    other = _SECOND_LETTER.match(rest)
    if other is not None and (other[1].isupper() or match[1].islower()):
        return None
    bracketed = match[0][-1] in ")]>}" or match[0][-1] == "*"
    capital = match[1].isupper()
    begins_sentence = capital and _VERB_PHRASE.match(rest) is not None
    named = capital and match[1] != "A" and re.match(r"\s{1,4}\w", rest) is not None
    if (_ENDS.match(rest) or begins_sentence or named or (bracketed and re.match(r"\s", rest))) and rest[:1] != "(":
        return match[1].upper()
    return None


def _after(text: str, marks: Literal["colon", "verb"]) -> list[tuple[int, str]]:
    """The position of the end of each mark of an answer, and the text after it."""
    return [(end, text[end : end + _REACH].lstrip(" \t\n*_:")) for end in mark_ends(text, marks)]


def _without_styles(answer: str) -> str:
    r"""The answer without ``\text{...}`` and similar commands around parts of it."""
    return re.sub(r"\\(?:text|math)[a-z]{0,6}\s{0,4}\{([^{}]*)\}", r"\1", answer)
