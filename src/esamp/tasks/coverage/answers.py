"""`Answers`: finds the answer that a text gives to a question with many right answers, and grades it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from esamp.tasks.base import Grade

from .questions import Question
from .vocabulary import AFTER, BEFORE, FILLER, JOINING, NEGATION, STATING
from .words import Gap, Word, phrase, statements, words

SHOWN = 120
"""Characters of a wrong answer that are kept."""


@dataclass(frozen=True)
class _Match:
    """A right answer, or a phrase that only contains one, in a text."""

    begin: int
    end: int
    answer: str | None
    """the right answer in its first spelling; None for a phrase that only contains one"""


class Answers:
    """Finds and grades the answers to one question.

    A text gives its answer in the first statement (a sentence or a line) that contains more than fillers such as
    ``Sure!`` and words of the question. The first listed answer in that statement is right if

    * all words before it, after the last ``is``, ``are`` or ``called`` (`STATING`), are fillers (`BEFORE`) or words of
      the question: France is not the answer of ``Paris, France`` or ``Paris is the capital of France``;
    * no negation stands before it or directly after it;
    * it is not part of a longer name: a word that follows without punctuation is in `AFTER` or in the question.

    The longest name counts, so ``West Virginia`` is not Virginia. A text that continues with another right answer
    (``Texas, Ohio``; ``1. Texas 2. Ohio``) or with two more entries of a list (``Texas, Toronto, Paris``) gives
    several answers to a question for one, and is wrong.
    """

    def __init__(self, question: Question) -> None:
        self._names = _names(question)
        self._longest = max(map(len, self._names))
        self._related = _related(question)
        self._before = BEFORE | self._related

    def grade(self, text: str) -> Grade:
        """The grade of a text without thoughts."""
        found = words(text)
        numbered = False
        for begin, end in statements(found):
            if found[begin].listed and end - begin == 1 and found[begin].text == "1":
                numbered = True
                continue
            named = self._stated(found, begin, end)
            if named is not None:
                return self._right(found, named, numbered=numbered)
            if not self._is_empty(found[begin:end]):
                return self._wrong(found[begin:end])
        return Grade(False, None, None, "no answer")

    def _right(self, found: Sequence[Word], named: _Match, *, numbered: bool) -> Grade:
        answer = _joined(found[named.begin : named.end])
        if self._continues(found, named, numbered=numbered):
            return Grade(False, answer, None, "several answers")
        return Grade(True, answer, named.answer, "correct")

    def _wrong(self, statement: Sequence[Word]) -> Grade:
        """The grade of a statement without a right answer; its canonical answer omits the fillers."""
        whole = _joined(statement)
        rest = _joined([word for word in statement if (word.text,) in self._names or not self._is_filler(word)])
        canonical = whole if not rest or phrase(rest) in self._names else rest
        return Grade(False, whole, canonical, "not a right answer")

    def _stated(self, found: Sequence[Word], begin: int, end: int) -> _Match | None:
        """The right answer that a statement gives, None if there is none."""
        clear = label = True  # since the last stating word, all words are in `_before`, or are fillers
        place = begin
        while place < end:
            word = found[place]
            clear = clear or (label and word.before == Gap.COLON)
            named = self._name_at(found, place, end)
            if named is not None:
                if clear and word.before != Gap.HYPHEN and self._is_affirmed(found, named, end):
                    return named
                filler = named.answer is None and all(one.text in self._before for one in found[place : named.end])
                clear, label, place = clear and filler, label and filler, named.end
                continue
            if _negates(word):
                return None
            states = word.text in STATING
            clear = states or (clear and word.text in self._before)
            label = states or (label and self._is_filler(word))
            place += 1
        return None

    def _is_affirmed(self, found: Sequence[Word], named: _Match, end: int) -> bool:
        """Whether a name is complete and the words after it do not negate it (``Texas is not a country``)."""
        following = found[named.end : min(_next_mark(found, named.end), end, named.end + 3)]
        negated = any(_negates(one) and two.text != "only" for one, two in pairwise(following))
        return named.answer is not None and not negated and self._is_whole(found, named.end, end)

    def _name_at(self, found: Sequence[Word], begin: int, end: int) -> _Match | None:
        """The longest name that begins at this word."""
        for size in range(min(self._longest, end - begin), 0, -1):
            candidate = found[begin : begin + size]
            key = tuple(word.text for word in candidate)
            if key in self._names:
                answer = self._names[key]
                if all(_joins(one, two, loosely=answer is None) for one, two in pairwise(candidate)):
                    return _Match(begin, begin + size, answer)
        return None

    def _is_whole(self, found: Sequence[Word], place: int, end: int) -> bool:
        """Whether a name that ends before this word is not the beginning of a longer one."""
        if place >= end or found[place].before > Gap.HYPHEN:
            return True
        word = found[place]
        return word.before == Gap.SPACE and (word.text in AFTER or word.text in self._related)

    def _continues(self, found: Sequence[Word], named: _Match, *, numbered: bool) -> bool:
        """Whether another right answer follows, or a second entry of a numbered list, or two more list entries."""
        if numbered and any(word.listed and word.text == "2" for word in found[named.end :]):
            return True
        if _is_entry(found, named.end) and _is_entry(found, _next_mark(found, named.end + 1)):
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

    def _is_empty(self, statement: Sequence[Word]) -> bool:
        return all(map(self._is_filler, statement))

    def _is_filler(self, word: Word) -> bool:
        return word.text in FILLER or word.text in self._related


def _negates(word: Word) -> bool:
    return word.text in NEGATION or word.text.endswith("n't")


def _next_mark(found: Sequence[Word], place: int) -> int:
    """Position of the first word, from this one on, with punctuation before it."""
    return next((at for at in range(place, len(found)) if found[at].before > Gap.HYPHEN), len(found))


def _is_entry(found: Sequence[Word], place: int) -> bool:
    """Whether a list entry follows: a comma and at most three words without a verb, as in ``, El Salvador``."""
    if place >= len(found) or found[place].before != Gap.COMMA:
        return False
    entry = [word for word in found[place : _next_mark(found, place + 1)] if word.text not in JOINING]
    return 1 <= len(entry) <= 3 and not any(word.text in AFTER or word.text in STATING for word in entry)


def _joined(chosen: Sequence[Word]) -> str:
    return " ".join(word.text for word in chosen)[:SHOWN]


def _joins(one: Word, two: Word, *, loosely: bool) -> bool:
    """Whether two words can belong to one name; with `loosely` any punctuation may separate them."""
    return two.before <= Gap.HYPHEN or (two.before <= Gap.MARK and (loosely or len(one.text) == 1))


def _names(question: Question) -> Mapping[tuple[str, ...], str | None]:
    """All names of all answers with their answer; None for phrases that only contain one."""
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
    """The words of the question, in singular and plural, and its listed additional words."""
    related = {*phrase(question.prompt.split(". ")[0]), *(word for each in question.words for word in phrase(each))}
    related -= FILLER - BEFORE
    singular = {word.removesuffix("s") for word in related if len(word) > 3}
    return frozenset(related | singular | {form for word in related for form in _plurals(word) if len(word) > 2})
