"""Training traces: a search written out try by try, including dead ends, then the expression that was found.

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

Each try starts from all the numbers and often repeats the first steps of the one before. This is backtracking written
out, and it keeps the steps of the successful try next to the answer that is composed from them. Where the two or three
numbers left can make the target, the try does so. Every line is correct arithmetic.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from .problem import Operation, Problem, Rules, apply, moves, random_problem, random_step

Numbers = tuple[int, ...]
Path = tuple[Operation, ...]

NEAR = 8.0  # scale of the preference for results near the target, in a last step that cannot succeed
FAR = 12  # a pair whose results all miss the target by more than this may be abandoned as "too far"


@dataclass(frozen=True)
class Habits:
    """Probabilities that shape the search in the traces."""

    insight: float = 1.0  # a try with three numbers left that can make the target does so
    give_in: float = 0.12  # after a failed try, the next one is the solution from which the problem was built
    backtrack: float = 0.5  # a try keeps the first steps of its neighbour
    abandon: float = 0.6  # a try that cannot succeed ends early


@dataclass(frozen=True)
class Try:
    """A path of steps. `verdict` is "yes" or "not" for a complete path, else the reason why it was abandoned."""

    path: Path
    verdict: str


@lru_cache(maxsize=1 << 18)
def finish(left: Numbers, target: int, ceiling: int) -> tuple[Path, ...]:
    """All paths from two or three sorted numbers to the target."""
    if len(left) == 2:
        return tuple((step,) for step in moves(left, ceiling) if step.result == target)
    paths: list[Path] = []
    for step in moves(left, ceiling):
        rest = tuple(sorted(apply(left, step)))
        paths.extend((step, *end) for end in finish(rest, target, ceiling))
    return tuple(paths)


def out_of_reach(left: Numbers, target: int) -> bool:
    """Whether an upper bound of the values that these numbers can make is below the target."""
    bound = prod(2 if number == 1 else number for number in left)  # adding a one at most doubles
    return bound < target


def _last_step(left: Numbers, target: int, rng: random.Random, ceiling: int) -> Operation:
    """A random last step that misses the target; results near the target are more likely."""
    steps = moves(left, ceiling)
    weights = [2.0 ** (-abs(step.result - target) / NEAR) for step in steps]
    return rng.choices(steps, weights)[0]


def random_try(problem: Problem, start: Path, rng: random.Random, rules: Rules, habits: Habits) -> Try:
    """A try that begins with the steps of `start` and continues at random until two or three numbers decide it."""
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
    """The first steps that a try keeps from a neighbouring one: none, or up to all but the last two."""
    longest = len(path) - 2
    if longest < 1 or rng.random() >= habits.backtrack:
        return ()
    return path[: rng.randint(1, longest)]


def search(problem: Problem, solution: Path, rng: random.Random, rules: Rules, habits: Habits) -> list[Try]:
    """Failed tries followed by a successful one, which is the known solution or one that a random try found.

    Tries are drawn from the last to the first, so that a failed try can share its first steps with the solution.
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


def _words(step: Operation) -> list[str]:
    return [str(step.left), step.op, str(step.right), "=", str(step.result)]


def _try_words(attempt: Try, problem: Problem) -> list[str]:
    """The lines of one try: each step with the numbers left, and the verdict."""
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
    """The lines that compose the answer: each replaces one intermediate result by the step that produced it."""
    expression = _words(path[-1])[:3]
    lines: list[str] = []
    for step in reversed(path[:-1]):
        at = expression.index(str(step.result))
        expression[at : at + 1] = ["(", *_words(step)[:3], ")"]
        lines += [str(target), "=", *expression, "\n"]
    return [*lines[: -len(expression) - 3], "Answer:", *expression, "\n"]


def trace_words(problem: Problem, tries: list[Try]) -> list[str]:
    """The trace as words of the model's vocabulary, with the prompt but without begin and end markers."""
    words = [*problem.prompt().split(), "\n"]
    for attempt in tries:
        words += _try_words(attempt, problem)
    return words + _answer_words(tries[-1].path, problem.target)


def random_trace(rng: random.Random, rules: Rules, habits: Habits) -> tuple[Problem, list[str]]:
    """A random problem and a trace that solves it."""
    problem, path = random_problem(rng, rules)
    return problem, trace_words(problem, search(problem, tuple(path), rng, rules, habits))
