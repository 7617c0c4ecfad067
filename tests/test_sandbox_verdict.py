"""No code can forge a verdict: each claim of docs/sandbox.md about verdicts, with an attack on it."""

import json
from pathlib import Path
from typing import Any

import pytest

from esamp.sandbox import Limits, Result, available, check
from esamp.sandbox.judge import needed
from esamp.sandbox.wire import DEEPEST, MessageError, pack, unpack
from esamp.tasks import registry
from esamp.tasks.base import Grade

needs_isolation = pytest.mark.skipif(bool(available().missing), reason="this machine cannot isolate a model's code")
LIMITS = Limits(wall_seconds=20, cpu_seconds=5, memory_mib=512)

CLAIMS_NAMES = """
import __main__
original = __main__.CandidateProgram.perform
def perform(self, operation, first, *rest):
    if operation == "defines":
        return True
    return original(self, operation, first, *rest)
__main__.CandidateProgram.perform = perform
"""
"""Makes the candidate's process claim to define every name that the judge requests."""

ANSWERS_RAW = """
import sys
channel = sys._getframe(1).f_locals["self"].channel
def send(message):
    text = answers.pop(0)
    channel.writes.write(b"%08d" % len(text) + text)
    channel.writes.flush()
channel.send = send
"""
"""Makes the candidate's process send the texts in `answers` in place of its own answers."""


def judged(code: str, tests: str, **more: Any) -> Result:
    return check(code, tests, limits=LIMITS, **more)


def graded(folder: Path, task: str, row: dict[str, Any], code: str) -> Grade:
    (folder / "items.jsonl").write_text(json.dumps(row) + "\n")
    kind = registry.get(task)
    built = kind.build(kind.options.parse({"data": str(folder / "items.jsonl"), "run_code": True}))
    return built.grade(built.items()[0], f"```python\n{code}\n```")


# ---- names that the tests take from the code


@pytest.mark.parametrize(
    ("tests", "modules", "names"),
    [
        ("assert f(1) == abs(g(2))", [], ["f", "g"]),
        ("assert math.isclose(f(1), 1)", ["math"], ["f"]),
        ("assert copy(1) == 1", [], ["copy"]),  # it is called, so it is a function with the name of a module
        ("def check(candidate):\n    for i in range(3):\n        assert candidate(i)\ncheck(f)", [], ["f"]),
        ("x = 1\nassert [x + y for y in (1,)] == f()", [], ["f"]),
        ("def g():\n    global h\n    h = f\ng()\nassert h()", [], ["f"]),
        ("def g():\n    h = 1\n    return h\nassert h() == g()", [], ["h"]),
        ("from math import isclose\nimport os.path\nassert isclose(os.path.x, f())", [], ["f"]),
        ("class A:\n    g = f\nassert (lambda f: f)(A.g)", [], ["f"]),
        ("try:\n    f()\nexcept ValueError as g:\n    assert g", [], ["f"]),
        ("exit(__file__, cases, helper)", [], []),
    ],
    ids=ascii,
)
def test_only_undefined_names_of_the_tests_are_taken_from_the_code(
    tests: str, modules: list[str], names: list[str]
) -> None:
    assert needed(tests, {"cases", "helper"}) == (modules, names)


FORGED_NAMES = {
    "abs": "def check(f):\n    assert abs(f(3.5) - 0.5) < 1e-6\n    assert abs(f(1.3) - 0.3) < 1e-6\ncheck(f)",
    "range": "def check(f):\n    for i in range(100):\n        assert f(i) == i * i\ncheck(f)",
    "all": "assert all([f(i) == i * i for i in [1, 2]])",
    "set": "assert set(f((3, 4), (4, 5))) == set((4,))",
    "math": "assert math.isclose(f(2), 12.56, rel_tol=1e-3)",
    "cases": "for given, wanted in cases:\n    assert f(given) == wanted",
    "AssertionError": "try:\n    assert f(1) == 2\nexcept AssertionError:\n    raise ValueError",
    "helper": "assert helper(f(1)) == 2",
    "check": "def check(f):\n    assert f(1) == 2\ncheck(f)",
    "__name__": "assert f(1) == __name__",
    "exit": "exit()\nassert f(1) == 2",
}


