"""LiveCodeBench: problems of programming contests, each answer a program that must pass all tests in the sandbox."""

import base64
import json
import pickletools
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from esamp import sandbox
from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Item
from esamp.tasks.code import CodeOptions, CodeTask
from esamp.tasks.program_text import PYTHON, defines, fenced_blocks, flush_left

HUB = "livecodebench/code_generation_lite"
FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")
"""What each release added: 400, 111, 101, 101, 167 and 175 problems."""
LARGEST = 256 << 20
"""Bytes that the tests of one problem may unpack to."""
STARS = """
string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json
builtins typing
"""
PRELUDE = "\n".join(
    [
        *(f"from {name} import *" for name in STARS.split()),
        *(f"import {name}" for name in STARS.split()),
        "sys.setrecursionlimit(50_000)",
        "quit = exit = sys.exit",  # an interpreter has them from the module `site`, which the sandbox does not load
    ]
)
"""What the benchmark's own grader gives every program: it need not import these modules."""
PROGRAM = (
    "Write a Python program that solves this problem. It reads the input from the standard input and writes the "
    "answer, and nothing else, to the standard output. Put the whole program into one block of code:\n\n"
    "```python\n# your program\n```"
)
FUNCTION = (
    "Solve this problem in Python by completing the code below; keep its names. Put the whole solution into one block "
    "of code.\n\n```python\n{starter}\n```"
)
_READS = re.compile(
    r"\binput\s{0,4}\(|\bstdin\b|\bopen\s{0,4}\(\s{0,4}(?:0|['\"]/dev/stdin)|\bfileinput\b|\bos\.read\b"
)
"""How a program reads its input."""
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_NOTHING = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


class LiveCodeBenchOptions(CodeOptions):
    """Options of LiveCodeBench."""

    release: Literal["v1", "v2", "v3", "v4", "v5", "v6", "to_v2", "to_v3", "to_v4", "to_v5", "to_v6"] = "v5"
    """v5 is what release 5 added (167 problems), to_v5 all up to it (880); of a local file, all is taken"""
    start: str | None = None
    """only contests on this day or later, such as 2024-10-01"""
    end: str | None = None
    """only contests on this day or earlier"""
    test_seconds: float = Field(6.0, ge=0.1, le=3600)
    """seconds for one test"""
    code_seconds: float = Field(300.0, ge=0.1, le=3600)
    """seconds for all tests of one answer"""
    code_memory_mib: int = Field(2048, ge=128, le=1 << 20)
    """MiB of memory of one process"""

    @field_validator("start", "end")
    @classmethod
    def _is_a_day(cls, value: str | None) -> str | None:
        return None if value is None else date.fromisoformat(value).isoformat()


class LiveCodeBench(CodeTask):
    """The 167 problems that release v5 added, or those of other releases and days.

    Contests of AtCoder, Codeforces and LeetCode, of about October 2024 to January 2025. A program reads the standard
    input, or completes a method of LeetCode's class ``Solution`` (a new one for each test). Right is what passes all
    public and private tests. Outputs agree if their lines do, without white space at their ends, or the
    numbers in them. Programs have Python's standard library alone.
    """

    name = "livecodebench"
    summary = "LiveCodeBench v5, 167 problems of contests from October 2024 to January 2025 (runs code: run_code)"
    source = "Jain et al. 2024, arXiv 2403.07974: livecodebench/code_generation_lite on the Hugging Face hub"
    options = LiveCodeBenchOptions

    def __init__(self, items: list[Item], options: LiveCodeBenchOptions, tests: Mapping[str, tuple[str, str]]) -> None:
        """Use `build`."""
        super().__init__(items, options)
        self._wanted, self._tests = options, tests
        self._last: tuple[str, list[list[Any]]] | None = None

    @classmethod
    def build(cls, options: Options) -> Self:
        """Load the problems. Their private tests stay packed until an answer is graded.

        Raises:
            InputError: they cannot be loaded, one is there twice, or none is in the time asked for.
        """
        wanted = narrowed(options, LiveCodeBenchOptions)
        number = int(wanted.release[-1])
        files = FILES[:number] if wanted.release.startswith("to_") else FILES[number - 1 : number]
        items: dict[str, Item] = {}
        tests: dict[str, tuple[str, str]] = {}
        for path in sources.fetch(wanted, HUB, files):
            for place, row in enumerate(sources.stream_rows(path), 1):
                where = f"{cls.name}, {path.name}, problem {place}"
                held = _day(where, str(sources.field(where, row, "contest_date")))
                if not (wanted.start or held) <= held <= (wanted.end or held):
                    continue
                item = _item(where, row)
                if item.id in items:
                    raise InputError(f"{where}: its question_id is there twice")
                items[item.id] = item
                tests[item.id] = _packed(where, row)
        if not items:
            raise InputError(f"{cls.name}: no problem is from {wanted.start or 'ever'} to {wanted.end or 'now'}")
        return cls(list(items.values()), wanted, tests)

    def program(self, item: Item, text: str) -> str:
        """The last block that defines the method or reads the input, else the last block of Python or no language."""
        method = str(item.data["method"])
        if not method:
            return last_program(text, lambda block: _READS.search(block) is not None)
        return last_program(text, lambda block: defines(block, "Solution") or defines(block, method))

    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        """Run all tests until one fails."""
        method = str(item.data["method"])
        if not method:
            tests = "programs(run, cases)"
        elif "class Solution" in program:
            tests = f"calls(lambda: Solution().{method}, cases)"
        else:
            tests = f"calls(lambda: {method}, cases)"
        return sandbox.check(
            program,
            tests,
            setup=Path(__file__).with_name("livecodebench_tests.py").read_text(),
            prelude=PRELUDE,
            cases=self._cases(item),
            program=not method,
            limits=limits.replace(call_seconds=self._wanted.test_seconds, file_mib=64),
            missing=self._options.code_isolation,
        )

    def _cases(self, item: Item) -> list[list[Any]]:
        """All tests of a problem, unpacked; those of the last problem are kept for its other samples."""
        if self._last is None or self._last[0] != item.id:
            public, private = self._tests[item.id]
            where, method = item.id, bool(item.data["method"])
            found = _read(f"{where}, public tests", public, method) + _read(
                f"{where}, private tests", unpacked(where, private), method
            )
            if not found:
                raise InputError(f"{where} has no tests")
            self._last = (item.id, found)
        return self._last[1]


