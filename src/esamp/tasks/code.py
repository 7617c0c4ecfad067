"""HumanEval and MBPP: the answer is a program, graded by running its tests in the sandbox, if that is allowed."""

import ast
import builtins
import keyword
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from esamp import sandbox
from esamp.errors import InputError, OptionError
from esamp.options import Options, narrowed
from esamp.tasks import sources
from esamp.tasks.base import Grade, Item, Task
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
from esamp.tasks.sources import SourceOptions
from esamp.tasks.thought import without_thought

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\nassert ", "\n@", "\n```", "<file_sep>")
"""Where a completion ends (Chen et al. 2021, section 2.1, and what models write behind it)."""


class CodeOptions(SourceOptions):
    """Options of the tasks whose answers are programs."""

    run_code: bool = False
    """allow that what the model writes is run, in the sandbox"""
    code_seconds: float = Field(15.0, ge=0.1, le=3600)
    """seconds for the tests of one answer"""
    code_memory_mib: int = Field(1024, ge=128, le=1 << 20)
    """MiB of memory of one process"""
    code_isolation: Literal["refuse", "allow"] = "refuse"
    """what to do where this machine cannot isolate everything (`esamp doctor` tells): refuse, or allow it"""


class CodeTask(Task):
    """A task whose answers are programs: they are run if that is allowed."""

    def __init__(self, items: list[Item], options: CodeOptions) -> None:
        """Use `build`."""
        self._items, self._options = items, options

    @abstractmethod
    def program(self, item: Item, text: str) -> str:
        """The whole program of an answer; empty if there is none."""

    @abstractmethod
    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        """Run the tests of an item in the sandbox."""

    def items(self, split: str | None = None, limit: int | None = None) -> list[Item]:
        """The problems in the order of the data set."""
        return self._items[:limit]

    def grade(self, item: Item, text: str) -> Grade:
        """Run the tests.

        Raises:
            OptionError: running was not allowed.
            UnsupportedError: this machine cannot isolate the program.
        """
        if not self._options.run_code:
            raise OptionError(
                f"the task {self.name!r} runs code that the model wrote, in a sandbox (`esamp doctor` says what this "
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


class _Code(CodeTask):
    """What the tasks of this file share."""

    options = CodeOptions
    hub: ClassVar[tuple[str, str | None, str]]
    """name, configuration and split"""

    @classmethod
    def build(cls, options: Options) -> Self:
        """Load the problems.

        Raises:
            InputError: they cannot be loaded.
        """
        wanted = narrowed(options, CodeOptions)
        hub, config, split = cls.hub
        rows = sources.load(wanted, hub, config=config, split=split)
        return cls([cls.item(f"{cls.name}, problem {place}", row) for place, row in enumerate(rows, 1)], wanted)

    @classmethod
    @abstractmethod
    def item(cls, where: str, row: Mapping[str, Any]) -> Item:
        """The item of a row; `data` holds `tests`, `setup`, `names` (see `sandbox.check`)."""

    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        """Run the tests against the functions of the program."""
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


class HumanEval(_Code):
    """164 functions to complete. An answer is the rest of the function, or a chat's fenced block with all of it."""

    name = "humaneval"
    summary = "HumanEval: complete a function, graded by its tests (runs code: run_code)"
    source = "Chen et al. 2021, arXiv 2107.03374"
    hub = ("openai/openai_humaneval", None, "test")

    @classmethod
    def item(cls, where: str, row: Mapping[str, Any]) -> Item:
        """The prompt is the function's head. The tests call `candidate`; helpers are those of the prompt."""
        task, prompt, tests, entry = (
            str(sources.field(where, row, name)) for name in ("task_id", "prompt", "test", "entry_point")
        )
        if not entry.isidentifier():
            raise InputError(f"{where}: its entry point is no name")
        return Item(task, prompt, {"tests": f"{tests}\ncheck({entry})\n", "setup": prompt, "names": entry})

    def program(self, item: Item, text: str) -> str:
        """The prompt and its completion; the prompt's helpers and imports stay where a block repeats the function."""
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


class MBPP(_Code):
    """500 functions described in a sentence and three tests (problems 11 to 510 of 974; of a local file, all).

    The tests of problem 533 hand a type to the program, which the sandbox cannot: no answer to it is right.
    """

    name = "mbpp"
    summary = "MBPP: write a function, graded by three tests (runs code: run_code)"
    source = "Austin et al. 2021, arXiv 2108.07732"
    hub = ("google-research-datasets/mbpp", "full", "test")

    @classmethod
    def item(cls, where: str, row: Mapping[str, Any]) -> Item:
        """The paper's prompt, without worked examples."""
        text = str(sources.field(where, row, "text", "prompt"))
        tests = sources.field(where, row, "test_list")
        if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests) or not tests:
            raise InputError(f"{where}: 'test_list' is no list of tests")
        setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
        joined = "\n".join(tests)
        prompt = (
            f"You are an expert Python programmer, and here is your task: {text} "
            f"Your code should pass these tests:\n\n{joined}\n[BEGIN]\n"
        )
        number = sources.field(where, row, "task_id")
        names = " ".join(_defined_and_used(str(row.get("code") or ""), f"{setup}\n{joined}"))
        return Item(f"mbpp/{number}", prompt, {"tests": joined, "setup": str(setup), "names": names})

    def program(self, item: Item, text: str) -> str:
        """The last block that defines what the tests call, or what stands before ``[DONE]`` or a closing fence."""
        names = [*str(item.data["names"]).split(), *called(str(item.data["tests"]))]
        found = chosen_block(text, names)
        if found is None:
            plain = bare(text).partition("[DONE]")[0].strip("\n").removeprefix("[BEGIN]")
            found = program_without_fences(plain) or plain
        imports = [line for line in str(item.data["setup"]).split("\n") if line.startswith(("import ", "from "))]
        return "\n".join([*imports, flush_left(found)])

    def check(self, item: Item, program: str, limits: sandbox.Limits) -> sandbox.Result:
        """Run the tests. What stands before them uses the program's names too, as the trees of two problems do."""
        return self._checked(program, f"{item.data['setup']}\n{item.data['tests']}", "", item, limits)


def fenced(text: str) -> str | None:
    """The last fenced block of a text, None if it has none. One that the text's end cut off counts."""
    blocks = fenced_blocks(text)
    return blocks[-1].body if blocks else None


def chosen_block(text: str, names: Sequence[str]) -> str | None:
    """The last block that defines one of the names; else the last of Python, else the last that is not marked.

    None if the text has no such block, or if a definition stands before all blocks and in none of them.
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
    """The names that tests call, without Python's own and without attributes."""
    names = re.findall(r"(?<![\w.])([A-Za-z_]\w*)[ \t]*\(", tests)
    return [name for name in dict.fromkeys(names) if name not in dir(builtins) and not keyword.iskeyword(name)]


def _defined_and_used(reference: str, tests: str) -> list[str]:
    """The functions and classes that a reference solution defines and tests use, also under a name of Python's."""
    try:
        tree = ast.parse(reference)
    except SyntaxError:
        return []
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    return sorted(defined.intersection(used))


def completion(text: str) -> str:
    """A completion up to the first stop. A text that begins with the function itself is left whole."""
    if re.match(r"\s*(?:from |import |def |async def |@|class )", text) and not text.startswith((" ", "\t")):
        return text
    return text[: min((at for stop in STOPS if (at := text.find(stop)) >= 0), default=len(text))]


def _last_indent(prompt: str) -> str:
    """The indent of the last line of a function's head, four spaces if that has none."""
    last = prompt.rstrip().rpartition("\n")[2]
    return last[: len(last) - len(last.lstrip())] or "    "
