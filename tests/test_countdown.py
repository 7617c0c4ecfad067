"""Countdown: the solver against brute force, the canonical form, the grader against hostile text, split and traces."""

from __future__ import annotations

import random
from contextlib import suppress
from fractions import Fraction
from itertools import combinations, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esamp.errors import OptionError
from esamp.models.data import PAD, Traces
from esamp.models.tokenizer import vocabulary
from esamp.tasks.base import Item, Task
from esamp.tasks.countdown import (
    Countdown,
    ExpressionError,
    Problem,
    Rules,
    canonical,
    grade_answer,
    held_out_problems,
    random_problems,
    solve,
)
from esamp.tasks.countdown.expression import MAX_DEPTH, MAX_LENGTH, parse
from esamp.tasks.countdown.task import CountdownOptions
from esamp.tasks.countdown.trace import Habits, random_trace

Tree = int | tuple["Tree", str, "Tree"]
small = st.integers(1, 12)
seeds = st.integers(0, 2**32)


def brute_force(terms: list[tuple[int, str]], target: int) -> set[str]:
    """Canonical solutions by combining every pair in every way, including duplicates."""
    if len(terms) == 1:
        return {canonical(terms[0][1])} if terms[0][0] == target else set()
    found: set[str] = set()
    for i, j in combinations(range(len(terms)), 2):
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        for (a, x), (b, y) in ((terms[i], terms[j]), (terms[j], terms[i])):
            results = {"+": a + b, "*": a * b}
            if a > b:
                results["-"] = a - b
            if a % b == 0:
                results["/"] = a // b
            for op, value in results.items():
                found |= brute_force([*rest, (value, f"({x} {op} {y})")], target)
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(small, min_size=1, max_size=4), st.integers(1, 40))
def test_solver_agrees_with_brute_force(numbers: list[int], target: int) -> None:
    assert set(solve(numbers, target)) == brute_force([(n, str(n)) for n in numbers], target)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_every_drawn_problem_is_solvable_and_every_solution_grades_correct(seed: int) -> None:
    problem = next(random_problems(seed, Rules(sizes=(4, 5))))
    solutions = solve(problem.numbers, problem.target)
    assert solutions
    assert len(set(solutions)) == len(solutions)
    for solution in solutions:
        grade = grade_answer(problem, f"Answer: {solution}")
        assert grade.correct, grade.reason
        assert grade.canonical == solution  # canonical texts are fixed points


def test_the_solver_refuses_invalid_numbers_and_targets() -> None:
    for numbers, target in (([], 5), ([0, 3], 3), ([3, 4], 0)):
        with pytest.raises(ValueError, match="positive"):
            solve(numbers, target)


# -- the canonical form ------------------------------------------------------------------------------------------------

trees: st.SearchStrategy[Tree] = st.recursive(
    small, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner), max_leaves=6
)


def write(tree: Tree) -> str:
    return str(tree) if isinstance(tree, int) else f"({write(tree[0])} {tree[1]} {write(tree[2])})"


def value(tree: Tree) -> Fraction:
    if isinstance(tree, int):
        return Fraction(tree)
    a, b = value(tree[0]), value(tree[2])
    return {"+": a + b, "-": a - b, "*": a * b}[tree[1]] if tree[1] != "/" else a / b


def rewrite(tree: Tree, rng: random.Random) -> Tree:
    """The same expression written differently: commuted, or re-associated across one bracket."""
    if isinstance(tree, int):
        return tree
    a, op, b = rewrite(tree[0], rng), tree[1], rewrite(tree[2], rng)
    strong, weak = ("*", "/") if op in "*/" else ("+", "-")
    if not isinstance(b, int) and b[1] in (strong, weak) and rng.random() < 0.5:
        inner = op if b[1] == strong else (strong if op == weak else weak)  # a - (b - c) = (a - b) + c
        return (a, op, b[0]), inner, b[2]
    if not isinstance(a, int) and a[1] in (strong, weak) and rng.random() < 0.5:
        inner = op if a[1] == strong else (strong if op == weak else weak)  # (a - b) + c = a - (b - c)
        return a[0], a[1], (a[2], inner, b)
    return (b, op, a) if op == strong and rng.random() < 0.5 else (a, op, b)


@settings(max_examples=300, deadline=None)
@given(trees, seeds)
def test_rewriting_an_expression_keeps_its_canonical_form(tree: Tree, seed: int) -> None:
    try:
        expected = value(tree)
        other = rewrite(tree, random.Random(seed))
        assert value(other) == expected  # the rewriting keeps the value
    except ZeroDivisionError:
        return
    form = canonical(write(tree))
    assert canonical(write(other)) == form
    assert parse(write(tree)).value == expected
    if not form.startswith("-"):
        assert parse(form).value == expected
        assert canonical(form) == form


