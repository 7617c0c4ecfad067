"""LiveCodeBench: safe unpacking of hidden tests, and grading programs by what they print or return."""

import base64
import gzip
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from esamp.errors import InputError, OptionError
from esamp.sandbox import available
from esamp.tasks import livecodebench, registry
from esamp.tasks.livecodebench import LiveCodeBench, LiveCodeBenchOptions, last_program, unpacked
from esamp.tasks.livecodebench_tests import same_numbers, same_output

needs_isolation = pytest.mark.skipif(bool(available().missing), reason="this machine cannot isolate a model's code")


def cases(kind: str, *pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"input": given, "output": wanted, "testtype": kind} for given, wanted in pairs]


def packed(value: Any, protocol: int = 4) -> str:
    """The format of the data set: a pickled JSON text, compressed and in Base64."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value), protocol))).decode()


SUM = {
    "question_title": "Sum",
    "question_content": "You are given whole numbers, one line of them. Print their sum.\n",
    "platform": "atcoder",
    "question_id": "abc900_a",
    "contest_id": "abc900",
    "contest_date": "2024-10-05T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps(cases("stdin", ("1 2\n", "3\n"))),
    "private_test_cases": packed(cases("stdin", ("5\n", "5\n"), ("1 -1 4\n", "4\n"))),
    "metadata": "{}",
}
TWICE = SUM | {
    "question_content": "Return every number twice as large.",
    "platform": "leetcode",
    "question_id": "9001",
    "contest_date": "2025-01-04T18:30:00",
    "starter_code": "class Solution:\n    def twice(self, numbers: List[int], times: int) -> List[int]:\n        ",
    "public_test_cases": json.dumps(cases("functional", ("[1, 2]\n1", "[2, 4]"))),
    "private_test_cases": json.dumps(cases("functional", ("[]\n3", "[]"), ("[3]\n2", "[12]"))),
    "metadata": json.dumps({"func_name": "twice"}),
}


def built(folder: Path, *rows: dict[str, Any], **options: Any) -> LiveCodeBench:
    file = folder / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows or (SUM, TWICE)))
    return LiveCodeBench.build(LiveCodeBenchOptions(**{"data": str(file), "run_code": True} | options))


def block(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\nIt adds them."


# ---- the problems


def test_the_summary_states_the_number_of_problems_and_their_dates() -> None:
    task = registry.get("livecodebench")
    assert task.name == "livecodebench"
    assert "167 problems" in task.summary
    assert "from October 2024 to January 2025" in task.summary


def test_prompts_ask_for_a_program_or_complete_the_starter_code(tmp_path: Path) -> None:
    program, function = built(tmp_path).items()
    assert program.id == "livecodebench/abc900_a"
    assert program.prompt.startswith(
        "You are given whole numbers, one line of them. Print their sum.\n\nWrite a Python"
    )
    assert "standard input" in program.prompt
    assert function.id == "livecodebench/9001"
    assert "class Solution:\n    def twice(self" in function.prompt
    assert "standard input" not in function.prompt
    for item in (program, function):
        assert item.prompt.count("```python\n") == 1
        assert item.prompt.endswith("\n```")


def test_item_data_changes_with_the_hidden_tests(tmp_path: Path) -> None:
    data = [
        built(tmp_path, SUM | {"private_test_cases": packed(hidden)}).items()[0].data["tests"]
        for hidden in (cases("stdin", ("1", "1")), cases("stdin", ("1", "2")))
    ]
    assert data[0] != data[1]


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [
        (None, None, 2),
        ("2024-10-05", "2025-01-04", 2),
        ("2024-10-06", None, 1),
        (None, "2025-01-03", 1),
        ("2024-10-05", "2024-10-05", 1),
    ],
    ids=str,
)
def test_the_first_and_the_last_day_are_included(
    tmp_path: Path, start: str | None, end: str | None, count: int
) -> None:
    assert len(built(tmp_path, start=start, end=end).items()) == count


def test_an_empty_time_range_and_invalid_days_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no problem is from the days 2026-01-01"):
        built(tmp_path, start="2026-01-01")
    for wrong in ("2024-13-01", "October", ""):
        with pytest.raises(OptionError, match="start"):
            LiveCodeBenchOptions(start=wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_id": None}, "problem 1 has no field 'question_id'"),
        ({"contest_date": "soon"}, "problem 1: its contest_date"),
        ({"metadata": '{"func_name": "a.b"}'}, "problem 1: the function's name"),
        ({"metadata": "{"}, "problem 1: not valid JSON"),
        ({"private_test_cases": [1]}, "problem 1: its tests are not a text"),
    ],
    ids=["no id", "day", "name", "metadata", "tests"],
)
def test_an_invalid_row_is_an_error_that_names_it(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(tmp_path, SUM | change)


def test_a_repeated_question_id_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="problem 2: its question_id occurs twice"):
        built(tmp_path, SUM, SUM)


def test_gzipped_and_json_files_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps(SUM) + "\n\n" + json.dumps(TWICE))
    (tmp_path / "a.json").write_text(json.dumps([SUM, TWICE]))
    for name in ("a.jsonl.gz", "a.json"):
        task = LiveCodeBench.build(LiveCodeBenchOptions(data=str(tmp_path / name)))
        assert [item.id for item in task.items()] == ["livecodebench/abc900_a", "livecodebench/9001"]


# ---- the hidden tests


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hidden_tests_of_every_pickle_protocol_are_unpacked(protocol: int) -> None:
    value = cases("stdin", ("é\n\\u0041 '\"", "x" * 70_000))
    assert json.loads(unpacked("it", packed(value, protocol))) == value
    assert unpacked("it", ' [{"input": 1}]') == ' [{"input": 1}]'


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    raw = pickle.dumps(Hostile(f"touch {mark}"), protocol)
    with pytest.raises(InputError, match="a pickle of something else than one text"):
        unpacked("it", base64.b64encode(zlib.compress(raw)).decode())
    assert not mark.exists()
    assert pickle.loads(raw) == 0  # the pickle does run the command
    assert mark.exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (zlib.compress(pickle.dumps(b"[]")), "something else than one text"),
        (zlib.compress(pickle.dumps(["[]"])), "something else than one text"),
        (zlib.compress(b"\x80\x04N."), r"one text \(NONE\)"),
        (zlib.compress(b"\x80\x04."), "0 texts"),
        (zlib.compress(b"\x80\x04\x8c\x02[]\x8c\x02[]."), "2 texts"),
        (zlib.compress(b"\x80\x04\x8d" + b"\xff" * 8 + b"[]."), "cannot be unpacked"),
        (zlib.compress(b""), "cannot be unpacked"),
        (zlib.compress(pickle.dumps("[]"))[:-5], "cut off"),
        (b"no zlib", "cannot be unpacked"),
    ],
    ids=["bytes", "list", "none", "nothing", "two", "length", "empty", "cut", "no zlib"],
)
def test_other_packed_bytes_are_an_error(raw: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        unpacked("it", base64.b64encode(raw).decode())


def test_invalid_base64_is_an_error() -> None:
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked("it", "{not base64}")


def test_tests_that_unpack_to_more_than_the_limit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "LARGEST", 1 << 20)
    bomb = packed("x" * (40 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(InputError, match="more than 1 MiB"):
        unpacked("it", bomb)
    assert len(unpacked("it", packed("x" * (1 << 19)))) == (1 << 19) + 2


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ("[", "private tests: not valid JSON"),
        ('{"input": "1"}', "cannot be unpacked"),
        ('[{"input": "1"}]', "lacks its input or output"),
        ('[{"input": "1", "output": 2, "testtype": "stdin"}]', "lacks its input or output"),
        (json.dumps(cases("functional", ("1", "1"))), "'functional' of a test does not fit"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=["cut", "object", "no output", "number", "kind", "deep"],
)
def test_invalid_tests_are_an_input_error_instead_of_a_wrong_answer(tmp_path: Path, hidden: str, message: str) -> None:
    task = built(tmp_path, SUM | {"private_test_cases": hidden})
    with pytest.raises(InputError, match=f"livecodebench/abc900_a.*{message}"):
        task.grade(task.items()[0], block("print(3)"))


def test_a_problem_without_tests_is_an_error(tmp_path: Path) -> None:
    task = built(tmp_path, SUM | {"public_test_cases": "[]", "private_test_cases": "[]"})
    with pytest.raises(InputError, match="has no tests"):
        task.grade(task.items()[0], block("print(3)"))


# ---- the answer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```", "a\n"),
        ("```python\na\n```\nbetter:\n```python\nb\n```", "b\n"),
        ("```python\na\n```\nIt prints:\n```\n3\n```", "a\n"),
        ("```\n1 2\n```\nso\n```\nb\n```", "b\n"),
        ("```Python3 \na\n```", "a\n"),
        ("```cpp\na\n```", ""),
        ("```python\ncut off", "cut off"),
        ("print(1)", ""),
        ("", ""),
    ],
    ids=["one", "last", "output behind it", "unmarked", "python3", "cpp", "cut off", "no block", "empty"],
)
def test_the_last_python_block_is_the_program(text: str, code: str) -> None:
    assert last_program(text) == code


@pytest.mark.timeout(20)
def test_long_texts_finish_within_the_time_limit() -> None:
    for piece in ("```", "```python\n", "``` \t", "\n```\n", " " * 50 + "\n", "```python" + " " * 50):
        last_program(piece * 20_000)


@pytest.mark.parametrize(
    ("printed", "wanted", "same"),
    [
        ("3\n", "3", True),
        (" 3 \n4\n\n", "3\n4\n", True),
        ("3\r\n4\r\n", "3\n4", True),
        ("3 4", "3\n4", False),
        ("3\n\n4", "3\n4", False),
        ("1.50 2", "1.5 2.0", True),
        ("1  2", "1 2", True),
        ("1e3", "1000", True),
        ("0.1", "0.10000000000000001", False),
        ("10000000000000000000001", "10000000000000000000000", False),
        ("a  b", "a b", False),
        ("Yes", "yes", False),
        ("nan", "nan", True),
        ("nan 1", "nan  1", False),
        ("", "", True),
        ("", "0", False),
        ("1", "", False),
    ],
    ids=ascii,
)
def test_outputs_agree_by_lines_or_by_numbers(printed: str, wanted: str, same: bool) -> None:
    assert same_output(printed, wanted) is same


def test_huge_numbers_are_compared_quickly() -> None:
    assert not same_numbers("1e999999999", "1")
    assert same_numbers("9" * 1_000_000 + ".0", "9" * 1_000_000)


def test_code_runs_only_with_the_option_run_code(tmp_path: Path) -> None:
    task = built(tmp_path, run_code=False)
    with pytest.raises(OptionError, match=r"'livecodebench' runs code that the model wrote.*run_code = true"):
        task.grade(task.items()[0], block("print(sum(map(int, input().split())))"))


PROGRAMS = {
    "input": ("print(sum(map(int, input().split())))", True, "passed"),
    "read": ("import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.read().split()))))", True, "passed"),
    "buffer": ("print(sum(map(int, stdin.buffer.readline().split())))", True, "passed"),
    "file": ("print(sum(map(int, open(0).read().split())))", True, "passed"),
    "main": (
        "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__': main()",
        True,
        "passed",
    ),
    "given imports": ("print(math.floor(reduce(add, map(int, input().split()))) if deque else 0)", True, "passed"),
    "future": ("from __future__ import annotations\nprint(sum(map(int, input().split())))", True, "passed"),
    "exits": ("print(sum(map(int, input().split())))\nexit(1)", True, "passed"),
    "number": ("print(float(sum(map(int, input().split()))))", True, "passed"),
    "says more": ("print('The sum is', sum(map(int, input().split())))", False, "test 1 of 3: another output"),
    "first test only": ("print(3)", False, "test 2 of 3: another output"),
    "reads too much": ("input(); print(sum(map(int, input().split())))", False, "test 1 of 3: EOFError"),
    "reads wrongly": ("print(sum(map(int, input())))", False, "test 1 of 3: ValueError"),
    "silent": ("x = 1", False, "test 1 of 3: another output"),
    "raises": ("print(3)\nraise KeyError('no')", False, "test 1 of 3: KeyError: 'no'"),
    "dies": ("import os\nos.kill(os.getpid(), 9)", False, "test 1 of 3: ended with -9"),
    "no Python": ("print(", False, "failed: SyntaxError"),
    "endless": ("while True: pass", False, "timeout: not done after 1 s"),
    "slow once": (
        "import time\nn = input()\nif n == '5': time.sleep(9)\nprint(3)",
        False,
        "timeout: not done after 1 s",
    ),
    "prints for ever": ("while True: print('x' * 1000)", False, "more than 16 MiB printed"),
    "takes memory": ("x = bytearray(1 << 34)", False, "test 1 of 3: MemoryError"),
}


@needs_isolation
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_graded_by_their_output(tmp_path: Path, name: str) -> None:
    code, correct, reason = PROGRAMS[name]
    task = built(tmp_path, test_seconds=1.0, code_seconds=20.0)
    grade = task.grade(task.items()[0], block(code))
    assert grade.correct is correct, grade
    assert reason in grade.reason
    assert grade.answer == f"{code}\n"


METHODS = {
    "method": (
        "class Solution:\n    def twice(self, numbers: List[int], times: int) -> List[int]:\n"
        "        return [n * 2 ** times for n in numbers]",
        True,
        "passed",
    ),
    "tuple": (
        "class Solution:\n    def twice(self, numbers, times): return tuple(n * 2 ** times for n in numbers)",
        True,
        "passed",
    ),
    "function": ("def twice(numbers, times): return [n * 2 ** times for n in numbers]", True, "passed"),
    "keeps something": (
        "class Solution:\n    def __init__(self): self.seen = []\n"
        "    def twice(self, numbers, times):\n        self.seen += [n * 2 ** times for n in numbers]\n"
        "        return self.seen",
        True,
        "passed",
    ),
    "prints": (
        "class Solution:\n    def twice(self, numbers, times):\n        print(numbers)\n"
        "        return [n * 2 ** times for n in numbers]",
        True,
        "passed",
    ),
    "wrong once": ("class Solution:\n    def twice(self, n, times): return [2 * x for x in n]", False, "test 3 of 3"),
    "iterator": (
        "class Solution:\n    def twice(self, numbers, times): return (n * 2 ** times for n in numbers)",
        False,
        "test 1 of 3: another result",
    ),
    "prints instead": ("class Solution:\n    def twice(self, n, times): print([2, 4])", False, "another result"),
    "other name": ("class Solution:\n    def double(self, n, times): return [2, 4]", False, "AttributeError"),
    "raises": ("class Solution:\n    def twice(self, n, times): return n[5]", False, "IndexError"),
    "equal to all": (
        "class Any:\n    def __eq__(self, other): return True\n"
        "class Solution:\n    def twice(self, n, times): return Any()",
        False,
        "another result",
    ),
    "endless": (
        "class Solution:\n    def twice(self, n, times):\n        while True: pass",
        False,
        "timeout: not done",
    ),
    "exits": ("import os\nclass Solution:\n    def twice(self, n, times): os._exit(0)", False, "crashed"),
}


@needs_isolation
@pytest.mark.parametrize("name", METHODS)
def test_methods_are_graded_by_their_results(tmp_path: Path, name: str) -> None:
    code, correct, reason = METHODS[name]
    task = built(tmp_path, test_seconds=1.0, code_seconds=20.0)
    grade = task.grade(task.items()[1], block(code))
    assert grade.correct is correct, grade
    assert reason in grade.reason


@needs_isolation
def test_programs_and_reasons_do_not_see_the_expected_output(tmp_path: Path) -> None:
    hidden = cases("stdin", ("7 8\n", "0"), ("9\n", "SECRET"))
    task = built(tmp_path, SUM | {"private_test_cases": packed(hidden)})
    looking = (
        "import gc, os\nfound = [o for o in gc.get_objects() if ''.join(('SEC', 'RET')) in repr(o)]\n"
        "print(3 if '1 2' in input() else len(found))"
    )
    grade = task.grade(task.items()[0], block(looking))
    assert grade.reason == "failed: AssertionError: test 3 of 3: another output"


@needs_isolation
def test_inputs_of_two_megabytes_are_passed_to_programs(tmp_path: Path) -> None:
    many = " ".join(["1"] * 1_000_000)
    hidden = packed(cases("stdin", (many, "1000000"), (many, many)))
    task = built(tmp_path, SUM | {"private_test_cases": hidden})
    code = "line = input()\nn = sum(map(int, line.split()))\nprint(n)"
    assert "test 3 of 3: another output" in task.grade(task.items()[0], block(code)).reason


def test_a_text_without_a_block_has_no_answer(tmp_path: Path) -> None:
    task = built(tmp_path)
    grade = task.grade(task.items()[0], "The sum.")
    assert (grade.correct, grade.answer, grade.reason) == (False, None, "no code")
