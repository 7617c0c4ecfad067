"""LiveCodeBench: problems from programming contests; an answer is a program that must pass all tests in the sandbox."""

import base64
import json
import pickletools
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator
from typing_extensions import override

from esamp import sandbox
from esamp.errors import InputError
from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Item
from esamp.tasks.code import CodeOptions, CodeTask
from esamp.tasks.program_text import PYTHON, defines, fenced_blocks, flush_left
from esamp.tasks.sources import Row

HUB = "livecodebench/code_generation_lite"
FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")
"""The problems that each release added: 400, 111, 101, 101, 167 and 175."""
LARGEST = 256 << 20
"""Bytes that the tests of one problem may have when unpacked."""
MODULES = """
string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json
builtins typing
"""
PRELUDE = "\n".join(
    [
        *(f"from {name} import *" for name in MODULES.split()),
        *(f"import {name}" for name in MODULES.split()),
        "sys.setrecursionlimit(50_000)",
        "quit = exit = sys.exit",  # defined by the module `site`, which the sandbox does not load
    ]
)
"""Imports that the benchmark's own grader puts before every program."""
PROGRAM_INSTRUCTION = (
    "Write a Python program that solves this problem. It reads the input from the standard input and writes the "
    "answer, and nothing else, to the standard output. Put the whole program into one block of code:\n\n"
    "```python\n# your program\n```"
)
FUNCTION_INSTRUCTION = (
    "Solve this problem in Python by completing the code below; keep its names. Put the whole solution into one block "
    "of code.\n\n```python\n{starter}\n```"
)
_READS = re.compile(
    r"\binput\s{0,4}\(|\bstdin\b|\bopen\s{0,4}\(\s{0,4}(?:0|['\"]/dev/stdin)|\bfileinput\b|\bos\.read\b"
)
"""Ways in which a program reads its input."""
_TEXT_OPERATIONS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_NEUTRAL_OPERATIONS = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


class LiveCodeBenchOptions(CodeOptions):
    """Options of LiveCodeBench."""

    release: Literal["v1", "v2", "v3", "v4", "v5", "v6", "to_v2", "to_v3", "to_v4", "to_v5", "to_v6"] = "v5"
    """v5: the 167 problems that release 5 added; to_v5: all 880 up to it; a local file is used whole"""
    start: str | None = None
    """only contests on this day or later, such as 2024-10-01"""
    end: str | None = None
    """only contests on this day or earlier"""
    test_seconds: float = Field(default=6.0, ge=0.1, le=3600)
    """seconds for one test"""
    code_seconds: float = Field(default=300.0, ge=0.1, le=3600)
    """seconds for all tests of one answer"""
    code_memory_mib: int = Field(default=2048, ge=128, le=1 << 20)
    """MiB of memory of one process"""

    @field_validator("start", "end")
    @classmethod
    def _check_day(cls, value: str | None) -> str | None:
        return None if value is None else date.fromisoformat(value).isoformat()


class LiveCodeBench(CodeTask):
    """The 167 problems that release v5 added, or those of other releases and days.

    Contests of AtCoder, Codeforces and LeetCode, from about October 2024 to January 2025. A program reads the standard
    input, or completes a method of LeetCode's class ``Solution`` (a new instance for each test). It is right if it
    passes all public and private tests. Two outputs agree if their lines do, apart from white space at the ends, or
    if the numbers in them do. Programs have only Python's standard library.
    """

    name = "livecodebench"
    summary = "LiveCodeBench v5, 167 problems of contests from October 2024 to January 2025 (runs code: run_code)"
    source = "Jain et al. 2024, arXiv 2403.07974: livecodebench/code_generation_lite on the Hugging Face hub"
    options = LiveCodeBenchOptions

    def __init__(
        self, items: Sequence[Item], options: LiveCodeBenchOptions, tests: Mapping[str, tuple[str, str]]
    ) -> None:
        super().__init__(items, options)
        self._test_seconds, self._tests = options.test_seconds, tests
        self._last: tuple[str, list[list[Any]]] | None = None

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        """Load the problems. Their private tests stay packed until an answer is graded.

        Raises:
            InputError: the problems cannot be loaded, two have the same id, or none is in the requested time.
        """
        wanted = narrowed(options, LiveCodeBenchOptions)
        number = int(wanted.release[-1])
        files = FILES[:number] if wanted.release.startswith("to_") else FILES[number - 1 : number]
        items: dict[str, Item] = {}
        tests: dict[str, tuple[str, str]] = {}
        for path in sources.fetch(wanted, HUB, files):
            for place, values in enumerate(sources.stream_rows(path)):
                row = Row(values, place, f"{cls.name}, {path.name}")
                day = _day(row)
                if not (wanted.start or day) <= day <= (wanted.end or day):
                    continue
                item = _item(row)
                if item.id in items:
                    raise InputError(f"{row.where}: its question_id occurs twice")
                items[item.id] = item
                tests[item.id] = _packed(row)
        if not items:
            raise InputError(
                f"{cls.name}: no problem is from the days {wanted.start or '(any)'} to {wanted.end or '(any)'}"
            )
        return cls(list(items.values()), wanted, tests)

    @override
    def program(self, item: Item, text: str) -> str:
        """The last block that defines the method or reads the input, else the last one of Python or no language."""
        method = str(item.data["method"])
        if not method:
            return last_program(text, lambda block: _READS.search(block) is not None)
        return last_program(text, lambda block: defines(block, "Solution") or defines(block, method))

    @override
    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
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
            limits=limits.replace(call_seconds=self._test_seconds, file_mib=64),
            missing=self._options.code_isolation,
        )

    def _cases(self, item: Item) -> list[list[Any]]:
        """All tests of a problem, unpacked. Those of the last problem are cached for its other samples."""
        if self._last is None or self._last[0] != item.id:
            public, private = self._tests[item.id]
            where, method = item.id, bool(item.data["method"])
            cases = _read(f"{where}, public tests", public, method=method)
            cases += _read(f"{where}, private tests", unpacked(where, private), method=method)
            if not cases:
                raise InputError(f"{where} has no tests")
            self._last = (item.id, cases)
        return self._last[1]


