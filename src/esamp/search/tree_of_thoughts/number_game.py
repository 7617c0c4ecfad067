"""`NumberGame`: what all prompts for number games share. Steps are checked, and answers are graded exactly."""

import re
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import replace
from fractions import Fraction

from typing_extensions import override

from esamp.search.tree_of_thoughts.arithmetic import (
    ArithmeticStep,
    apply,
    expressions,
    looks_like_a_step,
    read_step,
    shown,
)
from esamp.search.tree_of_thoughts.prompts import (
    MAX_THOUGHTS,
    ParsedThoughts,
    Prompts,
    Rating,
    after_thinking,
    bounded_lines,
)
from esamp.search.tree_of_thoughts.tree import State
from esamp.tasks.base import Grade
from esamp.tasks.countdown import Problem, canonical, grade_answer

_ANSWER = re.compile(r"answer[ \t*]*:", re.IGNORECASE | re.ASCII)


class NumberGame(Prompts):
    """Combine all numbers, each once, to make the target: Game of 24 and Countdown.

    A thought is one step of arithmetic. It becomes a state only if it takes two of the numbers left and its result is
    correct; the numbers left after it are computed here and not read from the text. States with the same numbers left,
    in any order, have the same value. With one number left the rating is certain. Answers are graded as in Countdown.
    """

    answer_once = True

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @property
    @override
    def steps(self) -> int:
        """One level per step, of which there is one less than numbers, and one for the answer."""
        return len(self.problem.numbers)

    @property
    @override
    def root(self) -> State:
        return State(left=tuple(Fraction(number) for number in self.problem.numbers))

    @abstractmethod
    def thought(self, step: ArithmeticStep, left: Sequence[Fraction]) -> str:
        """A step and the numbers left after it, as one line of text."""

    def allowed(self, step: ArithmeticStep) -> bool:
        """Whether a correct step also follows the rules of the game."""
        return True

    def after(self, state: State, line: str) -> State | None:
        """The state after the step in a line; None if the line has no valid step."""
        step = read_step(line, state.left)
        if step is None or not self.allowed(step):
            return None
        left = apply(state.left, step)
        return State((*state.thoughts, self.thought(step, left)), left)

    @override
    def answers_next(self, state: State, levels: int) -> bool:
        return state.left == (Fraction(self.problem.target),)

    @override
    def read(self, state: State, text: str) -> ParsedThoughts:
        """One state for each line with a valid step from `state`."""
        states: dict[str, State] = {}
        rejected = []
        for line in bounded_lines(after_thinking(text)):
            if len(states) == MAX_THOUGHTS or not looks_like_a_step(line):
                continue
            child = self.after(state, line)
            if child is None:
                rejected.append(line)
            else:
                states.setdefault(child.thoughts[-1], child)
        return ParsedThoughts(tuple(states.values()), tuple(rejected))

    @override
    def read_answer(self, state: State, text: str) -> State:
        """The answer is the last ``Answer: ...`` in the text, or its last line if there is none."""
        lines = bounded_lines(after_thinking(text))
        marked = [line for line in lines if _ANSWER.search(line)]
        thought = (marked or lines or [""])[-1]
        if not marked:
            thought = f"Answer: {thought}"
        return self._finished(state, thought.replace("**", "").replace("`", ""))

    @override
    def compose(self, state: State) -> State | None:
        [expression] = self._expressions(state)
        whole = expression[1:-1] if expression.startswith("(") else expression
        return self._finished(state, f"Answer: {whole}")

    @override
    def known_rating(self, state: State) -> Rating | None:
        """An answer is correct or not, and a single number left is the target or not."""
        if state.finished:
            return "sure" if state.solved else "impossible"
        if len(state.left) == 1:
            return "sure" if state.left[0] == self.problem.target else "impossible"
        return None

    @override
    def key(self, state: State) -> Hashable:
        """The numbers left in any order, and the target. For an answer or a single number left, the `identity`.

        So different expressions of the target are kept apart, as each is an answer of its own.
        """
        if state.finished or len(state.left) == 1:
            return self.identity(state)
        return tuple(sorted(state.left)), self.problem.target

    @override
    def identity(self, state: State) -> Hashable:
        """The canonical expressions of the numbers left, in any order; for an answer, its canonical form."""
        if state.finished:
            return "answer", self.canonical(state)
        return "ways", tuple(sorted(canonical(expression) for expression in self._expressions(state)))

    @override
    def label(self, state: State) -> str:
        """The numbers left; for an answer, the reason of its grade."""
        if state.finished:
            return self._grade(state).reason
        return " ".join(shown(number) for number in state.left)

    @override
    def canonical(self, state: State) -> str:
        return self._grade(state).canonical or state.thoughts[-1]  # the text itself if it cannot be parsed

    def _expressions(self, state: State) -> list[str]:
        left, steps = self.root.left, []
        for thought in state.thoughts:
            step = read_step(thought, left)
            assert step is not None  # thoughts were checked when the state was created
            steps.append(step)
            left = apply(left, step)
        return expressions(self.problem.numbers, steps)

    def _finished(self, state: State, thought: str) -> State:
        done = replace(state, thoughts=(*state.thoughts, thought), finished=True)
        return replace(done, solved=self._grade(done).correct)

    def _grade(self, state: State) -> Grade:
        return grade_answer(self.problem, state.thoughts[-1])
