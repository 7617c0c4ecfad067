"""The interpreter that runs the code: it answers the requests of the judge, and never sees the tests.

Nothing here is trusted, since the code can change all of it; the judge checks every answer. Run as a script in
the sandbox, with the standard library only.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from esamp.sandbox.wire import DIGITS, EXCEPTIONS, Channel, MessageError, pack, unpack

PRINTED = 16 << 20
"""Bytes that a program may print for one input."""
ERROR_CHARACTERS = 300


class BecomeProgram(BaseException):
    """In a new process: leave all and run the program."""


class CandidateProgram:
    """Runs the code and answers calls."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.module = channel, types.ModuleType("answer")
        self.kept: list[Any] = []
        self.program: tuple[types.CodeType, ...] = ()
        sys.modules["answer"] = self.module

    def keep(self, value: Any) -> int:
        """The handle of an object that stays here."""
        self.kept.append(value)
        return len(self.kept) - 1

    def serve(self) -> None:
        """Answer until the judge is gone, or until this is a new process, which becomes the program."""
        while True:
            operation, *given = self.channel.receive()
            try:
                values = [unpack(each, self.kept.__getitem__) for each in given]
                self.channel.send(["ok", pack(self.perform(operation, *values), self.keep)])
            except BecomeProgram:
                break
            except BaseException as error:  # noqa: BLE001 - whatever the code raises, also SystemExit
                self.channel.send(["error", _name(error), str(error)[:ERROR_CHARACTERS]])
        self.become()

    def perform(self, operation: str, first: Any, *rest: Any) -> Any:
        if operation == "load":
            return exec(compile(first, "<answer>", "exec"), self.module.__dict__)
        if operation == "call":
            return first(*rest[0], **rest[1])
        simple: dict[str, Callable[..., Any]] = {
            "program": self.prepare,
            "run": self.run,
            "defines": self.module.__dict__.__contains__,
            "get": self.module.__dict__.__getitem__,
            "attribute": getattr,
            "set": setattr,
            "item": operator.getitem,
            "length": len,
            "true": bool,
            "iterate": lambda value: _Iterator(iter(value)),
            "take": lambda iterator, count: iterator.take(count),
        }
        return simple[operation](first, *rest)

    def prepare(self, prelude: str, code: str) -> None:
        """Compile the code, so that it can be run as a program any number of times."""
        self.program = (compile(prelude, "<prelude>", "exec"), compile(code, "<answer>", "exec"))
        exec(self.program[0], {})  # modules of the prelude are already imported when the program starts

    def run(self, text: str) -> tuple[int, str, str]:
        """Run the program with a text as its standard input: its exit code, what it printed, its error's last line."""
        with _nameless_file() as given, _nameless_file() as said:
            given.write(text.encode(errors="surrogatepass"))
            given.seek(0)
            reads, writes = os.pipe()
            child = os.fork()
            if child == 0:
                for number, end in enumerate((given.fileno(), writes, said.fileno())):
                    os.dup2(end, number)
                for each in (os.fdopen(reads, "rb"), os.fdopen(writes, "wb"), self.channel.reads, self.channel.writes):
                    each.close()
                raise BecomeProgram
            os.close(writes)
            with os.fdopen(reads, "rb") as output:
                printed = output.read(PRINTED + 1)
            if much := len(printed) > PRINTED:
                os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * ERROR_CHARACTERS))
            last = said.read().decode(errors="replace").rstrip().rpartition("\n")[2]
        if much:
            raise ValueError(f"more than {PRINTED >> 20} MiB printed")
        return code, printed.decode(errors="replace"), last[:ERROR_CHARACTERS]

    def become(self) -> None:
        """Be the program: the main module of an interpreter with these standard streams."""
        sys.stdin, sys.stdout = os.fdopen(0, "r", encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
        sys.argv = ["answer"]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        with contextlib.suppress(SystemExit):
            for part in self.program:
                exec(part, main.__dict__)


class _Iterator:
    """An iterator whose items are taken in portions."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator

    def take(self, count: int) -> tuple[list[Any], bool]:
        """The next items, and whether there may be more."""
        items = list(itertools.islice(self.iterator, count))
        return items, len(items) == count


def _name(error: BaseException) -> str:
    """The nearest exception that tests can expect, of those that this one is derived from."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in EXCEPTIONS), type(error).__name__)


def _nameless_file() -> BinaryIO:
    """A file in the working folder that no name leads to, counted in its size; gone when it is closed."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        opened = os.open(".", flags | os.O_TMPFILE, 0o600)
    except OSError:  # a file system without such files
        opened = os.open("esamp", flags | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink("esamp")  # noqa: PTH108 - pathlib is slow to import
    return os.fdopen(opened, "w+b")


def main() -> None:
    """Answer on the two descriptors that the arguments name."""
    sys.set_int_max_str_digits(DIGITS)
    candidate = CandidateProgram(Channel(int(sys.argv[1]), int(sys.argv[2])))
    with contextlib.suppress(MessageError):
        candidate.serve()


if __name__ == "__main__":
    main()