@pytest.mark.parametrize(
    "same",
    [
        ("(7 + 5) - 3", "7 - (3 - 5)", "(5 - 3) + 7", "5+7-3"),
        ("8 / (4 / 2)", "(8 / 4) * 2", "2*8/4"),
        ("(9 - 4) * (8 - 3)", "(4 - 9) * (3 - 8)"),
        ("6 * (3 - 2)", "6 / (3 - 2)"),
        ("9 + 0 * 5", "9 - 5 * 0"),
    ],
)
def test_equal_solutions_have_one_canonical_form(same: tuple[str, ...]) -> None:
    assert len({canonical(text) for text in same}) == 1


@pytest.mark.parametrize("different", [("3 * (2 + 4)", "3 * 2 + 4"), ("2 + 2", "2 * 2"), ("8 - 4 / 2", "(8 - 4) / 2")])
def test_different_solutions_have_different_canonical_forms(different: tuple[str, str]) -> None:
    assert canonical(different[0]) != canonical(different[1])


# -- the grader --------------------------------------------------------------------------------------------------------

PROBLEM = Problem((3, 5, 8, 9), 24)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no answer"),
        ("9 * 3 + 5 - 8", "no answer"),
        ("Answer:", "not an expression: it is incomplete"),
        ("Answer: 24", "does not use each number exactly once"),
        ("Answer: 9 * 3 + 5 - 8 + 0", "does not use each number exactly once"),
        ("Answer: 8 * 3", "does not use each number exactly once"),
        ("Answer: 3 + 5 + 8 + 9", "makes 25, not 24"),
        ("Answer: 9 * 3 + 5 - 8\nAnswer: 8 * 3", "does not use each number exactly once"),
        ("Answer: 9 * 3 + 5 - 8 = 25", "not an expression: '=' is not followed by the target"),
        ("Answer: 3 / (8 - 3 - 5)", "not an expression: division by zero"),
        ("Answer: 3 ** 5", "not an expression: a number is missing before '*'"),
        ("Answer: 3 // 5", "not an expression: a number is missing before '/'"),
        ("Answer: -3 + 5", "not an expression: a number is missing before '-'"),
        ("Answer: __import__('os')", "not an expression: unexpected '__import__'"),
        ("Answer: 3.5 + 8", "not an expression: unexpected '.5 + 8'"),
        ("Answer: (3 + 5", "not an expression: a bracket is not closed"),
        ("Answer: 3 + 5)", "not an expression: unexpected ')'"),
        ("Answer: 3 5", "not an expression: unexpected '5'"),
        ("Answer: ٣ + 5", "not an expression: unexpected '٣ + 5'"),
        ("Answer: ² + 5", "not an expression: unexpected '² + 5'"),
        ("Answer: 1" + "0" * 100, "not an expression: a number has more than 9 digits"),
        ("Answer: " + "(" * 60 + "3" + ")" * 60, f"not an expression: brackets nested deeper than {MAX_DEPTH}"),
        ("Answer: " + "9*" * 1_000_000 + "9", f"not an expression: longer than {MAX_LENGTH} characters"),
    ],
)
def test_wrong_and_hostile_answers_are_incorrect_with_a_reason(text: str, reason: str) -> None:
    grade = grade_answer(PROBLEM, text)
    assert not grade.correct
    assert grade.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "Answer: 9 * 3 + 5 - 8",
        "answer : (9×3) + (5 − 8)",  # negative intermediate results are allowed
        "Answer: 8 * 3\nno:\nAnswer: 9*3+5-8 = 24\nbye",
        "Answer: 3 + 4\nAnswer: 5 - 8 + 3 * 9",
    ],
)
def test_right_answers_are_correct(text: str) -> None:
    grade = grade_answer(PROBLEM, text)
    assert grade.correct, grade.reason
    assert grade.canonical == "9 * 3 + 5 - 8"


def test_fractions_are_exact() -> None:
    assert grade_answer(Problem((3, 3, 8, 8), 24), "Answer: 8 / (3 - 8 / 3)").correct


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("0123456789+-*/()= \n"), st.characters()), max_size=80))
def test_any_text_gets_a_grade(text: str) -> None:
    grade = grade_answer(PROBLEM, "Answer: " + text)
    assert grade.correct == (grade.reason == "correct")
    with suppress(ExpressionError):
        parse(text)


# -- the task, its split and its traces --------------------------------------------------------------------------------


