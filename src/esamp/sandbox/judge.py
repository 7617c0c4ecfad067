"""The interpreter that runs the tests, which are trusted, and never the code.

It accepts only requested plain values from the candidate's process: `wire.unpack` rebuilds them, and `ANSWERS` defines
the valid answers to each request. Run as a script in the sandbox, with the standard library only.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import importlib
import json
import os
import signal
import symtable
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from esamp.sandbox.wire import DIGITS, EXCEPTIONS, Channel, MessageError, pack, unpack

PORTION = 4096
"""Items of an iterator that are requested at a time."""
NEVER_BOUND = frozenset(dir(builtins)) | {"exit", "quit", "help", "copyright", "credits", "license"}
"""Names that every interpreter defines, so they are never taken from the code."""
UNDUMPABLE = 4
"""PR_SET_DUMPABLE of `prctl`."""


class BrokenError(BaseException):
    """The candidate's process ended, took too long or sent what is no answer. No test can expect or outlive it."""

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


class Remote:
    """An object of the candidate, as the tests see it: never equal to anything but itself."""

    def __init__(self, judge: Judge, number: int) -> None:
        object.__setattr__(self, "_judge", judge)
        object.__setattr__(self, "_number", number)

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self._judge.ask("call", self, values, named)

    def __iter__(self) -> Iterator[Any]:
        return self._items(self._judge.ask("iterate", self))

    def _items(self, iterator: Any) -> Iterator[Any]:
        count, more = 1, True
        while more:
            items, more = self._judge.ask("take", iterator, count)
            yield from items
            count = min(2 * count, PORTION)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._judge.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
        self._judge.ask("set", self, name, value)

    def __getitem__(self, place: Any) -> Any:
        return self._judge.ask("item", self, place)

    def __len__(self) -> int:
        length: int = self._judge.ask("length", self)
        return length

    def __bool__(self) -> bool:
        truth: bool = self._judge.ask("true", self)
        return truth


def _is_none(answer: Any) -> bool:
    return answer is None


def _is_bool(answer: Any) -> bool:
    return type(answer) is bool


def _is_run(answer: Any) -> bool:
    return type(answer) is tuple and [type(part) for part in answer] == [int, str, str]


def _is_portion(answer: Any) -> bool:
    return type(answer) is tuple and [type(part) for part in answer] == [list, bool]


ANSWERS: dict[str, Callable[[Any], bool]] = {
    "load": _is_none,
    "program": _is_none,
    "set": _is_none,
    "defines": _is_bool,
    "true": _is_bool,
    "run": _is_run,
    "take": _is_portion,
    "length": lambda answer: type(answer) is int and 0 <= answer < 1 << 62,
    "iterate": lambda answer: type(answer) is Remote,
}
"""What may answer an operation; any value may answer the others."""


