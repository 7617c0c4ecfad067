"""HumanEval and MBPP: an answer is a program, graded by running its tests in the sandbox if that is allowed."""

import ast
import builtins
import keyword
import re
from abc import abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal, Self

from pydantic import Field
from typing_extensions import override

from esamp import sandbox
from esamp.errors import InputError, OptionError
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, ItemsTask
from esamp.tasks.program_text import (
    PYTHON,
    as_body,
    bare,
    begins_with_body,
    defines,
    fenced_blocks,
    flush_left,
    plain_code,
    program_without_fences,
)
from esamp.tasks.rows import RowsTask
from esamp.tasks.sources import DataSet, Row, SourceOptions
from esamp.tasks.thought import without_thought

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\nassert ", "\n@", "\n```", "<file_sep>")
"""Texts that end a completion (Chen et al. 2021, section 2.1, and what models write after it)."""


class CodeOptions(SourceOptions):
    """Options of the tasks whose answers are programs."""

    run_code: bool = False
    """allow running code that the model wrote, in the sandbox"""
    code_seconds: float = Field(default=15.0, ge=0.1, le=3600)
    """seconds for the tests of one answer"""
    code_memory_mib: int = Field(default=1024, ge=128, le=1 << 20)
    """MiB of memory of one process"""
    code_isolation: Literal["refuse", "allow"] = "refuse"
    """where this machine cannot isolate everything (`esamp doctor` shows what): refuse, or run the code anyway"""


class CodeTask(ItemsTask):
    """A task whose answers are programs. They run only if the option `run_code` is set."""

    def __init__(self, items: Sequence[Item], options: CodeOptions) -> None:
        super().__init__(items)
        self._options = options

    @abstractmethod
    def program(self, item: Item, text: str) -> str:
        """The whole program of an answer; empty if there is none."""

    @abstractmethod
    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        """Run the tests of an item in the sandbox."""

    @override
    def grade(self, item: Item, text: str) -> Grade:
        """Run the tests.

        Raises:
            OptionError: the option `run_code` is not set.
            UnsupportedError: this machine cannot isolate the program.
        """
        if not self._options.run_code:
            raise OptionError(
                f"the task {self.name!r} runs code that the model wrote, in a sandbox (`esamp doctor` shows what this "
                "machine isolates): allow it with the task's option run_code = true"
            )
        program = self.program(item, plain_code(without_thought(text)))
        if not program.strip():
            return Grade(False, None, None, "no code")
        seconds = self._options.code_seconds
        limits = sandbox.Limits(
            wall_seconds=seconds, cpu_seconds=max(1, int(seconds)), memory_mib=self._options.code_memory_mib
        )
        found = self.check(item, program, limits)
        digest = sha256(re.sub(r"\s+", " ", program).strip().encode(errors="replace")).hexdigest()[:16]
        return Grade(found.passed, program, digest, f"{found.verdict}: {found.reason}")


class _FunctionTask(RowsTask, CodeTask):
    """Base of the two tasks: an answer completes or defines functions, and the tests call them.

    The data of an item holds `tests`, `setup` and `names` (see `sandbox.check`).
    """

    options = CodeOptions

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        return cls(cls.load_items(options, cls.data_set, cls.name), narrowed(options, CodeOptions))

    @override
    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        return self._checked(program, str(item.data["tests"]), str(item.data["setup"]), item, limits)

    def _checked(self, program: str, tests: str, setup: str, item: Item, limits: sandbox.Limits) -> sandbox.Result:
        return sandbox.check(
            program,
            tests,
            setup=setup,
            names=str(item.data["names"]).split(),
            limits=limits,
            missing=self._options.code_isolation,
        )


class HumanEval(_FunctionTask):
    """164 functions to complete. An answer is the rest of the function, or a fenced block with the whole function."""

    name = "humaneval"
    summary = "HumanEval: complete a function, graded by its tests (runs code: run_code)"
    source = "Chen et al. 2021, arXiv 2107.03374"
    data_set = DataSet("openai/openai_humaneval")

    @classmethod
    @override
    def item(cls, row: Row) -> Item:
        task, prompt, tests, entry = (row.text(name) for name in ("task_id", "prompt", "test", "entry_point"))
        if not entry.isidentifier():
            raise InputError(f"{row.where}: its entry point is not a Python name")
        return Item(task, prompt, {"tests": f"{tests}\ncheck({entry})\n", "setup": prompt, "names": entry})

    @override
    def program(self, item: Item, text: str) -> str:
        """The prompt and its completion. Where a block repeats the function, the prompt's helpers and imports stay."""
        setup, name = str(item.data["setup"]), str(item.data["names"])
        plain = bare(text)
        is_body = begins_with_body(plain)
        body = None if is_body and plain[:1] in (" ", "\t") else chosen_block(text, [name])
        if body is None:
            body = "" if is_body else program_without_fences(plain) or ""
            body = body if defines(body, name) else completion(plain)
        if defines(flush_left(body), name):
            return f"{setup}    pass\n\n{flush_left(body)}"
        return f"{setup}{as_body(body, _last_indent(setup))}"


class MBPP(_FunctionTask):
    """500 functions, each described by a sentence and three tests (problems 11 to 510 of 974; all of a local file).

    The prompt is the paper's without worked examples. The tests of problem 533 pass a type to the program, which is
    impossible across the sandbox's processes, so no answer to that problem is right.
    """

    name = "mbpp"
    summary = "MBPP: write a function, graded by three tests (runs code: run_code)"
    source = "Austin et al. 2021, arXiv 2108.07732"
    data_set = DataSet("google-research-datasets/mbpp", "full")

    @classmethod
    @override
    def item(cls, row: Row) -> Item:
        description = row.text("text", "prompt")
        tests = row.field("test_list")
        if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests) or not tests:
            raise InputError(f"{row.where}: 'test_list' is not a list of tests")
        setup = row.values.get("test_setup_code") or "\n".join(row.values.get("test_imports") or ())
        joined = "\n".join(tests)
        prompt = (
            f"You are an expert Python programmer, and here is your task: {description} "
            f"Your code should pass these tests:\n\n{joined}\n[BEGIN]\n"
        )
        number = row.field("task_id")
        names = " ".join(_defined_and_used(str(row.values.get("code") or ""), f"{setup}\n{joined}"))
        return Item(f"mbpp/{number}", prompt, {"tests": joined, "setup": str(setup), "names": names})

    @override
    def program(self, item: Item, text: str) -> str:
        """The last block that defines what the tests call, else the text before ``[DONE]`` or a closing fence."""
        names = [*str(item.data["names"]).split(), *called(str(item.data["tests"]))]
        source = chosen_block(text, names)
        if source is None:
            plain = bare(text).partition("[DONE]")[0].strip("\n").removeprefix("[BEGIN]")
            source = program_without_fences(plain) or plain
        imports = [line for line in str(item.data["setup"]).split("\n") if line.startswith(("import ", "from "))]
        return "\n".join([*imports, flush_left(source)])

    @override
    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        # The setup runs with the tests, because that of some problems uses the program's names.
        return self._checked(program, f"{item.data['setup']}\n{item.data['tests']}", "", item, limits)


def fenced(text: str) -> str | None:
    """The last fenced block of a text, which may be cut off by the end of the text; None if there is none."""
    blocks = fenced_blocks(text)
    return blocks[-1].body if blocks else None


def chosen_block(text: str, names: Sequence[str]) -> str | None:
    """The last block that defines one of the names, else the last Python block, else the last without a language.

    None if the text has no such block, or if only the text before the blocks defines one of the names.
    """
    blocks = [each for each in fenced_blocks(text) if each.language in PYTHON or not each.language]
    for block in reversed(blocks):
        if any(defines(flush_left(block.body), name) for name in names):
            return block.body
    before = program_without_fences(bare(text)) or ""
    if any(defines(before, name) for name in names):
        return None
    marked = [each for each in blocks if each.language]
    return (marked or blocks)[-1].body if blocks else None


def called(tests: str) -> list[str]:
    """The names that tests call, except built-ins, keywords and attributes."""
    names = re.findall(r"(?<![\w.])([A-Za-z_]\w*)[ \t]*\(", tests)
    return [name for name in dict.fromkeys(names) if name not in dir(builtins) and not keyword.iskeyword(name)]


def _defined_and_used(reference: str, tests: str) -> list[str]:
    """The functions and classes that a reference solution defines and tests use, even if a built-in has that name."""
    try:
        tree = ast.parse(reference)
    except SyntaxError:
        return []
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    return sorted(defined.intersection(used))


def completion(text: str) -> str:
    """A completion up to the first of `STOPS`. A text that begins with a definition or an import is not cut."""
    if re.match(r"\s*(?:from |import |def |async def |@|class )", text) and not text.startswith((" ", "\t")):
        return text
    return text[: min((at for stop in STOPS if (at := text.find(stop)) >= 0), default=len(text))]


def _last_indent(prompt: str) -> str:
    """The indent of the last line of a function's head; four spaces if it has none."""
    last = prompt.rstrip().rpartition("\n")[2]
    return last[: len(last) - len(last.lstrip())] or "    "