@needs_isolation
@pytest.mark.parametrize("name", FORGED_NAMES)
def test_no_name_of_python_or_of_the_tests_is_taken_from_the_code(name: str) -> None:
    forged = (
        "def f(*given): return 99.0\n"
        "class Anything(list):\n"
        "    def __init__(self, *given): pass\n"
        "    __eq__ = lambda *given: True\n"
        "    isclose = staticmethod(lambda *given, **named: True)\n"
        f"globals()[{name!r}] = Anything\n"
    )
    result = judged(CLAIMS_NAMES + forged, FORGED_NAMES[name], setup="def helper(x): return x", cases=[[1, 2]])
    assert result.verdict == "failed", result


@needs_isolation
def test_a_name_that_the_task_lists_must_be_defined_by_the_code() -> None:
    setup = "def f(x):\n    pass"
    assert judged("g = 1", "assert f(1) is None", setup=setup, names=["f"]).reason.startswith("NameError")
    assert judged("def sum(a, b): return a * b", "assert sum(2, 5) == 10", names=["sum"]).passed


@needs_isolation
def test_livecodebench_runs_its_tests_whatever_the_code_claims_to_define(tmp_path: Path) -> None:
    tests = [{"input": "1\n2", "output": "3", "testtype": "functional"}]
    row = {
        "question_id": "add",
        "question_content": "Add.",
        "contest_date": "2024-11-01",
        "starter_code": "class Solution:\n    def add(self, a, b):\n",
        "metadata": json.dumps({"func_name": "add"}),
        "public_test_cases": json.dumps(tests),
    }
    body = "cases = []\ncalls = lambda *given: None\nclass Solution:\n    def add(self, a, b): return {}\n"
    assert not graded(tmp_path, "livecodebench", row, CLAIMS_NAMES + body.format("'wrong'")).correct
    assert graded(tmp_path, "livecodebench", row, CLAIMS_NAMES + body.format("a + b")).correct


MBPP_ROWS = {
    "a function with the name of a built-in one": (
        {"code": "def sum(a, b):\n    return a * b", "test_list": ["assert sum(2, 5) == 10"]},
        "def sum(a, b):\n    return a * b",
    ),
    "a class of the code in the set-up of the tests": (
        {
            "code": "class Node:\n    pass\ndef depth(node):\n    return 1",
            "test_setup_code": "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)",
            "test_list": ["assert depth(root) == 3"],
        },
        "class Node:\n    def __init__(self, data):\n        self.data, self.left = data, None\n"
        "def depth(node):\n    return 0 if node is None else 1 + depth(node.left)",
    ),
    "a module that the tests do not import": (
        {"code": "def f(x):\n    return x", "test_list": ["assert math.isclose(f(2), 4.0)"]},
        "import math\ndef f(x):\n    return math.pow(x, 2)",
    ),
}


@needs_isolation
@pytest.mark.parametrize("name", MBPP_ROWS)
def test_mbpp_grades_names_that_the_reference_defines(tmp_path: Path, name: str) -> None:
    row, right = MBPP_ROWS[name]
    row = {"task_id": 1, "text": "Do it.", **row}
    grade = graded(tmp_path, "mbpp", row, right)
    assert grade.correct, grade.reason
    assert not graded(tmp_path, "mbpp", row, right.replace("return ", "return 1 + ")).correct


# ---- answers of the code