def test_the_test_split_is_fixed_and_its_solutions_are_counted() -> None:
    tests = held_out_problems()
    assert len(tests) == 300
    assert len({test.problem.key for test in tests}) == 300
    assert {len(test.problem.numbers) for test in tests} == {4, 5, 6}
    for test in tests[:10]:
        assert test.solutions == len(solve(test.problem.numbers, test.problem.target)) > 0


def test_items_are_reproducible_and_training_excludes_the_test_split() -> None:
    task: Task = Countdown()
    first = task.items(limit=1)[0]
    assert first.id == "countdown/test/000"
    assert first.prompt.startswith("Numbers ")
    train = task.items("train", limit=50)
    assert train == task.items("train", limit=50)
    held_out = {test.problem.key for test in held_out_problems()}
    assert all(Problem(item.data["numbers"], item.data["target"]).key not in held_out for item in train)  # type: ignore[arg-type]
    assert task.grade(Item("x", "", {"numbers": (3, 5, 8, 9), "target": 24}), "Answer: 9*3+5-8").correct
    with pytest.raises(ValueError, match="split"):
        task.items("dev")
    with pytest.raises(OptionError, match="limit"):
        task.items("train")


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_option_sizes_selects_problems(split: str) -> None:
    task = Countdown.build(CountdownOptions(sizes=(5, 6), split=split))
    found = task.items(limit=40)
    assert len(found) == 40
    assert {len(numbers(item)) for item in found} == {5, 6}
    whole = [item for item in Countdown(split=split).items(limit=200) if len(numbers(item)) > 4]
    assert [item.prompt for item in found] == [item.prompt for item in whole][:40]
    if split == "test":
        assert found == whole[:40]  # the ids do not depend on sizes
        assert len(task.items()) == 180


def test_unknown_sizes_are_an_error() -> None:
    with pytest.raises(OptionError, match="no problem has 7 numbers"):
        Countdown.build(CountdownOptions(sizes=(5, 7)))


def numbers(item: Item) -> tuple[int, ...]:
    found = item.data["numbers"]
    assert isinstance(found, tuple)
    return found


def test_training_traces_exclude_test_problems() -> None:
    vocab = vocabulary(Rules().ceiling)
    words = list(vocab)
    held_out = {test.problem.key for test in held_out_problems()}
    dataset = Traces(vocab, tokens=4096, context=512, seed=0, rules=Rules(sizes=(4,)), habits=Habits())
    seen = 0
    for ids in islice(dataset.traces(random.Random(1)), 3000):
        text = [words[i] for i in ids]
        end = text.index("target")
        seen += Problem(tuple(map(int, text[2:end])), int(text[end + 1])).key in held_out
    assert seen == 0
    unfiltered = (problem.key for problem in islice(random_problems(1, Rules(sizes=(4,))), 200_000))
    assert any(key in held_out for key in unfiltered)  # without the filter they occur


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_every_line_of_a_trace_is_correct(seed: int) -> None:
    """Every step is correct arithmetic, the numbers left are right, and the answer is graded correct."""
    rules = Rules()
    problem, words = random_trace(random.Random(seed), rules, Habits())
    lines = " ".join(words).split(" \n")
    assert lines[0] == problem.prompt()
    left: list[int] = []
    tries = 0
    for line in (line.strip() for line in lines[1:]):
        if line.startswith("try "):
            left, tries = list(problem.numbers), tries + 1
        if line.startswith("Answer:"):
            assert grade_answer(problem, line).correct
        elif line.split("=")[0].strip() == str(problem.target):
            assert parse(line.split("=")[1]).value == problem.target
        elif line:
            a, op, b, equals, result, *rest = line.removeprefix("try ").split()
            assert equals == "="
            assert value((int(a), op, int(b))) == int(result) <= rules.ceiling
            left.remove(int(a))
            left.remove(int(b))
            left.append(int(result))
            if rest[0] == "left":
                assert [int(word) for word in rest[1 : 1 + len(left)]] == left
            assert (rest[0] == "yes") == (left == [problem.target])
    assert words.count("try") == tries == max(1, tries)


def test_batches_hold_traces_of_similar_length() -> None:
    vocab = vocabulary(Rules().ceiling)
    dataset = Traces(vocab, tokens=2048, context=512, seed=3, rules=Rules(), habits=Habits())
    batches = list(islice(dataset, 20))
    assert all((batch[:, 0] == vocab["<bos>"]).all() for batch in batches)
    assert all(batch.numel() <= 2048 and batch.shape[1] <= 512 for batch in batches)
    filled = sum(int((batch != PAD).sum()) for batch in batches)
    assert filled > 0.9 * sum(batch.numel() for batch in batches)
    assert all((one == other).all() for one, other in zip(dataset, batches, strict=False))
