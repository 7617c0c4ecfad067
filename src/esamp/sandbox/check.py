"""`check`: does this code pass these tests?

docs/sandbox.md says what is prevented and what is not, with an attack on each claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from esamp.errors import UnsupportedError
from esamp.sandbox.isolation import choose_isolation
from esamp.sandbox.limits import Limits
from esamp.sandbox.start import Started, script, start, working_folder

Verdict = Literal["passed", "failed", "timeout", "memory", "crashed", "output"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "timeout", "memory", "crashed")
"""Verdicts of the judge. The caller itself limits the output and the time of the whole check."""
SHOWN = 4_000
"""Characters of the output that a `Result` keeps."""
VERDICT_BYTES = 1 << 16


@dataclass(frozen=True)
class Result:
    """The verdict, its reason, the beginning of what the code printed, and the isolations that held."""

    verdict: Verdict
    reason: str
    output: str
    seconds: float
    isolated: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all tests ran to their end without an error."""
        return self.verdict == "passed"


def check(
    code: str,
    tests: str,
    *,
    setup: str = "",
    names: Sequence[str] = (),
    prelude: str = "",
    cases: Sequence[Any] = (),
    program: bool = False,
    limits: Limits | None = None,
    missing: Literal["refuse", "allow"] = "refuse",
) -> Result:
    """Run `tests` against `code`, in two isolated interpreters.

    With `program` the code is not imported. Instead, tests call ``run(text)``, which runs the code as a program in a
    new process with the text as standard input, and returns its exit code (0 after any `sys.exit`), its output, and the
    last line that it wrote to standard error.

    Args:
        code: untrusted.
        tests: trusted statements; names that neither they nor `setup` define are taken from the code.
        setup: trusted statements that run before the tests, in the interpreter of the tests.
        names: names that are taken from the code even if `setup` defines them.
        prelude: trusted statements that run before the code, in the interpreter of the code.
        cases: plain data for `setup` and the tests, as the variable ``cases``; the code cannot see it.
        program: whether the code is a program.
        limits: None for the defaults.
        missing: whether to refuse or allow a run if this machine lacks an isolation (see `available`).

    Raises:
        UnsupportedError: this machine cannot isolate the code.
    """
    limits = limits or Limits()
    isolate = choose_isolation(missing)
    token = secrets.token_hex(16)
    task = {
        "code": code,
        "tests": tests,
        "setup": setup,
        "names": list(names),
        "prelude": prelude,
        "cases": list(cases),
        "program": program,
        "seconds": limits.call_seconds,
        "token": token,
    }
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        judge, candidate, verdict, output = stack.enter_context(_pair(task, limits, isolate))
        for started in (judge, candidate):
            if failure := started.failure():
                raise UnsupportedError(f"the sandbox does not start: {failure}")
        answer, printed, late = _collect(verdict, output, began + limits.wall_seconds, limits.output_kib << 10)
        found, reason = _found(answer, token)
        if exceeded := _exceeded(found, len(printed), candidate, limits, late=late):
            found, reason = exceeded
    text = printed[: 4 * SHOWN].decode(errors="replace")[:SHOWN]
    return Result(found, reason, text, time.monotonic() - began, isolate)


def _exceeded(
    found: Verdict, printed: int, candidate: Started, limits: Limits, *, late: bool
) -> tuple[Verdict, str] | None:
    """The verdict and reason if a limit ended the tests, None otherwise."""
    if printed > limits.output_kib << 10 and found != "passed":
        return "output", f"more than {limits.output_kib} KiB printed"
    if late:
        return "timeout", f"not done after {limits.wall_seconds:g} s"
    if found == "crashed" and _wait(candidate) in (128 + signal.SIGXCPU, 128 + signal.SIGKILL):
        return "timeout", f"killed after {limits.cpu_seconds} s of CPU"
    return None


def _found(answer: bytes, token: str) -> tuple[Verdict, str]:
    """The judge's verdict and reason, which only the judge can send: it alone has the pipe and the token."""
    try:
        report = json.loads(answer)
    except ValueError:
        return "crashed", "the tests did not end"
    if report["token"] != token:
        return "crashed", "the tests did not end"
    reason = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(report["reason"]))
    return next(each for each in VERDICTS if each == report["verdict"]), reason


@contextlib.contextmanager
def _pair(
    task: Mapping[str, object], limits: Limits, isolate: Sequence[str]
) -> Iterator[tuple[Started, Started, int, int]]:
    """Start judge and candidate; yields them and the pipes of verdict and output, and kills both at the end."""
    with contextlib.ExitStack() as stack:
        ends = [os.fdopen(end, "rb" if place % 2 == 0 else "wb", 0) for place, end in enumerate(_pipes(4))]
        for end in ends:
            stack.callback(end.close)
        request_read, request_write, answer_read, answer_write, verdict, verdict_write, output, output_write = (
            end.fileno() for end in ends
        )
        folders = [stack.enter_context(working_folder(isolate)) for _ in range(2)]
        task_file = stack.enter_context(os.fdopen(os.memfd_create("task"), "w+b"))
        task_file.write(json.dumps(task).encode())
        task_file.seek(0)
        judge_words = (*script("judge"), str(answer_read), str(request_write), str(verdict_write))
        judge = start(
            judge_words,
            folders[0],
            limits,
            isolate,
            stdin=task_file.fileno(),
            pass_fds=(answer_read, request_write, verdict_write),
        )
        stack.callback(judge.end)
        candidate_words = (*script("candidate"), str(request_read), str(answer_write))
        candidate = start(
            candidate_words, folders[1], limits, isolate, stdout=output_write, pass_fds=(request_read, answer_write)
        )
        stack.callback(candidate.end)
        for end in ends:
            if end.fileno() not in (verdict, output):
                end.close()
        yield judge, candidate, verdict, output


def _collect(verdict: int, output: int, until: float, most: int) -> tuple[bytes, bytes, bool]:
    """Read both pipes until the verdict is complete, too much is printed, or (returns True) the time is over."""
    answer, printed = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(verdict, selectors.EVENT_READ, answer)
        selector.register(output, selectors.EVENT_READ, printed)
        while verdict in selector.get_map() and len(printed) <= most and len(answer) <= VERDICT_BYTES:
            left = until - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                return bytes(answer), bytes(printed), True
            for key, _ in ready:
                got = os.read(key.fd, 1 << 16)
                key.data.extend(got)
                if not got:
                    selector.unregister(key.fd)
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        while len(printed) <= most and (got := os.read(output, 1 << 16)):
            printed.extend(got)
    return bytes(answer), bytes(printed), False


def _wait(started: Started) -> int | None:
    """How the candidate ended: it did already, so this is short."""
    try:
        return started.process.wait(2.0)
    except subprocess.TimeoutExpired:
        return None


def _pipes(count: int) -> list[int]:
    return [end for _ in range(count) for end in os.pipe()]
