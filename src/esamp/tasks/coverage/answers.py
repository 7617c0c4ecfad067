"""`Answers`: what a text gives as its answer to a question with many right ones, and whether it is right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from esamp.tasks.base import Grade

from .questions import Question
from .vocabulary import BEFORE, BEHIND, FILLER, JOINING, NEGATION, STATING
from .words import Gap, Word, phrase, statements, words

SHOWN = 120
"""Characters of a wrong answer that are kept."""


@dataclass(frozen=True)
class _Named:
    """A right answer, or a phrase that only looks like one, in a text."""

    begin: int
    end: int
    answer: str | None
    """the right answer in its first spelling; None for what only looks like one"""


class Answers:
    """Reads the answer to one question.

    A text gives one answer, and it is in the first statement (a sentence, or a line) that says more than ``Sure!`` or
    the question's own words. Right is the first answer of the list in that statement if

    * all words before it, from the last ``is``, ``are``, ``called`` (`STATING`) on, are fillers (`BEFORE`) or words of
      the question: France is not the answer of ``Paris, France`` or ``Paris is the capital of France``;
    * no negation is before it or right behind it;
    * it is no part of a longer name: a word that follows without a sign is one of `BEHIND` or of the question.

    The longest name counts, so ``West Virginia`` is not Virginia. A text that goes on with another right answer
    (``Texas, Ohio``; ``1. Texas 2. Ohio``) or with two more entries of a list (``Texas, Toronto, Paris``) gives
    several where one was asked for, and is wrong.
    """

    def __init__(self, question: Question) -> None:
        """Prepare the names to look for."""
        self._names = _names(question)
        self._longest = max(map(len, self._names))
        self._related = _related(question)
        self._before = BEFORE | self._related

    def grade(self, text: str) -> Grade:
        """The grade of any text."""
        found = words(text)
        numbered = False
        for begin, end in statements(found):
            if found[begin].listed and end - begin == 1 and found[begin].text == "1":
                numbered = True
                continue
            named = self._stated(found, begin, end)
            if named is not None:
                return self._right(found, named, numbered=numbered)
            if not self._says_nothing(found[begin:end]):
                return self._wrong(found[begin:end])
        return Grade(False, None, None, "no answer")

    def _right(self, found: Sequence[Word], named: _Named, *, numbered: bool) -> Grade:
        said = _joined(found[named.begin : named.end])
        if self._goes_on(found, named, numbered=numbered):
            return Grade(False, said, None, "several answers")
        return Grade(True, said, named.answer, "correct")

    def _wrong(self, statement: Sequence[Word]) -> Grade:
        """What is left of a statement without the words that give no answer names the wrong answer."""
        whole = _joined(statement)
        rest = _joined([word for word in statement if (word.text,) in self._names or not self._is_filler(word)])
        canonical = whole if not rest or phrase(rest) in self._names else rest
        return Grade(False, whole, canonical, "not a right answer")

    def _stated(self, found: Sequence[Word], begin: int, end: int) -> _Named | None:
        """The right answer that a statement gives, None if it gives none."""
        clear = label = True  # since the last stating word: only words of `_before`; only fillers
        place = begin
        while place < end:
            word = found[place]
            clear = clear or (label and word.before == Gap.COLON)
            named = self._name_at(found, place, end)
            if named is not None:
                if clear and word.before != Gap.HYPHEN and self._is_given(found, named, end):
                    return named
                filler = named.answer is None and all(one.text in self._before for one in found[place : named.end])
                clear, label, place = clear and filler, label and filler, named.end
                continue
            if _denies(word):
                return None
            states = word.text in STATING
            clear = states or (clear and word.text in self._before)
            label = states or (label and self._is_filler(word))
            place += 1
        return None

    def _is_given(self, found: Sequence[Word], named: _Named, end: int) -> bool:
        """Whether what follows leaves a name standing: it is whole, and not denied (``Texas is not a country``)."""
        behind = found[named.end : min(_next_sign(found, named.end), end, named.end + 3)]
        denied = any(_denies(one) and two.text != "only" for one, two in pairwise(behind))
        return named.answer is not None and not denied and self._is_whole(found, named.end, end)

    def _name_at(self, found: Sequence[Word], begin: int, end: int) -> _Named | None:
        """The longest name that begins here."""
        for size in range(min(self._longest, end - begin), 0, -1):
            part = found[begin : begin + size]
            key = tuple(word.text for word in part)
            if key in self._names:
                answer = self._names[key]
                if all(_joins(one, two, loosely=answer is None) for one, two in pairwise(part)):
                    return _Named(begin, begin + size, answer)
        return None

    def _is_whole(self, found: Sequence[Word], place: int, end: int) -> bool:
        """Whether a name that ends before this place is not the beginning of a longer one."""
        if place >= end or found[place].before > Gap.HYPHEN:
            return True
        word = found[place]
        return word.before == Gap.SPACE and (word.text in BEHIND or word.text in self._related)

    def _goes_on(self, found: Sequence[Word], named: _Named, *, numbered: bool) -> bool:
        """Whether another answer comes next, a second entry of a numbered list, or two more entries of a plain one."""
        if numbered and any(word.listed and word.text == "2" for word in found[named.end :]):
            return True
        if _is_entry(found, named.end) and _is_entry(found, _next_sign(found, named.end + 1)):
            return True
        place = named.end
        while place < len(found):
            if found[place].text in JOINING:
                place += 1
                continue
            other = self._name_at(found, place, len(found))
            if other is None or other.answer is None or not self._is_whole(found, other.end, len(found)):
                return False
            if other.answer != named.answer:
                return True
            place = other.end
        return False

    def _says_nothing(self, statement: Sequence[Word]) -> bool:
        return all(map(self._is_filler, statement))

    def _is_filler(self, word: Word) -> bool:
        return word.text in FILLER or word.text in self._related


def _denies(word: Word) -> bool:
    return word.text in NEGATION or word.text.endswith("n't")


def _next_sign(found: Sequence[Word], place: int) -> int:
    """The next word that has a sign before it, at this place or later."""
    return next((at for at in range(place, len(found)) if found[at].before > Gap.HYPHEN), len(found))


def _is_entry(found: Sequence[Word], place: int) -> bool:
    """Whether a comma and at most three words that make no clause stand here: ``, El Salvador``."""
    if place >= len(found) or found[place].before != Gap.COMMA:
        return False
    entry = [word for word in found[place : _next_sign(found, place + 1)] if word.text not in JOINING]
    return 1 <= len(entry) <= 3 and not any(word.text in BEHIND or word.text in STATING for word in entry)


def _joined(part: Sequence[Word]) -> str:
    return " ".join(word.text for word in part)[:SHOWN]


def _joins(one: Word, two: Word, *, loosely: bool) -> bool:
    """Whether two words can belong to one name: ``Washington, D.C.`` only to one that is to be told apart."""
    return two.before <= Gap.HYPHEN or (two.before <= Gap.MARK and (loosely or len(one.text) == 1))


def _names(question: Question) -> Mapping[tuple[str, ...], str | None]:
    """Every name of every answer; the phrases that only look like one lead to None."""
    names: dict[tuple[str, ...], str | None] = {}
    for answer, aliases in question.answers.items():
        for name in (answer, *aliases):
            for form in _forms(phrase(name), plural=question.plural):
                names.setdefault(form, answer)
    names |= {phrase(answer): answer for answer in question.answers}
    return names | {phrase(name): None for name in question.others}


def _forms(name: tuple[str, ...], *, plural: bool) -> Iterator[tuple[str, ...]]:
    yield name
    if plural:
        yield from ((*name[:-1], last) for last in _plurals(name[-1]))


def _plurals(word: str) -> Iterator[str]:
    yield word + "s"
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        yield word + "es"
    if word.endswith("y"):
        yield word[:-1] + "ies"


def _related(question: Question) -> frozenset[str]:
    """The words of the question, in singular and plural, and those that are listed for it."""
    asked = {*phrase(question.prompt.split(". ")[0]), *(word for each in question.words for word in phrase(each))}
    asked -= FILLER - BEFORE
    singular = {word.removesuffix("s") for word in asked if len(word) > 3}
    return frozenset(asked | singular | {form for word in asked for form in _plurals(word) if len(word) > 2})
