"""Prompts with worked examples for Game of 24 and Countdown, for any model.

They follow Yao et al. 2023 (section 4.1), with other examples. *propose* lists possible next steps for the numbers
left; *sample* continues a chain of steps; *value* rates the numbers left as sure, likely or impossible; the *answer* is
written after the finished chain. The paper rates the last step with a separate prompt; here the answer is graded
exactly instead, which needs only the problem. The paper has no vote for number games; here a vote shows the steps of
all candidates with their numbers left.
"""

from collections.abc import Sequence

from typing_extensions import override

from esamp.engines.base import Content
from esamp.search.tree_of_thoughts.arithmetic import ArithmeticStep, shown
from esamp.search.tree_of_thoughts.number_game import NumberGame
from esamp.search.tree_of_thoughts.prompts import (
    Ballot,
    Query,
    Rating,
    Wording,
    chosen_candidate,
    last_rating,
    numbered_choices,
)
from esamp.search.tree_of_thoughts.tree import State
from esamp.tasks.countdown import Problem

RULES = (
    "In a number game, all the given numbers are combined with + - * / into one expression that makes the target. Each "
    "number is used exactly once. A step takes two of the numbers that are left and puts their result in their place."
)

PROPOSE = """{rules}
List possible next steps, one in a line, in the form of the example. Do not comment on them.

Numbers left: 3 5 12
Target: 24
Possible next steps:
3 + 5 = 8 (left: 8 12)
5 - 3 = 2 (left: 2 12)
3 * 5 = 15 (left: 12 15)
12 / 3 = 4 (left: 4 5)
12 - 5 = 7 (left: 3 7)
12 * 5 = 60 (left: 3 60)
12 + 3 = 15 (left: 5 15)
12 - 3 = 9 (left: 5 9)

Numbers left: {left}
Target: {target}
Possible next steps:
"""

CHAIN = """{rules}
Solve it step by step in the form of the examples, and then give the whole expression.

Numbers: 2 3 7 9
Target: 24
Steps:
9 + 7 = 16 (left: 2 3 16)
16 / 2 = 8 (left: 3 8)
3 * 8 = 24 (left: 24)
Answer: 3 * ((9 + 7) / 2)

Numbers: 2 5 6 10
Target: 38
Steps:
6 * 5 = 30 (left: 2 10 30)
10 - 2 = 8 (left: 30 8)
30 + 8 = 38 (left: 38)
Answer: 6 * 5 + (10 - 2)

Numbers: 1 5 5 5
Target: 24
Steps:
1 / 5 = (1/5) (left: 5 5 1/5)
5 - (1/5) = (24/5) (left: 5 24/5)
(24/5) * 5 = 24 (left: 24)
Answer: (5 - 1 / 5) * 5
"""

VALUE = """{rules}
Can these numbers reach the target? Try a few ways, and end with one line that says sure, likely or impossible.

Numbers: 4 20
Target: 24
20 + 4 = 24
sure

Numbers: 7 9
Target: 24
7 + 9 = 16, 9 - 7 = 2, 7 * 9 = 63, 9 / 7 is a fraction
impossible

Numbers: 3 5 13
Target: 24
13 + 5 + 3 = 21, (13 - 5) * 3 = 24
sure

Numbers: 6 7 8
Target: 30
6 + 7 + 8 = 21, (8 - 6) * 7 = 14, 6 * 7 - 8 = 34
None of these is 30 yet, but they come near
likely

Numbers: 1 2 2
Target: 24
2 * 2 + 1 = 5, (1 + 2) * 2 = 6
All of them together are too small
impossible

Numbers: {left}
Target: {target}
"""

VOTE = """{rules}
The numbers are {numbers} and the target is {target}. Which of these choices is the most likely to lead to the target?
Say in a few words what each can still make, and end with the line "The best choice is N", where N is its number.

{choices}
"""


class FewShotPrompts(NumberGame):
    """Worked examples. Intermediate results may be fractions and negative numbers, as in Game of 24."""

    name = "numbers"

    def __init__(self, problem: Problem, prompt: Content) -> None:
        """`problem` is stated in `prompt`, whose form (chat or text) the queries have too."""
        super().__init__(problem)
        self.wording = Wording(prompt)

    @override
    def thought(self, step: ArithmeticStep, left: Sequence[object]) -> str:
        """``8 - 3 = 5 (left: 5 9 5)``."""
        return f"{step} (left: {' '.join(map(str, left))})"

    @override
    def propose(self, state: State) -> Query:
        return self._query(PROPOSE.format(rules=RULES, left=self.label(state), target=self.problem.target))

    @override
    def sample(self, state: State) -> Query:
        last = "\nWrite the next line only." if self.wording.chat else ""
        return self._query(self._chain(state) + last, stop=() if self.wording.chat else ("\n",))

    @override
    def answer(self, state: State) -> Query:
        last = "\nWrite the last line only, which begins with Answer:" if self.wording.chat else "Answer:"
        stop = () if self.wording.chat else ("\n",)
        return Query(self.wording.prompt(self._chain(state) + last), None, stop, final=True)

    @override
    def value(self, state: State) -> Query:
        return self._query(VALUE.format(rules=RULES, left=self.label(state), target=self.problem.target))

    @override
    def read_value(self, state: State, text: str) -> Rating | None:
        return last_rating(text)

    @override
    def ballots(self, states: Sequence[State], parents: Sequence[State]) -> list[Ballot]:
        candidates = ["\n".join(state.thoughts) for state in states]
        question = VOTE.format(
            rules=RULES,
            numbers=self.label(self.root),
            target=self.problem.target,
            choices=numbered_choices(candidates),
        )
        return [Ballot(self._query(question, stop=()), tuple(range(len(states))))]

    @override
    def read_vote(self, ballot: Ballot, states: Sequence[State], text: str) -> int | None:
        return chosen_candidate(ballot, text)

    @override
    def text(self, state: State) -> str:
        return "\n".join(state.thoughts)

    def _query(self, question: str, *, stop: tuple[str, ...] | None = None) -> Query:
        default = () if self.wording.chat else ("\n\n", "\nNumbers")  # where the next example would begin
        return Query(self.wording.prompt(question), None, default if stop is None else stop)

    def _chain(self, state: State) -> str:
        numbers = " ".join(shown(number) for number in self.root.left)
        steps = "".join(f"{thought}\n" for thought in state.thoughts)
        return f"{CHAIN.format(rules=RULES)}\nNumbers: {numbers}\nTarget: {self.problem.target}\nSteps:\n{steps}"
