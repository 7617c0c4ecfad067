"""GPQA-Diamond: four options, one letter. Its authors ask that no question be published, so none leaves memory."""

import hashlib
import re
from typing import Literal, Self

from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Grade, Item, Task
from esamp.tasks.boxed import boxes
from esamp.tasks.final_answer import mark_ends, plain_characters, undressed
from esamp.tasks.sources import SourceOptions
from esamp.tasks.thought import without_thought

LETTERS = "ABCD"
COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
ASK = 'Think step by step. Finish with a line "Answer: X", where X is one of the letters A, B, C and D.'
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


class GPQA(Task):
    """198 questions of experts in biology, physics and chemistry.

    The options are shuffled by a hash of the question's id: the same order for every method, model and run. Graded is
    the last ``Answer: X`` or boxed letter outside of thoughts, else the letter in ``the answer is X``.
    """

    name = "gpqa"
    summary = "GPQA-Diamond: questions of experts with four options; no text of it is stored"
    source = "Rein et al. 2023, arXiv 2311.12022: Idavidrein/gpqa on the Hugging Face hub, gpqa_diamond"
    options = SourceOptions
    private = True

    def __init__(self, items: list[Item]) -> None:
        """Use `build`."""
        self._items = items

    @classmethod
    def build(cls, options: Options) -> Self:
        """Load the questions.

        Raises:
            InputError: they cannot be loaded, or one is there twice; tells the place alone.
        """
        wanted = narrowed(options, SourceOptions)
        rows = sources.load(wanted, "Idavidrein/gpqa", config="gpqa_diamond", split="train")
        items: dict[str, Item] = {}
        for place, row in enumerate(rows, 1):
            where = f"{cls.name}, question {place}"
            question = str(sources.field(where, row, "Question")).strip()
            given = [str(sources.field(where, row, column)).strip() for column in COLUMNS]
            item = _item(str(row.get("Record ID") or question), question, given)
            if item.id in items:
                raise InputError(f"{where} is there twice")
            items[item.id] = item
        return cls(list(items.values()))

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The questions in the order of the data set."""
        return self._items[:limit]

    def grade(self, item: Item, text: str) -> Grade:
        """The last letter that the text gives as its answer; nothing else of the text is in the grade."""
        found = last_letter(without_thought(text))
        if found is None:
            return Grade(False, None, None, "no answer")
        right = found == item.data["answer"]
        return Grade(right, found, found, "correct" if right else "another letter")


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


def _item(record: str, question: str, given: list[str]) -> Item:
    """A question with its options in their order; its id is a hash, which tells nothing."""
    name = hashlib.sha256(record.encode(errors="backslashreplace")).hexdigest()[:12]
    order = sorted(range(len(given)), key=lambda place: hashlib.sha256(f"{name}/{place}".encode()).digest())
    lines = [f"({letter}) {given[place]}" for letter, place in zip(LETTERS, order, strict=True)]
    return Item(f"gpqa/{name}", "\n".join([question, "", *lines, "", ASK]), {"answer": LETTERS[order.index(0)]})
