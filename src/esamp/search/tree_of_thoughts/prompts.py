"""`Prompts`: the interface of prompt families, which write the queries of a search and parse the replies."""

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from esamp.engines.base import Content
from esamp.search.tree_of_thoughts.tree import State

Rating: TypeAlias = Literal["sure", "likely", "impossible"]

WEIGHTS: Mapping[Rating, float] = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
"""The value of each rating (Yao et al. 2023, their code for Game of 24)."""

MAX_LINE = 400
"""Characters of a line that are read."""
MAX_THOUGHTS = 64
"""Thoughts of one text that are read."""

_RATING = re.compile(r"\b(sure|likely|impossible)\b", re.IGNORECASE)
_CHOICE = re.compile(r"\bbest\s+choice\s*(?:is|:)?\W{0,20}(?:choice\s*)?([0-9]{1,4})\b", re.IGNORECASE | re.ASCII)
_NUMBER_ALONE = re.compile(r"\W*(?:choice\s*)?([0-9]{1,4})\W*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Query:
    """One prompt to the model."""

    prompt: Content
    max_tokens: int | None
    """most tokens of the reply; None leaves it to the request and the engine"""
    stop: tuple[str, ...] = ()
    final: bool = False
    """whether the reply is the answer, so that the request's own stop texts apply"""


@dataclass(frozen=True)
class Ballot:
    """A query that asks for the best of several candidates."""

    query: Query
    candidates: tuple[int, ...]
    """places in the list of states that is voted on"""


@dataclass(frozen=True)
class ParsedThoughts:
    """The thoughts in one text of the model."""

    states: tuple[State, ...] = ()
    """the states that they lead to"""
    rejected: tuple[str, ...] = ()
    """lines that have the form of a thought but are not valid"""


class Prompts(ABC):
    """The prompts for one problem. All texts of the model are untrusted."""

    name: ClassVar[str]
    answer_once: ClassVar[bool] = False
    """whether the thoughts determine the answer, so that one sample of it is enough"""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of levels of the tree that the problem needs, including that of the answer."""

    @property
    @abstractmethod
    def root(self) -> State:
        """The state before the first thought."""

    @abstractmethod
    def answers_next(self, state: State, levels: int) -> bool:
        """Whether the next thought is the answer, with `levels` levels left."""

    @abstractmethod
    def propose(self, state: State) -> Query:
        """A query for several next thoughts in one text."""

    @abstractmethod
    def sample(self, state: State) -> Query:
        """A query for one next thought."""

    @abstractmethod
    def answer(self, state: State) -> Query:
        """A query for the answer."""

    @abstractmethod
    def read(self, state: State, text: str) -> ParsedThoughts:
        """The states that the thoughts in a text lead to from `state`, without repetitions."""

    @abstractmethod
    def read_answer(self, state: State, text: str) -> State:
        """The finished state with the answer in a text."""

    def compose(self, state: State) -> State | None:
        """The finished state with the answer that follows from the thoughts; None if the model must write it."""
        return None

    def known_rating(self, state: State) -> Rating | None:
        """The rating of a state that is certain without the model; None otherwise."""
        return None

    @abstractmethod
    def value(self, state: State) -> Query:
        """A query for the rating of a state."""

    @abstractmethod
    def read_value(self, state: State, text: str) -> Rating | None:
        """The rating in a text; None if it has none."""

    @abstractmethod
    def ballots(self, states: Sequence[State], parents: Sequence[State]) -> list[Ballot]:
        """Queries that let the model choose among `states`. `parents` has the parent of each."""

    @abstractmethod
    def read_vote(self, ballot: Ballot, states: Sequence[State], text: str) -> int | None:
        """The place in `states` that a text votes for; None if it votes for no candidate of the ballot."""

    @abstractmethod
    def key(self, state: State) -> Hashable:
        """Equal for states that have the same value, whatever thoughts led to them."""

    def identity(self, state: State) -> Hashable:
        """Equal for states that lead to the same answers. States with equal identities have equal keys."""
        return self.key(state)

    @abstractmethod
    def label(self, state: State) -> str:
        """What is left to do, in a few words."""

    @abstractmethod
    def text(self, state: State) -> str:
        """The text of the sample for this state."""

    @abstractmethod
    def canonical(self, state: State) -> str:
        """The same text for finished states with equal answers."""


# ---- what prompts in words share


class Wording:
    """Turns a question into a prompt of the same form as the request's: a chat with its system messages, or a text."""

    def __init__(self, prompt: Content) -> None:
        self.chat = not isinstance(prompt, str)
        self.system: tuple[Mapping[str, str], ...] = ()
        if not isinstance(prompt, str):
            self.system = tuple(turn for turn in prompt if turn["role"] == "system")

    def prompt(self, question: str) -> Content:
        """The prompt that asks `question`."""
        return (*self.system, {"role": "user", "content": question}) if self.chat else question


def problem_text(prompt: Content) -> str:
    """The problem that a request states: its text, or the messages of the chat without the system messages."""
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in prompt if turn["role"] != "system"]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)


def numbered_choices(texts: Sequence[str]) -> str:
    """The candidates of a vote as text, numbered from 1."""
    return "\n".join(f"Choice {number}:\n{text.strip()}\n" for number, text in enumerate(texts, 1))


def last_rating(text: str) -> Rating | None:
    """The last rating in a text, which may be part of a longer line; None if there is none."""
    for line in reversed(bounded_lines(after_thinking(text))):
        if ratings := _RATING.findall(line):
            word = ratings[-1].lower()
            return "sure" if word == "sure" else "likely" if word == "likely" else "impossible"
    return None


def chosen_candidate(ballot: Ballot, text: str) -> int | None:
    """The candidate of the last ``The best choice is 2`` in a text, else of a number alone in the last line."""
    lines = bounded_lines(after_thinking(text))
    numbers = [int(number) for line in lines for number in _CHOICE.findall(line)]
    if not numbers and lines and (alone := _NUMBER_ALONE.fullmatch(lines[-1])):
        numbers = [int(alone[1])]
    if not numbers or not 1 <= numbers[-1] <= len(ballot.candidates):
        return None
    return ballot.candidates[numbers[-1] - 1]


def after_thinking(text: str) -> str:
    """The text after the last ``</think>``."""
    return text.rpartition("</think>")[2]


def bounded_lines(text: str) -> list[str]:
    """The lines of a text that are not blank, stripped, and cut to `MAX_LINE` characters."""
    return [line.strip()[:MAX_LINE] for line in text.splitlines() if line.strip()]
