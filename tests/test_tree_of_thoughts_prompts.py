"""The prompts of Tree of Thoughts: which prompts a request gets, the worked examples, and the parsing of replies."""

import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.engines.base import Request
from esamp.search.tree_of_thoughts import TreeOfThoughtsOptions, few_shot
from esamp.search.tree_of_thoughts.arithmetic import expressions, read_step, stated_problem
from esamp.search.tree_of_thoughts.few_shot import FewShotPrompts
from esamp.search.tree_of_thoughts.general import GeneralPrompts
from esamp.search.tree_of_thoughts.method import prompts_for
from esamp.search.tree_of_thoughts.prompts import MAX_THOUGHTS, Ballot, Query, chosen_candidate, last_rating
from esamp.search.tree_of_thoughts.trace import TracePrompts
from esamp.tasks.countdown import Problem, grade_answer
from esamp.tasks.countdown.expression import parse

IN_WORDS = "Use the numbers 4 5 6 10 to make 24."


@pytest.mark.parametrize(
    ("prompt", "family"),
    [
        ("Numbers 3 5 8 9 target 24", TracePrompts),
        (" numbers: 3, 5, 8, 9; target: 24.\n", TracePrompts),
        (({"role": "user", "content": "Numbers 3 5 8 9 target 24"},), FewShotPrompts),
        ("4 5 6 10", FewShotPrompts),
        (IN_WORDS, FewShotPrompts),
        ("With the numbers 4, 5, 6 and 10, how can one make 24?", FewShotPrompts),
        ("Write a story about the numbers 3 and 5.", GeneralPrompts),
        ("4 5 6", GeneralPrompts),
        ("number " + " " * 100_000 + "1", GeneralPrompts),
        ("", GeneralPrompts),
    ],
    ids=[f"prompt-{number}" for number in range(10)],
)
def test_by_default_the_form_of_the_request_selects_the_prompts(prompt: Any, family: type) -> None:
    assert type(prompts_for(Request("r", prompt, method="tree_of_thoughts"), TreeOfThoughtsOptions())) is family


def test_the_worked_examples_are_correct() -> None:
    """Checks every step, every list of numbers left and every answer in the prompts."""
    game = re.compile(r"Numbers: ([\d ]+)\nTarget: (\d+)\nSteps:\n((?:.+\n)+?)(Answer: .+)\n")
    games = game.findall(few_shot.CHAIN)
    assert len(games) == 3
    for numbers, target, lines, last in games:
        problem = Problem(tuple(map(int, numbers.split())), int(target))
        prompts = FewShotPrompts(problem, "")
        state = prompts.root
        for line in lines.splitlines():
            following = prompts.after(state, line)
            assert following is not None, line
            assert following.thoughts[-1] == line
            state = following
        assert prompts.answers_next(state, 1)
        assert prompts.read_answer(state, last).solved
    prompts = FewShotPrompts(Problem((3, 5, 12), 24), "")
    listed = few_shot.PROPOSE.partition("steps:\n")[2].partition("\n\n")[0]
    parsed = prompts.read(prompts.root, listed)
    assert not parsed.rejected
    shown = [sorted(re.findall(r"\d+", line.partition("left:")[2])) for line in listed.splitlines()]
    assert [sorted(map(str, state.left)) for state in parsed.states] == shown
    equations = re.findall(r"([\d+*() -]+) = (\d+)", few_shot.VALUE)
    assert len(equations) == 11
    for written, result in equations:
        assert grade_answer(Problem((), int(result)), f"Answer: {written}").reason.startswith("does not use each")
        assert parse(written).value == int(result)


def test_steps_combine_into_one_expression() -> None:
    left = [Fraction(number) for number in (1, 5, 5, 5)]
    path = []
    for line in ("1 / 5 = 0.2", "5 - 0.2 = 4.8", "4.8 * 5 = 24"):
        step = read_step(line, left)
        assert step is not None
        path.append(step)
        left.remove(step.left)
        left.remove(step.right)
        left.append(step.result)
    assert expressions((1, 5, 5, 5), path) == ["((5 - (1 / 5)) * 5)"]
    assert left == [24]


@pytest.mark.parametrize(
    "line",
    [
        "8 - 3 = 6",  # wrong
        "8 - 7 = 1",  # no 7
        "3 + 3 = 6",  # only one 3
        "8 / 0 = 0",
        "9 / 8 = 1.2",  # rounds to 1.1
        "999999999 + 1 = 1000000000",
        "8 3 = 5",
        "8 - 3",
        "eight - three = five",
        "8 ** 3 = 512",
        "８ - ３ = ５",
    ],
)
def test_invalid_steps_are_rejected(line: str) -> None:
    assert read_step(line, [Fraction(number) for number in (3, 5, 8, 9, 0)]) is None


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("8 - 3 = 5 (left: 9 9 9)", "5"),
        ("3) 8-3=5.", "5"),
        ("* **8 × 3 = 24**", "24"),
        ("3 − 8 = -5", "-5"),
        ("8 ÷ 3 = 2.67", "8/3"),
        ("8 / 3 = 8/3", "8/3"),
        ("I take (9 + 5) = 14 next", "14"),
    ],
)
def test_steps_are_read_in_many_notations(line: str, result: str) -> None:
    step = read_step(line, [Fraction(number) for number in (3, 5, 8, 9)])
    assert step is not None
    assert step.result == Fraction(result)


arithmetic_noise = st.text(st.sampled_from("0123456789 +-*/=().\nansweryotri"), max_size=200)


