"""Training traces: a search written out try by try, dead ends and all, then the expression that was found.

    Numbers 3 5 8 9 target 24
    try 8 - 3 = 5 left 5 9 5
    9 + 5 = 14 left 5 14
    14 + 5 = 19 not 24
    try 8 - 3 = 5 left 5 9 5
    9 * 5 = 45 left 5 45 too far
    try 8 - 5 = 3 left 3 9 3
    9 / 3 = 3 left 3 3 too small
    try ...
    8 * 3 = 24 yes
    24 = 8 * (9 - 6)
    Answer: 8 * (9 - (3 + 3))

Each try starts from all the numbers, and often repeats the first steps of the one before: that is backtracking, and
it keeps the steps of the successful try together, next to the answer composed from them. A try is never wasted on
purpose: where two or three numbers left can make the target, they do. Every line is correct arithmetic.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from .problem import Problem, Rules, Step, apply, moves, random_problem, random_step

Numbers = tuple[int, ...]
Path = tuple[Step, ...]

NEAR = 8.0  # how sharply a hopeless last step prefers results near the target
FAR = 12  # a pair whose every result misses the target by more than this may be given up as "too far"


@dataclass(frozen=True)
class Habits:
    """How the search in the traces goes about it (probabilities)."""

    insight: float = 1.0  # that a try with three numbers left that can make the target makes it
    give_in: float = 0.12  # after each failed try: that the next one is the solution the problem was built from
    backtrack: float = 0.5  # that a try keeps the beginning of its neighbour
    abandon: float = 0.6  # that a try seen to be hopeless is given up before its end


@dataclass(frozen=True)
class Try:
    """A path of steps; `verdict` is "yes" or "not" for a complete path, else why it was given up."""

    path: Path
    verdict: str


@lru_cache(maxsize=1 << 18)
def finish(left: Numbers, target: int, ceiling: int) -> tuple[Path, ...]:
    """Every way in which two or three numbers (sorted) make the target."""
    if len(left) == 2:
        return tuple((step,) for step in moves(left, ceiling) if step.result == target)
    paths: list[Path] = []
    for step in moves(left, ceiling):
        rest = tuple(sorted(apply(left, step)))
        paths.extend((step, *end) for end in finish(rest, target, ceiling))
    return tuple(paths)


def out_of_reach(left: Numbers, target: int) -> bool:
    """Whether even the largest value that these numbers can make (ones added, the rest multiplied) is too small."""
    bound = prod(2 if number == 1 else number for number in left)  # adding a one at most doubles
    return bound < target


def _last_step(left: Numbers, target: int, rng: random.Random, ceiling: int) -> Step:
    """A last step that misses, the likelier the nearer its result is to the target."""
    steps = moves(left, ceiling)
    weights = [2.0 ** (-abs(step.result - target) / NEAR) for step in steps]
    return rng.choices(steps, weights)[0]


def random_try(problem: Problem, start: Path, rng: random.Random, rules: Rules, habits: Habits) -> Try:
    """A try that begins with the steps of `start` and then moves at random until an end comes into sight."""
    left, path = problem.numbers, list(start)
    for step in start:
        left = apply(left, step)
    while True:
        if len(left) == 2 or (len(left) == 3 and rng.random() < habits.insight):
            ends = finish(tuple(sorted(left)), problem.target, rules.ceiling)
            if ends:
                return Try((*path, *rng.choice(ends)), "yes")
        if len(left) <= 3 and rng.random() < habits.abandon:
            if out_of_reach(left, problem.target):
                return Try(tuple(path), "too small")
            if len(left) == 2 and all(abs(step.result - problem.target) > FAR for step in moves(left, 10**6)):
                return Try(tuple(path), "too far")
        if len(left) == 2:
            return Try((*path, _last_step(left, problem.target, rng, rules.ceiling)), "not")
        path.append(random_step(left, rng, rules.ceiling))
        left = apply(left, path[-1])


def _shared(path: Path, rng: random.Random, habits: Habits) -> Path:
    """The part of a neighbouring try that this one keeps: nothing, or its first steps but for the last two."""
    longest = len(path) - 2
    if longest < 1 or rng.random() >= habits.backtrack:
        return ()
    return path[: rng.randint(1, longest)]


def search(problem: Problem, solution: Path, rng: random.Random, rules: Rules, habits: Habits) -> list[Try]:
    """Failed tries and then a successful one: the known solution, or another that a try came upon first.

    Tries are drawn from the end backwards, so that a failed try can share its beginning with the solution.
    """
    tries = [Try(solution, "yes")]
    seen = {solution}
    while rng.random() >= habits.give_in:
        attempt = random_try(problem, _shared(tries[-1].path, rng, habits), rng, rules, habits)
        if attempt.verdict == "yes":
            tries = [attempt]
            seen = {attempt.path}
        elif attempt.path not in seen:
            tries.append(attempt)
            seen.add(attempt.path)
    return tries[::-1]


def _words(step: Step) -> list[str]:
    return [str(step.left), step.op, str(step.right), "=", str(step.result)]


def _try_words(attempt: Try, problem: Problem) -> list[str]:
    """The lines of one try: a step and what is left, and at the end the verdict."""
    words, left = ["try"], problem.numbers
    for step in attempt.path:
        left = apply(left, step)
        words += _words(step)
        if len(left) > 1:
            words += ["left", *map(str, left), "\n"]
    if attempt.verdict == "not":
        return [*words, "not", str(problem.target), "\n"]
    if attempt.verdict == "yes":
        return [*words, "yes", "\n"]
    return [*words[:-1], *attempt.verdict.split(), "\n"]


def _answer_words(path: Path, target: int) -> list[str]:
    """The expression, unfolded step by step: each line replaces one intermediate result by the step that made it."""
    expression = _words(path[-1])[:3]
    lines: list[str] = []
    for step in reversed(path[:-1]):
        at = expression.index(str(step.result))
        expression[at : at + 1] = ["(", *_words(step)[:3], ")"]
        lines += [str(target), "=", *expression, "\n"]
    return [*lines[: -len(expression) - 3], "Answer:", *expression, "\n"]


def trace_words(problem: Problem, tries: list[Try]) -> list[str]:
    """The whole trace as words of the model's vocabulary, prompt included, beginning and end markers not."""
    words = [*problem.prompt().split(), "\n"]
    for attempt in tries:
        words += _try_words(attempt, problem)
    return words + _answer_words(tries[-1].path, problem.target)


def random_trace(rng: random.Random, rules: Rules, habits: Habits) -> tuple[Problem, list[str]]:
    """A random problem and a trace that solves it."""
    problem, path = random_problem(rng, rules)
    return problem, trace_words(problem, search(problem, tuple(path), rng, rules, habits))