def last_program(text: str, wanted: Callable[[str], bool] = bool) -> str:
    """The last fenced block marked as Python that is as wanted, else the last one that is not marked and is as wanted.

    Without any that is, the last one marked as Python, else the last one that is not marked, else nothing. A block that
    the text's end cuts off counts.
    """
    blocks = fenced_blocks(text)
    marked = [flush_left(each.body) for each in blocks if each.language in PYTHON]
    unmarked = [flush_left(each.body) for each in blocks if not each.language]
    for bodies in (*([body for body in each if wanted(body)] for each in (marked, unmarked)), marked, unmarked):
        if bodies:
            return bodies[-1]
    return ""


def unpacked(where: str, text: str) -> str:
    """The JSON text of private tests: as it is, or Base64 of zlib of a pickled text.

    Nothing is ever unpickled: the operations of a pickle are read as data, and only those that a lone text has are
    accepted. So bytes of strangers cannot run anything.

    Raises:
        InputError: it is something else, or too large.
    """
    if text.lstrip()[:1] == "[":
        return text
    try:
        packed = zlib.decompressobj()
        raw = packed.decompress(base64.b64decode(text, validate=True), LARGEST)
        if packed.unconsumed_tail:
            raise InputError(f"{where}: its private tests unpack to more than {LARGEST >> 20} MiB")
        if not packed.eof:
            raise InputError(f"{where}: its private tests are cut off")
        texts = []
        for operation, argument, _ in pickletools.genops(raw):
            if operation.name in _TEXTS:
                texts.append(argument)
            elif operation.name not in _NOTHING:
                raise InputError(f"{where}: its private tests are a pickle of more than a text ({operation.name})")
    except (ValueError, zlib.error) as error:
        raise InputError(f"{where}: its private tests cannot be unpacked ({str(error)[:100]})") from None
    if len(texts) != 1:
        raise InputError(f"{where}: its private tests are a pickle of {len(texts)} texts, not one")
    return str(texts[0])


def _item(where: str, row: Mapping[str, Any]) -> Item:
    """The problem as its prompt says it; `data` names the method to call, and the tests by a hash."""
    name, question = (str(sources.field(where, row, key)) for key in ("question_id", "question_content"))
    starter = str(row.get("starter_code") or "")
    about = _parsed(where, str(row.get("metadata") or "{}"))
    method = str(about.get("func_name") or "") if isinstance(about, dict) else ""
    if method and not method.isidentifier():
        raise InputError(f"{where}: the function's name is no name")
    ask = FUNCTION.format(starter=starter.rstrip()) if starter.strip() else PROGRAM
    digest = sha256("\0".join(_packed(where, row)).encode(errors="backslashreplace")).hexdigest()
    return Item(f"livecodebench/{name}", f"{question.strip()}\n\n{ask}", {"method": method, "tests": digest})


def _day(where: str, text: str) -> str:
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        raise InputError(f"{where}: its contest_date is no day such as 2024-10-01") from None


def _packed(where: str, row: Mapping[str, Any]) -> tuple[str, str]:
    public, private = (row.get(key) or "[]" for key in ("public_test_cases", "private_test_cases"))
    if not (isinstance(public, str) and isinstance(private, str)):
        raise InputError(f"{where}: its tests are no text")
    return public, private


def _read(where: str, text: str, method: bool) -> list[list[Any]]:
    """Pairs of what goes in and what comes out: texts, or the arguments and the result of a call."""
    found = _parsed(where, text)
    if not isinstance(found, list):
        raise InputError(f"{where} are no list")
    cases: list[list[Any]] = []
    for each in found:
        if not (isinstance(each, dict) and isinstance(each.get("input"), str) and isinstance(each.get("output"), str)):
            raise InputError(f"{where}: one lacks its input or output")
        if each.get("testtype", "") != ("functional" if method else "stdin"):
            raise InputError(f"{where}: the kind {each.get('testtype')!r} of one does not fit the problem")
        given, wanted = each["input"], each["output"]
        if method:
            given, wanted = [_parsed(where, line) for line in given.split("\n")], _parsed(where, wanted)
        cases.append([given, wanted])
    return cases


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not valid JSON") from None
