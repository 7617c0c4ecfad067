"""The Countdown task: held-out or random problems, and an exact grader."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal, Self

from pydantic import Field
from typing_extensions import override

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
    """the fixed 300 problems (test), or random ones (train)"""
    problem_seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the random problems"""
    sizes: tuple[int, ...] = Field(default=(4, 5, 6), min_length=1, strict=False)
    """only problems with these counts of numbers"""


class Countdown(Task):
    """Make the target from all the numbers.

    Splits: "test" (300 fixed problems) and "train" (random problems from a seed). The data of an item are its numbers
    and target, and in the test split the number of its solutions.
    """

    name = "countdown"
    summary = "make the target from all the numbers; the embedded model plays it"
    source = "generated; every solution is known, the grade is exact"
    options = CountdownOptions

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        chosen = narrowed(options, CountdownOptions)
        if unknown := set(chosen.sizes) - set(Rules().sizes):
            raise OptionError(f"option 'sizes': no problem has {min(unknown)} numbers: choose from 4, 5 and 6")
        return cls(chosen.problem_seed, split=chosen.split, sizes=chosen.sizes)

    def __init__(
        self, seed: int = 0, rules: Rules | None = None, *, split: str = "test", sizes: Sequence[int] | None = None
    ) -> None:
        """Choose the problems.

        Args:
            seed: seed of the split "train".
            rules: distribution of the split "train".
            split: the default split of `items`.
            sizes: only problems with these counts of numbers; None for all.
        """
        self.seed, self.rules, self.split = seed, rules or Rules(), split
        self.sizes = frozenset(self.rules.sizes if sizes is None else sizes)

    @override
    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        split = self.split if split is None else split
        if split == "test":
            tests = [(n, test) for n, test in enumerate(held_out_problems()) if self._has_size(test.problem)][:limit]
            return [self._item(f"test/{n:03d}", test.problem, solutions=test.solutions) for n, test in tests]
        if split != "train":
            raise ValueError(f"split must be 'test' or 'train', got {split!r}")
        if limit is None:
            raise OptionError("split = 'train' has no end: give a limit")
        held_out = {test.problem.key for test in held_out_problems()}
        every = random_problems(self.seed, self.rules)
        drawn = (problem for problem in every if problem.key not in held_out and self._has_size(problem))
        return [self._item(f"train/{self.seed}/{n}", problem) for n, problem in enumerate(islice(drawn, limit))]

    def item(self, prompt: str) -> Item | None:
        """The item for a prompt in this task's form; None if the prompt has another form."""
        problem = Problem.of_prompt(prompt)
        return None if problem is None else self._item("prompt", problem)

    def _has_size(self, problem: Problem) -> bool:
        return len(problem.numbers) in self.sizes

    def _item(self, place: str, problem: Problem, **more: object) -> Item:
        data = {"numbers": problem.numbers, "target": problem.target, **more}
        return Item(f"{self.name}/{place}", problem.prompt(), data)

    @override
    def grade(self, item: Item, text: str) -> Grade:
        """Grade the expression after the last ``Answer:`` or in the last box; intermediate fractions are allowed."""
        numbers, target = item.data["numbers"], item.data["target"]
        if not isinstance(numbers, tuple) or not isinstance(target, int):
            raise TypeError(f"{item.id} is not a Countdown item: its data needs `numbers` and `target`")
        return grade_answer(Problem(numbers, target), text)


def grade_answer(problem: Problem, text: str) -> Grade:
    """The grade of a text: right if it uses each number exactly once and its exact value is the target."""
    stated = final_answer(without_thought(text))
    if stated is None:
        return Grade(False, None, None, "no answer")
    answer = undressed(stated)
    try:
        expression = parse(left_side(arithmetic(stated), problem.target))
    except ExpressionError as error:
        return Grade(False, answer, None, f"not an expression: {error}")
    if sorted(expression.numbers) != sorted(problem.numbers):
        return Grade(False, answer, expression.canonical, "does not use each number exactly once")
    if expression.value != problem.target:
        return Grade(False, answer, expression.canonical, f"makes {expression.value}, not {problem.target}")
    return Grade(True, answer, expression.canonical, "correct")
