"""`Verifier`: is this mathematical answer that one? Asked in a process of its own, which can be killed."""

import multiprocessing
import resource
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from esamp.errors import MissingDependencyError
from esamp.extras import install_command

SECONDS = 10.0
MEMORY = 2 << 30
LONGEST = 2_000
"""Characters of an answer that are looked at; a longer one is no answer."""


class Verifier:
    """`math-verify` behind a pipe.

    It parses what models wrote with a computer algebra system, which can take for ever and much memory, and stops
    itself by ``signal.alarm``, which works in a main thread only. So it runs in a process with limits, and the process
    is replaced when it does not answer in time: such an answer is wrong.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        """Start nothing yet. An answer has `seconds` to be verified."""
        self._seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        self.close()

    def same(self, gold: str, answer: str) -> bool:
        """Whether `answer` is mathematically equal to `gold`; both LaTeX or plain.

        Raises:
            MissingDependencyError: math-verify is not installed.
        """
        if len(answer) > LONGEST or "\0" in answer:
            return False
        pipe = self._started()
        try:
            pipe.send((gold, answer))
            if pipe.poll(self._seconds):
                return bool(pipe.recv())
        except (EOFError, OSError):
            pass  # it died of its limits
        self.close()
        return False

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other,), daemon=True)
            self._process.start()
            other.close()
            if not self._pipe.poll(120) or self._pipe.recv() != "ready":
                self.close()
                raise MissingDependencyError(f"the package 'math-verify' grades this task: {install_command('tasks')}")
        assert self._pipe is not None
        return self._pipe


def _serve(pipe: Connection) -> None:
    """The other end."""
    try:
        from math_verify import parse, verify
    except ModuleNotFoundError:
        pipe.send("missing")
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    pipe.send("ready")
    while True:
        try:
            gold, answer = pipe.recv()
        except EOFError:
            return
        pipe.send(bool(verify(parse(f"${gold}$"), parse(f"${answer}$"))))
