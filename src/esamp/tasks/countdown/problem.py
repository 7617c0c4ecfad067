"""Countdown problems: their form and prompt, random generation, and the fixed test split.

A problem is a list of numbers and a target. A solution combines all the numbers, each once, with + - * / so that the
result is the target and every intermediate result is a positive integer. Random problems are built forwards: the
numbers are combined at random and the outcome becomes the target, so each problem comes with a path that solves it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

OPERATORS = "+-*/"
PROMPT = re.compile(r"Numbers((?: [0-9]{1,9}){1,16}) target ([0-9]{1,9})", re.ASCII)


class Operation(NamedTuple):
    """One operation, `left op right = result`, with left >= right and a positive integer result."""

    left: int
    op: str
    right: int
    result: int


@dataclass(frozen=True)
class Problem:
    """The numbers, in the order of the prompt, and the target."""

    numbers: tuple[int, ...]
    target: int

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """The sorted numbers and the target; two problems with the same key are the same."""
        return tuple(sorted(self.numbers)), self.target

    def prompt(self) -> str:
        """The prompt in the form on which the embedded model was trained."""
        return f"Numbers {' '.join(map(str, self.numbers))} target {self.target}"

    @classmethod
    def of_prompt(cls, text: str) -> Problem | None:
        """The problem whose prompt is this text; None if the text has another form."""
        match = PROMPT.fullmatch(text.strip())
        return None if match is None else cls(tuple(map(int, match[1].split())), int(match[2]))


@dataclass(frozen=True)
class HeldOut:
    """A held-out problem with the number of its canonical solutions."""

    problem: Problem
    solutions: int


@dataclass(frozen=True)
class Rules:
    """The distribution of random problems. `ceiling` bounds every result, and thus the vocabulary of integers."""

    sizes: tuple[int, ...] = (4, 4, 5, 5, 6)  # how many numbers; drawn uniformly
    largest_number: int = 15
    smallest_target: int = 10
    largest_target: int = 50
    ceiling: int = 100


def combine(a: int, b: int, op: str) -> int | None:
    """`a op b` for a >= b, or None where the result is not a positive integer."""
    if op == "+":
        return a + b
    if op == "*":
        return a * b
    if op == "-":
        return a - b if a > b else None
    return a // b if b and a % b == 0 else None


def moves(numbers: tuple[int, ...], ceiling: int) -> list[Operation]:
    """Every distinct step on two of these numbers whose result is at most the ceiling."""
    operations: dict[Operation, None] = {}
    for i, x in enumerate(numbers):
        for y in numbers[i + 1 :]:
            a, b = (x, y) if x >= y else (y, x)
            for op in OPERATORS:
                result = combine(a, b, op)
                if result is not None and result <= ceiling:
                    operations[Operation(a, op, b, result)] = None
    return list(operations)


def apply(numbers: tuple[int, ...], step: Operation) -> tuple[int, ...]:
    """The numbers after a step: its operands removed and its result appended."""
    left = list(numbers)
    left.remove(step.left)
    left.remove(step.right)
    return (*left, step.result)


def random_step(numbers: tuple[int, ...], rng: random.Random, ceiling: int) -> Operation:
    """A step on a random pair with a random operator (one always exists: a - b if a > b, else a / a)."""
    while True:
        i = rng.randrange(len(numbers))
        j = rng.randrange(len(numbers) - 1)
        x, y = numbers[i], numbers[j + (j >= i)]
        a, b = (x, y) if x >= y else (y, x)
        op = OPERATORS[rng.randrange(4)]
        result = combine(a, b, op)
        if result is not None and result <= ceiling:
            return Operation(a, op, b, result)


def random_problem(rng: random.Random, rules: Rules) -> tuple[Problem, list[Operation]]:
    """A random problem and a path of steps that solves it."""
    size = rng.choice(rules.sizes)
    while True:
        numbers = tuple(rng.randint(1, rules.largest_number) for _ in range(size))
        left, path = numbers, []
        while len(left) > 1:
            path.append(random_step(left, rng, rules.ceiling))
            left = apply(left, path[-1])
        if len(left) == 1 and rules.smallest_target <= left[0] <= rules.largest_target:
            return Problem(numbers, left[0]), path


def random_problems(seed: int, rules: Rules | None = None) -> Iterator[Problem]:
    """An endless, seeded stream of solvable problems, with repetitions and problems of the test split."""
    rng = random.Random(seed)
    while True:
        yield random_problem(rng, rules or Rules())[0]


def held_out_problems() -> list[HeldOut]:
    """The fixed test split, in the order of its file. Training excludes every problem with the key of one of these."""
    text = files(__package__).joinpath("test.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [HeldOut(Problem(tuple(row["numbers"]), row["target"]), row["solutions"]) for row in rows]