CORRECT = [b'["ok", true]', b'["ok", ["r", 0]]']
"""Answers to the questions whether `f` is defined and what its value is."""
MALFORMED_ANSWERS = {
    "not a list": b"true",
    "an object": b'{"ok": 1}',
    "an object as a value": b'["ok", {"__class__": "int"}]',
    "nothing": b"[]",
    "no value": b'["ok"]',
    "two values": b'["ok", 1, 1]',
    "an unknown status": b'["yes", 1]',
    "an unknown type": b'["ok", ["x", []]]',
    "an empty value": b'["ok", []]',
    "a value without a type": b'["ok", [1, 2]]',
    "a text for a list": b'["ok", ["t", "ab"]]',
    "a negative handle": b'["ok", ["r", -1]]',
    "a handle that is a fraction": b'["ok", ["r", 1.0]]',
    "a handle that is true": b'["ok", ["r", true]]',
    "a huge handle": b'["ok", ["r", 99999999999999999999]]',
    "a list as a key": b'["ok", ["d", [[["l", []], 1]]]]',
    "a dict in a set": b'["ok", ["s", [["d", []]]]]',
    "a dict without pairs": b'["ok", ["d", [1]]]',
    "a pair of three": b'["ok", ["d", [[1, 2, 3]]]]',
    "a complex number of integers": b'["ok", ["c", 1, 2]]',
    "invalid bytes": b'["ok", ["b", "zz"]]',
    "many levels": b'["ok", ' + b'["l", [' * 300 + b"]]" * 300 + b"]",
    "too many levels": b"[" * 100_000,
    "too many digits": b'["ok", ' + b"9" * 200_000 + b"]",
    "text that is not ASCII": '["ok", "é"]'.encode(),
    "UTF-16": '["ok", 1]'.encode("utf-16"),
    "truncated JSON": b'["ok", 1',
    "an exception without a text": b'["error", "ValueError"]',
    "an exception that is a number": b'["error", 1, "x"]',
    "an exception that is a list": b'["error", ["l", []], "x"]',
}


def answering(*answers: bytes) -> str:
    return f"answers = {[*CORRECT, *answers]!r}\n{ANSWERS_RAW}"


@needs_isolation
@pytest.mark.parametrize("name", MALFORMED_ANSWERS)
def test_a_malformed_answer_ends_the_check_even_if_tests_catch_everything(name: str) -> None:
    tests = "for _ in range(2):\n    try:\n        f()\n    except BaseException:\n        pass"
    result = judged(answering(MALFORMED_ANSWERS[name]), tests)
    assert result.verdict == "crashed", result
    assert result.reason.startswith("the code's process sent no"), result


ANSWERS_OF_WRONG_TYPES = {
    "defines": ("assert f", [b'["ok", 1]']),
    "truth": ("assert f() or True", [*CORRECT, b'["ok", ["r", 1]]', b'["ok", 1]']),
    "length": ("len(f)", [*CORRECT, b'["ok", -1]']),
    "length that is a fraction": ("len(f)", [*CORRECT, b'["ok", 1.0]']),
    "iterator": ("list(f)", [*CORRECT, b'["ok", ["l", [1]]]']),
    "items": ("list(f)", [*CORRECT, b'["ok", ["r", 1]]', b'["ok", ["t", [["l", [1]], 1]]]']),
}


@needs_isolation
@pytest.mark.parametrize("name", ANSWERS_OF_WRONG_TYPES)
def test_an_answer_must_have_the_type_of_its_question(name: str) -> None:
    tests, answers = ANSWERS_OF_WRONG_TYPES[name]
    code = f"answers = {answers!r}\n{ANSWERS_RAW}"
    result = judged(code, tests)
    assert (result.verdict, result.reason) == ("crashed", "the code's process sent no answer to what was asked")


def test_unpacked_values_have_exact_built_in_types() -> None:
    class Whole(int):
        pass

    class Word(str):
        __slots__ = ()

    class Row(list[Any]):
        pass

    found = unpack(json.loads(json.dumps(pack(Row([Whole(3), Word("a"), (True, None)]), id))), str)
    assert found == [3, "a", (True, None)]
    assert [type(each) for each in (found, *found)] == [list, int, str, tuple]
    deep: Any = 1
    for _ in range(DEEPEST):
        deep = [deep]
    assert unpack(pack(deep, id), str) == deep
    with pytest.raises(ValueError, match=f"more than {DEEPEST} levels"):
        pack([deep], id)
    with pytest.raises(MessageError):
        unpack(["l", [pack(deep, id)]], str)


