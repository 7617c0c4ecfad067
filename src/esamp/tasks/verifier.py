"""`Verifier`: is this mathematical answer that one? Asked in a process of its own, which can be killed."""

from types import TracebackType
from typing import Self

from esamp.extras import install_command
from esamp.tasks.worker import Worker

SECONDS = 10.0
LONGEST = 2_000
"""Characters of an answer that are looked at; a longer one is no answer."""


class Verifier:
    """`math-verify` behind a pipe.

    It parses what models wrote with a computer algebra system, which can take for ever and much memory. So it runs in
    a process with limits, and the process is replaced when it has used up its processor time: such an answer is wrong.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        """Start nothing yet. An answer has `seconds` of processor time to be verified."""
        missing = f"the package 'math-verify' grades this task: {install_command('tasks')}"
        self.worker = Worker("esamp.tasks.math_process", None, seconds, missing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        self.close()

    def same(self, gold: str, answer: str) -> bool:
        """Whether `answer` is mathematically equal to `gold`; both LaTeX or plain.

        Raises:
            MissingDependencyError: math-verify is not installed.
            UnsupportedError: the process was stopped or killed from outside.
        """
        if len(answer) > LONGEST or "\0" in answer:
            return False
        request = [each.encode(errors="replace").decode() for each in (gold, answer)]
        return self.worker.ask(request) is True

    def close(self) -> None:
        """End the process."""
        self.worker.close()
