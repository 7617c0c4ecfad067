"""Programs in the style of chat models: which block is graded, and code without its indents or fences."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.sandbox import available
from esamp.tasks.base import Item
from esamp.tasks.code import MBPP, CodeOptions, HumanEval, called, completion, fenced
from esamp.tasks.livecodebench import LiveCodeBench, LiveCodeBenchOptions, last_program
from esamp.tasks.livecodebench_tests import same_output
from esamp.tasks.program_text import as_body, fenced_blocks, program_without_fences
from esamp.tasks.thought import without_thought
from support.linear_time import assert_linear

needs_isolation = pytest.mark.skipif(bool(available().missing), reason="this machine cannot isolate a model's code")
HEAD = 'def triple(x):\n    """ Three times x. """\n'
GOOD = "def triple(x):\n    y = 2 * x\n    return x + y\n"
BAD = GOOD.replace("2 *", "3 *")
BODY = "    y = 2 * x\n    return x + y\n"
HUMANEVAL = Item(
    "HumanEval/901",
    HEAD,
    {"tests": "def check(f):\n    assert f(2) == 6\n\ncheck(triple)\n", "setup": HEAD, "names": "triple"},
)
BASIC = Item("mbpp/901", "", {"tests": "assert triple(2) == 6", "setup": "", "names": ""})


def block(code: str, mark: str = "python") -> str:
    return f"```{mark}\n{code}\n```\n"


ANSWERS = {
    "a test behind": (block(GOOD) + "Try it:\n" + block("print(triple(2))"), True),
    "an output behind": (block(GOOD) + "It prints\n" + block("6", ""), True),
    "a command behind": (block(GOOD) + block("pip install x", "bash"), True),
    "asserts behind": (block(GOOD) + block("assert triple(2) == 6"), True),
    "an unmarked block": (block(GOOD, ""), True),
    "another language behind": (block(GOOD) + block("def triple(x) 3 * x end", "ruby"), True),
    "a correction": (block(BAD) + "No:\n" + block(GOOD), True),
    "a wrong correction": (block(GOOD) + "No:\n" + block(BAD), False),
    "tildes": (f"~~~py\n{GOOD}~~~", True),
    "five marks": (f"`````python\n{GOOD}```\n`````", False),
    "four marks": (f"````python\n{GOOD}````", True),
    "attributes": (f"```{{.python .numberLines}}\n{GOOD}```", True),
    "below an item of a list": ("- So:\n\n" + "".join(f"    {line}\n" for line in block(GOOD).split("\n")), True),
    "cut off": (f"```python\n{GOOD}", True),
    "carriage returns": (block(GOOD).replace("\n", "\r\n"), True),
    "no-break spaces": (block(GOOD).replace(" ", "\u00a0"), True),
    "bare": (GOOD, True),
    "sentences around bare code": (f"Here it is:\n\n{GOOD}\nThis works for all numbers.", True),
    "a fence that the prompt opened": (f"{GOOD}```\nIt works:\n{block('print(triple(1))')}", True),
    "a correction behind a fence that the prompt opened": (f"{BAD}```\nNo:\n{block(GOOD)}", True),
    "a closed thought": (f"<think>{block(BAD)}</think>{block(GOOD)}", True),
    "a thought without a block": (f"<think>def triple(x): return x</think>\n{GOOD}", True),
    "a thought cut off": (f"<think>{block(GOOD)}", False),
    "a thought alone": (f"<think>{block(GOOD)}</think>I do not know.", False),
}


@needs_isolation
@pytest.mark.parametrize(("text", "right"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("task", [HumanEval, MBPP])
def test_the_program_of_an_answer_is_graded(task: type[HumanEval | MBPP], text: str, right: bool) -> None:
    item = HUMANEVAL if task is HumanEval else BASIC
    assert task([item], CodeOptions(run_code=True)).grade(item, text).correct is right


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        BODY.lstrip(),  # servers strip white space
        "   " + BODY.lstrip(),
        "     " + BODY.lstrip(),
        BODY.replace("    ", ""),
        block(BODY),
        block(BODY) + "It gives\n" + block("6", ""),
        BODY + "\ndef triple(x):\n    return 0\n",
        BODY.lstrip() + "\ndef triple(x):\n    return 0\n",
        BODY + "```\nIt works.",
    ],
    ids=ascii,
)
def test_the_body_of_a_function_completes_the_prompt(text: str) -> None:
    space: dict[str, object] = {}
    exec(HumanEval([HUMANEVAL], CodeOptions()).program(HUMANEVAL, text), space)  # trusted: defined above
    assert space["triple"](2) == 6  # type: ignore[operator]


def test_a_body_that_begins_with_a_loop_keeps_its_indents() -> None:
    lost = "for i in x:\n        if i:\n            return i\n    return 0\n"
    assert as_body(lost, "    ") == "    " + lost
    assert as_body("return x", "    ").strip("\n") == "    return x"


def test_a_common_indent_or_one_of_the_first_line_is_removed() -> None:
    task = MBPP([BASIC], CodeOptions())
    for text in (f"  {GOOD}", f" {GOOD}[DONE]", f"[BEGIN]\n {GOOD}", "".join(f"    {x}\n" for x in GOOD.split("\n"))):
        space: dict[str, object] = {}
        exec(task.program(BASIC, text), space)  # trusted: defined above
        assert space["triple"](2) == 6, text  # type: ignore[operator]


def test_called_returns_the_names_that_tests_call() -> None:
    assert called("assert math.isclose(area(2), abs(-3)) and not (odd(3))") == ["area", "odd"]


def test_a_sentence_ends_a_bare_program_unless_it_is_quoted() -> None:
    code = 'import re\ndef f(x):\n    """\nTwo words at the margin.\n"""\n    return x\nif x:\n    f(1)\n'
    assert program_without_fences(f"Sure:\n{code}\nThat is all.") == code
    assert program_without_fences("No code here.\nimportant from a view") is None


# ---- LiveCodeBench

READS = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (block(READS) + "For example:\n" + block("print(2 + 3)"), "import sys"),
        (block(READS) + block("5", ""), "import sys"),
        (block("a = input()") + "Better:\n" + block(READS), "import sys"),
        (block(READS, "") + block("print(5)"), "import sys"),
        (block("print(5)"), "print(5)"),
        (block("print(5)") + block("int main", "cpp"), "print(5)"),
        ("no block", ""),
    ],
    ids=ascii,
)
def test_the_block_that_reads_the_input_is_graded(text: str, begins: str) -> None:
    item = Item("livecodebench/x", "", {"method": "", "tests": ""})
    found = LiveCodeBench([item], LiveCodeBenchOptions(), {}).program(item, text)
    assert found.startswith(begins)
    assert bool(found) == bool(begins)


def test_the_block_that_defines_the_method_is_graded() -> None:
    item = Item("livecodebench/x", "", {"method": "half", "tests": ""})
    task = LiveCodeBench([item], LiveCodeBenchOptions(), {})
    right = "class Solution:\n    def half(self, x):\n        return x // 2"
    assert task.program(item, block(right) + block("print(Solution().half(4))")).strip() == right
    assert task.program(item, block("def half(x):\n    return 1") + block("half(4)")).startswith("def half")


@needs_isolation
@pytest.mark.parametrize("end", ["quit()", "exit()", "quit(0)", "exit(0)", "sys.exit()", "raise SystemExit"])
def test_programs_may_end_by_quit_and_exit(tmp_path: Path, end: str) -> None:
    row = {
        "question_content": "Add.",
        "question_id": "add",
        "contest_date": "2024-11-01",
        "public_test_cases": json.dumps([{"input": "2 3\n", "output": "5\n", "testtype": "stdin"}]),
    }
    (tmp_path / "items.jsonl").write_text(json.dumps(row))
    task = LiveCodeBench.build(LiveCodeBenchOptions(data=str(tmp_path / "items.jsonl"), run_code=True))
    grade = task.grade(task.items()[0], block(f"{READS}\n{end}\nprint('more')"))
    assert grade.correct, grade.reason


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("0.6666666666666666", "0.666666666667", True),
        ("1.23456789012", "1.234567890", True),
        ("0.666666666", "0.666666666667", False),
        ("0.6666666676666666", "0.666666666667", False),
        ("0.54", "0.5", False),
        ("5.0000001", "5", False),
        ("1e-999999", "0.000000000", False),
        ("inf", "0.000000000", False),
    ],
)
def test_printed_numbers_are_rounded_to_the_expected_decimals(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


# ---- hostile texts


@given(st.text(alphabet="`~ \t\npython=def x():'\"", max_size=150))
def test_any_text_yields_a_program_or_none(text: str) -> None:
    for item, task in ((HUMANEVAL, HumanEval), (BASIC, MBPP)):
        assert isinstance(task([item], CodeOptions()).program(item, without_thought(text)), str)
    for each in fenced_blocks(text):
        assert each.language == each.language.strip().lower()


@pytest.mark.parametrize(
    "piece", ["```", "``` ", "```\n", "~~~py\n", " ", "```python\n", "\t", "def ", "a b\n", '"""\n', "@"]
)
@pytest.mark.parametrize("start", ["", "```"])
def test_run_time_is_linear_on_hostile_texts(piece: str, start: str) -> None:
    def read(text: str) -> None:
        fenced(text)
        completion(text)
        last_program(text)
        HumanEval([HUMANEVAL], CodeOptions()).program(HUMANEVAL, text)
        MBPP([BASIC], CodeOptions()).program(BASIC, text)

    assert_linear(read, lambda size: start + piece * (size // len(piece)), 50_000)