# ---- exceptions


@needs_isolation
@pytest.mark.parametrize(
    "raised",
    ["StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt", "UserWarning"],
)
def test_exceptions_that_could_end_the_tests_early_become_runtime_errors(raised: str) -> None:
    result = judged(f"def f(x): raise {raised}", "assert all(map(f, [1, 2])) and list(map(f, [1])) == []")
    assert result.verdict == "failed"
    assert result.reason.startswith("RuntimeError"), result
    assert judged(f"def f(x): raise {raised}", "try:\n    f(1)\nexcept RuntimeError:\n    pass").passed


@needs_isolation
@pytest.mark.parametrize("name", ["open", "__import__", "print", "BrokenError", "BaseException", "SlowError"])
def test_the_name_of_an_exception_calls_nothing(name: str) -> None:
    answer = json.dumps(["error", name, "/etc/passwd"]).encode()
    assert judged(answering(answer), "f()").reason == f"RuntimeError: {name}: /etc/passwd"


@needs_isolation
def test_an_exception_of_the_code_arrives_as_its_nearest_known_base_class() -> None:
    code = "import json\nclass Own(KeyError): pass\ndef f(): raise Own(1)\ndef g(): json.loads('')\n"
    expects = "try:\n    {}()\nexcept {}:\n    pass\nelse:\n    assert False\n"
    assert judged(code, expects.format("f", "KeyError") + expects.format("g", "ValueError")).passed


@needs_isolation
def test_tests_cannot_go_on_after_the_codes_process_has_ended() -> None:
    tests = "try:\n    f()\nexcept BaseException:\n    pass"
    result = judged("import os\ndef f(): os._exit(0)", tests)
    assert (result.verdict, result.reason) == ("crashed", "the code's process ended before the tests did")


# ---- objects of the code


@needs_isolation
def test_an_object_of_the_code_equals_nothing_and_iterates_in_plain_values() -> None:
    code = (
        "class Same:\n    __eq__ = lambda *given: True\n    __ne__ = lambda *given: False\n"
        "    __hash__ = lambda self: 1\n    __contains__ = lambda *given: True\n    __iter__ = lambda self: iter([7])\n"
        "    __sub__ = lambda *given: 0\n    __abs__ = lambda self: 0\n"
        "def f(): return Same()\n"
    )
    assert judged(code, "s = f()\nassert s != 1 and not s == f() and s == s and 5 not in s and list(s) == [7]").passed
    for tests in ("assert f() == 1", "assert 5 in f()", "assert {f()} == {f()}", "assert abs(f() - 1) < 1e-6"):
        assert judged(code, tests).verdict == "failed", tests


@needs_isolation
def test_iterators_are_read_only_as_far_as_the_tests_read_them() -> None:
    code = "from itertools import count\ndef f():\n    yield from count()\n"
    assert judged(code, "import itertools\nassert list(itertools.islice(f(), 5000)) == list(range(5000))").passed
    lazy = "def f():\n    yield 5\n    raise ValueError\n"
    assert judged(lazy, "assert next(iter(f())) == 5").passed
    endless = check(code, "assert sum(f()) == 1", limits=LIMITS.replace(wall_seconds=3))
    assert endless.verdict in ("timeout", "crashed"), endless


@needs_isolation
def test_a_reason_shows_no_control_characters_of_the_code() -> None:
    result = judged("def f(): raise ValueError('\\x1b]0;title\\x07\\x9b31m\\n')", "f()")
    assert result.reason == "ValueError: ValueError: \\x1b]0;title\\x07\\x9b31m\\n"
