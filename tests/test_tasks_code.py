"""HumanEval and MBPP: finding the program of an answer, and grading right and wrong programs."""

import json
from pathlib import Path

import pytest

from esamp.errors import InputError, OptionError
from esamp.sandbox import available
from esamp.tasks import registry
from esamp.tasks.base import Item
from esamp.tasks.code import MBPP, CodeOptions, HumanEval, completion, fenced
from esamp.tasks.sources import read_rows

SHARED = Path(__file__).parents[2] / "shared" / "data" / "code"
needs_isolation = pytest.mark.skipif(bool(available().missing), reason="this machine cannot isolate a model's code")
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")

DOUBLE = {
    "task_id": "HumanEval/900",
    "prompt": 'import math\n\ndef helper(x):\n    return x + 1\n\ndef double(x):\n    """ Twice x. """\n',
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(helper(2)) == 6\n",
}
NEXT = {
    "task_id": 900,
    "text": "Write a function to find the next number.",
    "test_setup_code": "",
    "test_list": ["assert following(1) == 2", "assert math.isclose(following(1.5), 2.5)", "assert following(-1) == 0"],
}


def humaneval(tmp_path: Path, *, allowed: bool = True) -> tuple[HumanEval, Item]:
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps(DOUBLE) + "\n")
    task = HumanEval.build(CodeOptions(data=str(file), run_code=allowed, code_seconds=5))
    return task, task.items()[0]


def mbpp(tmp_path: Path) -> tuple[MBPP, Item]:
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps(NEXT) + "\n")
    task = MBPP.build(CodeOptions(data=str(file), run_code=True, code_seconds=5))
    return task, task.items()[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("first\n```\nold\n```\nbetter:\n```py\nnew\n```\nbye", "new\n"),
        ("```python\ncut off", "cut off"),
        ("no code", None),
        ("", None),
        ("`inline` and ``two``", None),
    ],
    ids=["one", "last", "cut off", "none", "empty", "inline"],
)
def test_fenced_returns_the_last_block(text: str, code: str | None) -> None:
    assert fenced(text) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("    return 1\n\ndef other(): pass", "    return 1\n"),
        ("    return 1\n\n# test\nprint(1)", "    return 1\n"),
        ("    x = 1\n    if x:\n        return x\n", "    x = 1\n    if x:\n        return x\n"),
        ("    return 1\nif __name__ == '__main__':\n    run()", "    return 1"),
        ("def f():\n    return 1\n\ndef g(): pass", "def f():\n    return 1\n\ndef g(): pass"),
    ],
    ids=["def", "comment", "inner", "main", "whole"],
)
def test_a_completion_is_cut_at_the_first_stop(text: str, code: str) -> None:
    assert completion(text) == code


def test_code_runs_only_with_the_option_run_code(tmp_path: Path) -> None:
    task, item = humaneval(tmp_path, allowed=False)
    with pytest.raises(OptionError, match=r"runs code that the model wrote.*run_code = true"):
        task.grade(item, "    return 2 * x")


@needs_isolation
@pytest.mark.parametrize(
    ("text", "correct", "reason"),
    [
        ("    return 2 * x\n", True, "passed"),
        ("    return 2 * x\n\ndef double(x):\n    return 0\n", True, "passed"),
        ("Sure:\n```python\ndef double(x):\n    return helper(x) + x - 1\n```\nDone.", True, "passed"),
        ("```python\n    return int(math.floor(2 * x))\n```", True, "passed"),
        ("def double(x):\n    return x + x\n", True, "passed"),
        ("    return x\n", False, "failed: AssertionError"),
        ("    import os; os._exit(0)\n", False, "crashed"),
        ("no idea", False, "failed"),
        ("", False, "failed"),
    ],
    ids=["rest", "cut", "block", "block of the rest", "whole", "wrong", "exits", "words", "nothing"],
)
def test_humaneval_grades_each_form_of_answer(tmp_path: Path, text: str, correct: bool, reason: str) -> None:
    task, item = humaneval(tmp_path)
    grade = task.grade(item, text)
    assert grade.correct is correct, grade
    assert grade.reason.startswith(reason)


@needs_isolation
@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("def following(x):\n    return x + 1\n[DONE]\nmore words", True),
        ("[BEGIN]\ndef following(x):\n    return x + 1\n", True),
        ("```python\ndef following(x):\n    return x + 1\n```", True),
        ("def following(x):\n    return 2", False),
        ("def followed(x):\n    return x + 1", False),
    ],
    ids=["done", "begin", "block", "wrong", "another name"],
)
def test_mbpp_grades_each_form_of_answer(tmp_path: Path, text: str, correct: bool) -> None:
    task, item = mbpp(tmp_path)
    assert task.grade(item, text).correct is correct


def test_programs_that_differ_in_spaces_have_one_canonical_form(tmp_path: Path) -> None:
    if available().missing:
        pytest.skip("this machine cannot isolate a model's code")
    task, item = humaneval(tmp_path)
    one, same, other = (
        task.grade(item, text).canonical for text in ("    return 1", "    return  1\n", "    return 2")
    )
    assert one == same != other


def test_the_prompt_of_mbpp_shows_the_tests(tmp_path: Path) -> None:
    _, item = mbpp(tmp_path)
    assert item.id == "mbpp/900"
    assert item.prompt.startswith("You are an expert Python programmer, and here is your task: Write a function")
    assert item.prompt.endswith("assert following(-1) == 0\n[BEGIN]\n")


@pytest.mark.parametrize("lacking", ["task_id", "prompt", "entry_point", "test"])
def test_a_row_without_a_field_is_an_error_that_names_it(tmp_path: Path, lacking: str) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps({key: value for key, value in DOUBLE.items() if key != lacking}))
    with pytest.raises(InputError, match=f"problem 1.*{lacking}"):
        HumanEval.build(CodeOptions(data=str(file)))


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_the_tasks_are_installed(name: str) -> None:
    assert registry.get(name).name == name


@needs_data
@needs_isolation
@pytest.mark.parametrize("place", [0, 10, 32, 38, 50, 163])  # 32, 38 and 50: the tests use helpers of the prompt
def test_humaneval_reference_solutions_pass_and_wrong_ones_fail(place: int) -> None:
    file = SHARED / "HumanEval.jsonl.gz"
    task = HumanEval.build(CodeOptions(data=str(file), run_code=True))
    assert len(task.items()) == 164
    item, row = task.items()[place], read_rows(file)[place]
    assert task.grade(item, row["canonical_solution"]).correct
    assert task.grade(item, f"```python\n{row['prompt']}{row['canonical_solution']}```").correct
    assert not task.grade(item, "    return None\n").correct


@needs_data
@needs_isolation
@pytest.mark.parametrize("place", [0, 11, 100, 600])  # 600: the tests use a class of the program
def test_mbpp_reference_solutions_pass_and_wrong_ones_fail(place: int) -> None:
    file = SHARED / "mbpp.jsonl"
    task = MBPP.build(CodeOptions(data=str(file), run_code=True))
    assert len(task.items()) == 974
    item, row = task.items()[place], read_rows(file)[place]
    assert task.grade(item, row["code"]).correct
    assert not task.grade(item, row["code"].replace("return", "return None and")).correct