def last_program(text: str, preferred: Callable[[str], bool] = bool) -> str:
    """The last preferred fenced block marked as Python, else the last preferred one without a language.

    If no block is preferred, the last one marked as Python, else the last one without a language, else nothing. The
    last block may be cut off by the end of the text.
    """
    blocks = fenced_blocks(text)
    marked = [flush_left(each.body) for each in blocks if each.language in PYTHON]
    unmarked = [flush_left(each.body) for each in blocks if not each.language]
    for bodies in (*([body for body in each if preferred(body)] for each in (marked, unmarked)), marked, unmarked):
        if bodies:
            return bodies[-1]
    return ""


def unpacked(where: str, text: str) -> str:
    """The JSON text of private tests, which is plain, or pickled, compressed by zlib and encoded in Base64.

    Nothing is unpickled, because that would run code from the file: the operations of the pickle are read as data, and
    only those of a single text are accepted.

    Raises:
        InputError: the text has another format, or is too large.
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
            if operation.name in _TEXT_OPERATIONS:
                texts.append(argument)
            elif operation.name not in _NEUTRAL_OPERATIONS:
                raise InputError(
                    f"{where}: its private tests are a pickle of something else than one text ({operation.name})"
                )
    except (ValueError, zlib.error) as error:
        raise InputError(f"{where}: its private tests cannot be unpacked ({str(error)[:100]})") from None
    if len(texts) != 1:
        raise InputError(f"{where}: its private tests are a pickle of {len(texts)} texts, not one")
    return str(texts[0])


def _item(row: Row) -> Item:
    """The item of a row; its data holds the name of the method to call, and a hash that identifies the tests."""
    name, question = row.text("question_id"), row.text("question_content")
    starter = str(row.values.get("starter_code") or "")
    metadata = _parsed(row.where, str(row.values.get("metadata") or "{}"))
    method = str(metadata.get("func_name") or "") if isinstance(metadata, dict) else ""
    if method and not method.isidentifier():
        raise InputError(f"{row.where}: the function's name is not a Python name")
    instruction = FUNCTION_INSTRUCTION.format(starter=starter.rstrip()) if starter.strip() else PROGRAM_INSTRUCTION
    digest = sha256("\0".join(_packed(row)).encode(errors="backslashreplace")).hexdigest()
    return Item(f"livecodebench/{name}", f"{question.strip()}\n\n{instruction}", {"method": method, "tests": digest})


def _day(row: Row) -> str:
    try:
        return date.fromisoformat(row.text("contest_date")[:10]).isoformat()
    except ValueError:
        raise InputError(f"{row.where}: its contest_date is not a day such as 2024-10-01") from None


def _packed(row: Row) -> tuple[str, str]:
    """The public and the private tests as the row holds them."""
    public, private = (row.values.get(key) or "[]" for key in ("public_test_cases", "private_test_cases"))
    if not (isinstance(public, str) and isinstance(private, str)):
        raise InputError(f"{row.where}: its tests are not a text")
    return public, private


def _read(where: str, text: str, *, method: bool) -> list[list[Any]]:
    """Pairs of input and expected output: texts, or with `method` the arguments and the result of a call."""
    found = _parsed(where, text)
    if not isinstance(found, list):
        raise InputError(f"{where} are not a list")
    cases: list[list[Any]] = []
    for each in found:
        if not (isinstance(each, dict) and isinstance(each.get("input"), str) and isinstance(each.get("output"), str)):
            raise InputError(f"{where}: a test lacks its input or output")
        if each.get("testtype", "") != ("functional" if method else "stdin"):
            raise InputError(f"{where}: the kind {each.get('testtype')!r} of a test does not fit the problem")
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