@given(st.text(st.characters(codec=None, exclude_categories=[]), max_size=200) | arithmetic_noise)
def test_all_prompts_parse_any_text(text: str) -> None:
    puzzle = Problem((3, 5, 8, 9), 24)
    for prompts in (TracePrompts(puzzle), FewShotPrompts(puzzle, ""), GeneralPrompts("x")):
        parsed = prompts.read(prompts.root, text)
        assert len(parsed.states) <= MAX_THOUGHTS
        ballot = Ballot(Query("", None), tuple(range(len(parsed.states))))
        for state in parsed.states:
            if not isinstance(prompts, GeneralPrompts):
                assert len(state.left) == 3
                [made] = list((Counter(state.left) - Counter(prompts.root.left)).elements()) or [state.left[-1]]
                a, op, b, *_ = state.thoughts[-1].replace("(", "").replace(")", "").split()
                assert plain(Fraction(a), op, Fraction(b)) == made
            vote = prompts.read_vote(ballot, parsed.states, text)
            assert vote is None or vote in ballot.candidates
        assert prompts.read_value(prompts.root, text) in (None, "sure", "likely", "impossible")
        finished = prompts.read_answer(prompts.root, text)
        assert finished.finished
        assert isinstance(prompts.canonical(finished), str)
    stated_problem(text)


def plain(a: Fraction, op: str, b: Fraction) -> Fraction:
    return {"+": a + b, "-": a - b, "*": a * b}[op] if op != "/" else a / b


def test_proposals_in_a_trace_are_the_steps_from_equal_states() -> None:
    prompts = TracePrompts(Problem((3, 5, 8, 9), 24))
    first = prompts.after(prompts.root, "8 - 3 = 5 left 5 9 5")
    assert first is not None
    text = (
        "9 + 5 = 14 left 5 14\n14 + 5 = 19 not 24\n"
        "try 8 - 5 = 3 left 3 9 3\n9 / 3 = 3 left 3 3 too small\n"
        "try 8 - 3 = 5 left 5 9 5\n9 * 5 = 45 left 5 45 too far\n"
        "try 8 - 3 = 6 left 5 9 6\n9 - 5 = 4 left 6 4\n"
        "try 8 - 3 = 5 left 5 9 5\n5 / 5 = 1"
    )
    parsed = prompts.read(first, text)
    assert [state.thoughts for state in parsed.states] == [
        ("8 - 3 = 5 left 5 9 5", "9 + 5 = 14 left 5 14"),
        ("8 - 3 = 5 left 5 9 5", "9 * 5 = 45 left 5 45"),
        ("8 - 3 = 5 left 5 9 5", "5 / 5 = 1 left 9 1"),
    ]
    assert parsed.rejected == ("try 8 - 3 = 6 left 5 9 6",)
    tries = [state.thoughts[0] for state in prompts.read(prompts.root, "try 9 * 8 = 72 left 3 5 72\n" + text).states]
    assert tries == ["9 * 8 = 72 left 3 5 72", "8 - 5 = 3 left 3 9 3", "8 - 3 = 5 left 5 9 5"]
    assert prompts.propose(first).prompt == f"{prompts.problem.prompt()}\ntry 8 - 3 = 5 left 5 9 5\n"


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("\n9 + 8 = 17 left 3 17\n17 + 3 = 20 not 24\n", "likely"),
        ("\n9 * 3 = 27 left 8 27\n27 - 8 = 19 yes\n", "likely"),  # the model's own 'yes' is not trusted
        (" too small\n", "impossible"),
        (" too far\ntry 8", "impossible"),
        ("\n9 * 8 = 72 left 3 72 too far\n", "likely"),
        ("\n9 * 8 = 73 left 3 73\n", None),
        ("\n9 + 8 = 17 left 3 17\n", None),
        ("\n8 + 9 = 17 left 3 17\n17 + 3 = 20 not 24\n", None),
        ("", None),
        (" yes", None),
    ],
)
def test_the_end_of_a_try_gives_the_rating(text: str, rating: str | None) -> None:
    prompts = TracePrompts(Problem((3, 5, 8, 9), 24))
    state = prompts.after(prompts.root, "8 - 5 = 3")
    assert state is not None
    state = replace(state, left=(Fraction(3), Fraction(8), Fraction(9)))
    assert prompts.read_value(state, text) == rating
    two = replace(state, left=(Fraction(8), Fraction(3)))
    assert prompts.read_value(two, "\n8 * 3 = 24 yes\n") == "sure"


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("sure", "sure"),
        ("It cannot be.\n\n**Impossible**.", "impossible"),
        ("sure?\nno: likely\nthat is all", "likely"),
        ("<think>impossible</think> sure", "sure"),
        ("I am not sure, rather impossible", "impossible"),
        ("surely not", None),
        ("", None),
    ],
)
def test_the_last_rating_of_a_text_counts(text: str, rating: str | None) -> None:
    assert last_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The best choice is 2", 11),
        ("the best choice is **Choice 3**.", 12),
        ("The best choice is 1, no: the best choice is 2.", 11),
        ("I think\n2.", 11),
        ("The best choice is 4", None),
        ("The best choice is 0", None),
        ("none of the 3", None),
        ("<think>The best choice is 1</think>The best choice is 2", 11),
    ],
)
def test_the_last_choice_of_a_text_counts(text: str, choice: int | None) -> None:
    assert chosen_candidate(Ballot(Query("", None), (10, 11, 12)), text) == choice
