"""Prompts in the format of the traces that the embedded model was trained on.

The model was trained only on traces with lines such as ``try 8 - 3 = 5 left 5 9 5``, so every query is an unfinished
trace:

* propose: the trace ends after the thoughts so far. In its continuation, the first step is a proposal, and so is each
  step that a later try takes from an equal state, as a trace often starts over to try an alternative.
* sample: one more line.
* value: the model continues the current try. If it reaches the target by correct steps, the rating is *sure*. If it
  gives up at once, with ``too small`` or ``too far``, the rating is *impossible*. If it ends at another number or gives
  up later, the rating is *likely*, since another continuation may succeed. Wrong arithmetic or a missing end gives no
  rating.
* vote: traces do not compare candidates. Instead, one line is drawn from each parent for each vote, and a line that
  leads to a candidate is a vote for it. So votes compare siblings only.
* answer: after ``yes`` the model writes the steps as one expression and ends with ``Answer: ...``.
"""

from collections.abc import Sequence
from fractions import Fraction

from typing_extensions import override

from esamp.search.tree_of_thoughts.arithmetic import ArithmeticStep, looks_like_a_step
from esamp.search.tree_of_thoughts.number_game import NumberGame
from esamp.search.tree_of_thoughts.prompts import MAX_THOUGHTS, Ballot, ParsedThoughts, Query, Rating, bounded_lines
from esamp.search.tree_of_thoughts.tree import State
from esamp.tasks.countdown import Rules
from esamp.tasks.countdown.problem import combine

PROPOSE_TOKENS, LINE_TOKENS, ANSWER_TOKENS = 192, 24, 160
"""Most tokens of a call. `PROPOSE_TOKENS` is halved after the first thought: traces rarely return to equal states."""

GIVEN_UP = ("too small", "too far")


class TracePrompts(NumberGame):
    """Continues traces. Intermediate results are positive integers up to 100, as in the training data."""

    name = "trace"

    @override
    def thought(self, step: ArithmeticStep, left: Sequence[Fraction]) -> str:
        """``8 - 3 = 5 left 5 9 5``, and at the end ``8 * 3 = 24 yes``."""
        if len(left) > 1:
            return f"{step} left {' '.join(map(str, left))}"
        return f"{step} {'yes' if left[0] == self.problem.target else f'not {self.problem.target}'}"

    @override
    def allowed(self, step: ArithmeticStep) -> bool:
        """The larger number comes first, and the result is a positive integer."""
        if step.left < step.right or step.result > Rules().ceiling:
            return False
        return combine(int(step.left), int(step.right), step.op) == step.result

    @override
    def propose(self, state: State) -> Query:
        return Query(self._trace(state), PROPOSE_TOKENS // (2 if state.thoughts else 1), ("Answer",))

    @override
    def sample(self, state: State) -> Query:
        return Query(f"{self._trace(state)}{'' if state.thoughts else 'try'}", LINE_TOKENS, ("\n",))

    @override
    def answer(self, state: State) -> Query:
        return Query(self._trace(state), ANSWER_TOKENS, final=True)

    @override
    def value(self, state: State) -> Query:
        """The rest of the current try. The last line is left open, since a trace gives up at the end of a line."""
        tokens = LINE_TOKENS * max(len(state.left) - 1, 1)
        return Query(self._trace(state).rstrip("\n"), tokens, ("try", "Answer", f"\n{self.problem.target} ="))

    @override
    def read(self, state: State, text: str) -> ParsedThoughts:
        """The steps that the tries in a text take from `state` or a state with the same key."""
        wanted, current = self.key(state), state
        states: dict[str, State] = {}
        rejected = []
        invalid = False  # whether the current try has made an invalid step
        for line in bounded_lines(text):
            if line.startswith("try"):
                current, invalid = self.root, False
            if invalid or not looks_like_a_step(line):
                continue
            following = self.after(current, line)
            if following is None:
                rejected.append(line)
                invalid = True
                continue
            if self.key(current) == wanted and (child := self.after(state, line)) and len(states) < MAX_THOUGHTS:
                states.setdefault(child.thoughts[-1], child)
            current = following
        return ParsedThoughts(tuple(states.values()), tuple(rejected))

    @override
    def read_value(self, state: State, text: str) -> Rating | None:
        """The rating by the end of the try, if all its steps are valid."""
        end, _, rest = text.partition("\n")
        if end.strip():
            return "impossible" if end.strip() in GIVEN_UP else None
        for line in bounded_lines(rest):
            following = self.after(state, line)
            if following is None:
                return None
            if line.endswith(GIVEN_UP):
                return "likely"
            if len(following.left) == 1:
                return "sure" if following.left[0] == self.problem.target else "likely"
            state = following
        return None

    @override
    def ballots(self, states: Sequence[State], parents: Sequence[State]) -> list[Ballot]:
        """One for each parent: a sample of the next line."""
        children: dict[State, list[int]] = {}
        for place, parent in enumerate(parents):
            children.setdefault(parent, []).append(place)
        return [Ballot(self.sample(parent), tuple(places)) for parent, places in children.items()]

    @override
    def read_vote(self, ballot: Ballot, states: Sequence[State], text: str) -> int | None:
        """The candidate that the line leads to, or one with the same key."""
        for place in ballot.candidates:
            parent = self._parent(states[place])
            following = self.after(parent, text)
            if following is not None and self.key(following) == self.key(states[place]):
                return place
        return None

    @override
    def text(self, state: State) -> str:
        return self._trace(state, with_prompt=False).rstrip("\n")

    def _trace(self, state: State, *, with_prompt: bool = True) -> str:
        """The prompt and the thoughts so far, one per line. The prompt is left out unless `with_prompt`."""
        prompt = self.problem.prompt() if with_prompt else ""
        return "\n".join([prompt, *(f"{'' if n else 'try '}{thought}" for n, thought in enumerate(state.thoughts)), ""])

    def _parent(self, state: State) -> State:
        parent = self.root
        for thought in state.thoughts[:-1]:
            following = self.after(parent, thought)
            assert following is not None  # thoughts were checked when the state was created
            parent = following
        return parent