class Judge:
    """Runs the tests against the candidate's objects."""

    def __init__(self, channel: Channel, seconds: float | None = None) -> None:
        self.channel, self.seconds = channel, seconds
        self.broken: BrokenError | None = None
        signal.signal(signal.SIGALRM, self._late)

    def ask(self, operation: str, *given: Any) -> Any:
        """Send a request to the candidate and return its answer, within the time limit of one request.

        Raises:
            BrokenError: there was no valid answer in time, so no further request is possible.
            Exception: the code raised an exception of `EXCEPTIONS`.
        """
        message = [operation, *(pack(each, self._number) for each in given)]
        if self.broken is not None:
            raise self.broken
        signal.setitimer(signal.ITIMER_REAL, self.seconds or 0)
        try:
            kind, answer = self._answer(operation, message)
        except (MessageError, OSError) as error:
            reason = str(error) if isinstance(error, MessageError) else "the code's process ended before the tests did"
            self._break("crashed", reason)
        except MemoryError:
            self._break("memory", "out of memory for an answer of the code's process")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if kind == "ok":
            return answer
        name, text = answer
        error_class = getattr(builtins, name) if name in EXCEPTIONS else RuntimeError
        raise error_class(f"{name}: {text}")

    def _answer(self, operation: str, message: list[Any]) -> tuple[str, Any]:
        """Send a request, and read and check its answer."""
        self.channel.send(message)
        answer = self.channel.receive()
        if len(answer) == 2 and answer[0] == "ok":
            value = unpack(answer[1], lambda number: Remote(self, number))
            if operation not in ANSWERS or ANSWERS[operation](value):
                return "ok", value
        elif [type(part) for part in answer] == [str, str, str] and answer[0] == "error":
            return "error", answer[1:]
        raise MessageError("the code's process sent no answer to what was asked")

    def _break(self, verdict: str, reason: str) -> NoReturn:
        self.broken = self.broken or BrokenError(verdict, reason)
        raise self.broken

    def _late(self, *_: Any) -> NoReturn:
        self._break("timeout", f"not done after {self.seconds:g} s")

    @staticmethod
    def _number(value: Any) -> int:
        if type(value) is Remote:
            number: int = value._number
            return number
        raise TypeError(f"a {type(value).__name__} cannot be handed to the code")

    def run(self, task: dict[str, Any]) -> None:
        """Load the code, bind the names that the tests take from it, run the tests."""
        space: dict[str, Any] = {"__name__": "tests", "cases": task["cases"]}
        exec(compile(task["setup"], "<setup>", "exec"), space)
        if task["program"]:
            self.ask("program", task["prelude"], task["code"])
            space["run"] = lambda text: self.ask("run", text)
        else:
            self.ask("load", task["prelude"])
            self.ask("load", task["code"])
        modules, names = needed(task["tests"], set(space))
        for name in modules:
            space[name] = importlib.import_module(name)
        for name in dict.fromkeys([*task["names"], *names]):
            if self.ask("defines", name):
                space[name] = self.ask("get", name)
            elif name in task["names"]:
                raise NameError(f"the code does not define {name!r}")
        exec(compile(task["tests"], "<tests>", "exec"), space)
        if self.broken is not None:
            raise self.broken


def needed(tests: str, defined: set[str]) -> tuple[list[str], list[str]]:
    """The names that the tests use, but neither `defined`, Python nor the tests define: standard modules, and the rest.

    The rest is taken from the code. A module's name counts as a standard module if the tests use an attribute of it,
    because a module from the code could return anything.
    """
    free = _free(symtable.symtable(tests, "<tests>", "exec")) - NEVER_BOUND - defined
    owners = {
        node.value.id
        for node in ast.walk(ast.parse(tests))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    modules = free & owners & sys.stdlib_module_names
    return sorted(modules), sorted(name for name in free - modules if not name.startswith("__"))


def _free(table: symtable.SymbolTable) -> set[str]:
    """The names that a text looks up in its module and never binds there."""
    bound = {each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported()}
    names: set[str] = set()
    tables = [table]
    while tables:
        scope = tables.pop()
        tables += scope.get_children()
        for each in scope.get_symbols():
            if each.is_declared_global() and (each.is_assigned() or each.is_imported()):
                bound.add(each.get_name())
            elif each.is_referenced() and (each.is_global() or scope is table):
                names.add(each.get_name())
    return names - bound


def decide(channel: Channel, task: dict[str, Any]) -> tuple[str, str]:
    """The verdict and its reason."""
    try:
        Judge(channel, task["seconds"]).run(task)
    except BrokenError as error:
        return error.verdict, error.reason
    except MemoryError as error:
        return "memory", str(error) or "out of memory"
    except BaseException as error:  # noqa: BLE001 - whatever stops the tests is their verdict
        return "failed", f"{type(error).__name__}: {error}"[:300]
    return "passed", "all tests pass"


def main() -> None:
    """Read the task from the standard input, run the tests, write the verdict with the token."""
    ctypes.CDLL(None).prctl(UNDUMPABLE, 0, 0, 0, 0)  # no process of the same user looks into this one
    sys.set_int_max_str_digits(DIGITS)
    reads, writes, verdict = (int(word) for word in sys.argv[1:4])
    task = json.loads(sys.stdin.buffer.read())
    found, reason = decide(Channel(reads, writes), task)
    os.write(verdict, json.dumps({"token": task["token"], "verdict": found, "reason": reason}).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
