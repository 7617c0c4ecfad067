"""Prompts for any problem and any model that follows instructions: a thought is one step in a few sentences.

They follow the creative writing task of Yao et al. 2023 (section 4.2): first a plan, then the answer, each rated by
values or votes. More levels add more steps before the answer.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace

from typing_extensions import override

from esamp.engines.base import Content
from esamp.search.tree_of_thoughts.prompts import (
    MAX_THOUGHTS,
    Ballot,
    ParsedThoughts,
    Prompts,
    Query,
    Rating,
    Wording,
    after_thinking,
    chosen_candidate,
    last_rating,
    numbered_choices,
    problem_text,
)
from esamp.search.tree_of_thoughts.tree import State

_FLAGS = re.IGNORECASE | re.MULTILINE | re.ASCII
_ITEM = re.compile(r"^[ \t]{0,3}(?:\*\*)?(?:step|option|idea)?[ \t]*[0-9]{1,3}[.):](?:\*\*)?[ \t]+", _FLAGS)
MAX_THOUGHT = 4000
"""Characters of a step that are kept. Answers are not cut."""

PROPOSE = """Problem:
{problem}

Steps so far:
{steps}

List several different ways to take the next step, as a numbered list. Each item is one step in a sentence or two, and
no item gives the final answer.
"""

SAMPLE = """Problem:
{problem}

Steps so far:
{steps}

Write the next step only, in a few sentences: a plan if there is none yet, else what follows from the steps so far. Do
not give the final answer yet.
"""

ANSWER = """Problem:
{problem}

Steps so far:
{steps}

Following these steps, write the final answer to the problem.
"""

VALUE = """Problem:
{problem}

{what}:
{steps}

{question} Think about it briefly, and end with one line that holds a single word: sure, likely or impossible.
"""

VOTE = """Problem:
{problem}

Several {what} are given below. Compare them, and end with the line "The best choice is N", where N is its number.

{choices}
"""


class GeneralPrompts(Prompts):
    """Prompts for the problem that the request states. Answers cannot be checked, so `State.solved` is None."""

    name = "general"
    steps = 2
    root = State()

    def __init__(self, prompt: Content) -> None:
        self.problem, self.wording = problem_text(prompt), Wording(prompt)

    @override
    def answers_next(self, state: State, levels: int) -> bool:
        return levels == 1

    @override
    def propose(self, state: State) -> Query:
        return self._query(PROPOSE, state)

    @override
    def sample(self, state: State) -> Query:
        return self._query(SAMPLE, state)

    @override
    def answer(self, state: State) -> Query:
        return replace(self._query(ANSWER, state), final=True)

    @override
    def read(self, state: State, text: str) -> ParsedThoughts:
        """One state for each item of a numbered list. A text without a list is one step."""
        reply = after_thinking(text)
        items = [item.strip()[:MAX_THOUGHT] for item in _ITEM.split(reply)]
        thoughts = items[1:] if len(items) > 1 else items
        kept = dict.fromkeys(thought for thought in thoughts if thought)
        return ParsedThoughts(tuple(State((*state.thoughts, thought)) for thought in list(kept)[:MAX_THOUGHTS]))

    @override
    def read_answer(self, state: State, text: str) -> State:
        return State((*state.thoughts, after_thinking(text).strip()), finished=True)

    @override
    def value(self, state: State) -> Query:
        what = "Proposed answer" if state.finished else "Steps so far"
        question = "Is this answer right and complete?" if state.finished else "Can these steps lead to a right answer?"
        steps = state.thoughts[-1] if state.finished else _numbered(state)
        return Query(
            self.wording.prompt(VALUE.format(problem=self.problem, what=what, steps=steps, question=question)), None
        )

    @override
    def read_value(self, state: State, text: str) -> Rating | None:
        return last_rating(text)

    @override
    def ballots(self, states: Sequence[State], parents: Sequence[State]) -> list[Ballot]:
        finished = bool(states) and states[0].finished
        texts = [state.thoughts[-1] if finished else _numbered(state) for state in states]
        what = "answers" if finished else "ways to begin the work"
        question = VOTE.format(problem=self.problem, what=what, choices=numbered_choices(texts))
        return [Ballot(Query(self.wording.prompt(question), None), tuple(range(len(states))))]

    @override
    def read_vote(self, ballot: Ballot, states: Sequence[State], text: str) -> int | None:
        return chosen_candidate(ballot, text)

    @override
    def key(self, state: State) -> Hashable:
        """The thoughts themselves, as only equal texts are known to have the same value; for an answer, its text."""
        return (True, self.canonical(state)) if state.finished else (False, state.thoughts)

    @override
    def label(self, state: State) -> str:
        return ""

    @override
    def text(self, state: State) -> str:
        return state.thoughts[-1] if state.finished else "\n\n".join(state.thoughts)

    @override
    def canonical(self, state: State) -> str:
        return " ".join(state.thoughts[-1].split()) if state.thoughts else ""

    def _query(self, template: str, state: State) -> Query:
        return Query(self.wording.prompt(template.format(problem=self.problem, steps=_numbered(state))), None)


def _numbered(state: State) -> str:
    return "\n".join(f"{number}. {thought}" for number, thought in enumerate(state.thoughts, 1)) or "(none yet)"
