"""Run time of the functions that read answers, on hostile texts of up to 1 MB: it must be linear in the text."""

from collections.abc import Callable
from typing import Any

import pytest

from esamp.search import stated_answers
from esamp.tasks import registry
from esamp.tasks.base import Item
from esamp.tasks.code import MBPP, CodeOptions, HumanEval, fenced, plain_code
from esamp.tasks.contest import Contest
from esamp.tasks.countdown.problem import Problem
from esamp.tasks.countdown.task import grade_answer
from esamp.tasks.final_answer import undressed
from esamp.tasks.gpqa import last_letter
from esamp.tasks.livecodebench import LiveCodeBench, LiveCodeBenchOptions
from esamp.tasks.math_answer import GSM8K, Math500
from esamp.tasks.math_verifier import MathVerifier
from esamp.tasks.reasoning_gym import answer_of
from esamp.tasks.thought import without_thought
from support.linear_time import FACTOR, assert_linear

SIZE = (1 << 20) // FACTOR
"""Characters of the smaller text; the larger one has 1 MB."""
HEAD = 'def triple(x):\n    """ Three times x. """\n'
FUNCTION = Item("humaneval/0", HEAD, {"tests": "check(triple)", "setup": HEAD, "names": "triple"})
BASIC = Item("mbpp/0", "", {"tests": "assert triple(2) == 6", "setup": "", "names": ""})
PROGRAM = Item("livecodebench/0", "", {"method": "", "tests": ""})
METHOD = Item("livecodebench/1", "", {"method": "triple", "tests": ""})
SEVEN = Item("math/0", "", {"answer": "7"})


class NeverSame(MathVerifier):
    """Finds no two formulas equal and starts no process."""

    def same(self, gold: str, answer: str) -> bool:
        return False


def code(text: str) -> None:
    plain = plain_code(without_thought(text))
    fenced(plain)
    HumanEval([FUNCTION], CodeOptions()).program(FUNCTION, plain)
    MBPP([BASIC], CodeOptions()).program(BASIC, plain)
    for item in (PROGRAM, METHOD):
        LiveCodeBench([item], LiveCodeBenchOptions(), {}).program(item, plain)


def mathematics(text: str) -> None:
    for kind in (Math500, GSM8K):
        assert not kind([], NeverSame()).grade(SEVEN, text).correct


def coverage(text: str) -> None:
    kind = registry.get("coverage")
    task = kind.build(kind.options.parse({}))
    task.grade(task.items()[0], text)


def contest(text: str) -> None:
    Contest([]).grade(SEVEN, text)


def numbers_game(text: str) -> None:
    grade_answer(Problem((1, 2, 3), 6), text)


def gym(text: str) -> None:
    undressed(answer_of(text))


def gpqa(text: str) -> None:
    last_letter(without_thought(text))


READERS: dict[Callable[[str], Any], tuple[str, ...]] = {
    code: ("```| ", "```\n|```\n", "~~~py\n|def ", "|a b\n", '|"""\n'),
    mathematics: ("\\boxed{1|or }", "|\\boxed{", "#### |1", "|\\text{or} ", "Answer: 1|, ", "|\\left"),
    gpqa: ("|Answer:\n", "|\\boxed{A", "Answer: A|(", "|answer is "),
    numbers_game: ("Answer: |(", "|1+", "Answer: |\\frac{1}{", "|="),
    contest: ("\\boxed{|9", "\\boxed{|1\\,", "|\\boxed 1"),
    coverage: ("|Texas, ", "|not ", "1. |Ohio\n", "|and "),
    gym: ("|<answer>", "<answer>|1</answer>", "Answer: |$", "|</answer>\n"),
    stated_answers.parse: ("|<response>", '[|{"text":', "<text>|<", "|[{"),
}
"""For each reader, texts in which the part after the bar is repeated, except a brace that closes a box."""
CASES = [(reader, text) for reader, texts in READERS.items() for text in texts]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("reader", "text"), CASES, ids=[f"{each.__name__}-{text!a}" for each, text in CASES])
def test_run_time_is_linear_up_to_a_megabyte(reader: Callable[[str], Any], text: str) -> None:
    before, _, piece = text.partition("|")
    end = "}" if before.endswith("{1") else ""
    piece = piece.removesuffix(end)
    assert_linear(reader, lambda size: before + piece * (size // len(piece)) + end, SIZE)
