"""The Countdown task: held-out or freshly drawn problems, and an exact grader."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal, Self

from pydantic import Field

from esamp.errors import OptionError
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, Task
from esamp.tasks.final_answer import final_answer, undressed
from esamp.tasks.thought import without_thought

from .expression import ExpressionError, parse
from .notation import arithmetic, left_side
from .problem import Problem, Rules, held_out_problems, random_problems


class CountdownOptions(Options):
    """Options of Countdown."""

    split: Literal["test", "train"] = "test"
    """the fixed 300 problems, or freshly drawn ones"""
    problem_seed: int = Field(0, ge=0, lt=2**63)
    """seed of the freshly drawn ones"""
    sizes: tuple[int, ...] = Field((4, 5, 6), min_length=1, strict=False)
    """only problems with so many numbers"""


class Countdown(Task):
    """Make the target from all the numbers. Splits: "test" (fixed, 300 problems) and "train" (drawn from a seed)."""

    name = "countdown"
    summary = "make the target from all the numbers; the embedded model plays it"
    source = "generated; every solution is known, the grade is exact"
    options = CountdownOptions

    @classmethod
    def build(cls, options: Options) -> Self:
        """Nothing is loaded: the problems come with the package or are drawn."""
        wanted = narrowed(options, CountdownOptions)
        if unknown := set(wanted.sizes) - set(Rules().sizes):
            raise OptionError(f"option 'sizes': no problem has {min(unknown)} numbers: choose from 4, 5 and 6")
        return cls(wanted.problem_seed, split=wanted.split, sizes=wanted.sizes)

    def __init__(
        self, seed: int = 0, rules: Rules | None = None, *, split: str = "test", sizes: Sequence[int] | None = None
    ) -> None:
        """Draw training problems from `seed` by `rules`; keep only those with as many numbers as `sizes` say."""
        self.seed, self.rules, self.split = seed, rules or Rules(), split
        self.sizes = frozenset(self.rules.sizes if sizes is None else sizes)

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """Problems of a split. The data of an item: numbers, target, and in the test split the number of solutions."""
        split = self.split if split is None else split
        if split == "test":
            tests = [(n, test) for n, test in enumerate(held_out_problems()) if self._wanted(test.problem)][:limit]
            return [self._item(f"test/{n:03d}", test.problem, solutions=test.solutions) for n, test in tests]
        if split != "train":
            raise ValueError(f"split must be 'test' or 'train', got {split!r}")
        if limit is None:
            raise OptionError("split = 'train' has no end: give a limit")
        held_out = {test.problem.key for test in held_out_problems()}
        every = random_problems(self.seed, self.rules)
        drawn = (problem for problem in every if problem.key not in held_out and self._wanted(problem))
        return [self._item(f"train/{self.seed}/{n}", problem) for n, problem in enumerate(islice(drawn, limit))]

    def item(self, prompt: str) -> Item | None:
        """The problem that a prompt of this task's form asks for; None if the prompt has another form."""
        problem = Problem.of_prompt(prompt)
        return None if problem is None else self._item("prompt", problem)

    def _wanted(self, problem: Problem) -> bool:
        return len(problem.numbers) in self.sizes

    def _item(self, where: str, problem: Problem, **more: object) -> Item:
        data = {"numbers": problem.numbers, "target": problem.target, **more}
        return Item(f"{self.name}/{where}", problem.prompt(), data)

    def grade(self, item: Item, text: str) -> Grade:
        """Grade the expression after the last "Answer:" or in the last box; fractions on the way are allowed."""
        numbers, target = item.data["numbers"], item.data["target"]
        if not isinstance(numbers, tuple) or not isinstance(target, int):
            raise TypeError(f"{item.id} is no Countdown item: its data needs `numbers` and `target`")
        return grade_answer(Problem(numbers, target), text)


def grade_answer(problem: Problem, text: str) -> Grade:
    """The grade of a text for a problem: each number used exactly once and the exact value equal to the target."""
    said = final_answer(without_thought(text))
    if said is None:
        return Grade(False, None, None, "no answer")
    answer = undressed(said)
    try:
        expression = parse(left_side(arithmetic(said), problem.target))
    except ExpressionError as error:
        return Grade(False, answer, None, f"not an expression: {error}")
    if sorted(expression.numbers) != sorted(problem.numbers):
        return Grade(False, answer, expression.canonical, "does not use each number exactly once")
    if expression.value != problem.target:
        return Grade(False, answer, expression.canonical, f"makes {expression.value}, not {problem.target}")
    return Grade(True, answer, expression.canonical, "correct")
