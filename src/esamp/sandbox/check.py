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
from esamp.sandbox.isolation import settle
from esamp.sandbox.limits import Limits
from esamp.sandbox.start import Started, script, start, working_folder

Verdict = Literal["passed", "failed", "timeout", "memory", "crashed", "output"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "timeout", "memory", "crashed")
"""Those that the judge finds; the output, and the time of the whole, are watched here."""
SHOWN = 4_000
"""Characters of the output that are kept."""
VERDICT_BYTES = 1 << 16


@dataclass(frozen=True)
class Result:
    """The verdict, why, what the code printed (its first characters) and which isolations held."""

    verdict: Verdict
    reason: str
    output: str
    seconds: float
    isolated: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all tests ran to their end and held."""
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
    """Run `tests` against `code`, each in an isolated interpreter of its own.

    With `program` the code is not loaded. The tests call ``run(text)`` for that: it runs the code as a program, in a
    process of its own with the text as its standard input, and gives its exit code (0 after any `sys.exit`), what it
    printed and the last line that it wrote to the standard error.

    Args:
        code: untrusted.
        tests: trusted statements; names that neither they nor `setup` define are taken from the code.
        setup: trusted statements that run before the tests, beside them.
        names: taken from the code even where `setup` defines them.
        prelude: trusted statements that the code finds done.
        cases: plain data that `setup` and the tests find under this name, and the code does not.
        program: whether the code is a program.
        limits: None: the usual ones.
        missing: whether to run where this machine cannot isolate everything (see `available`).

    Raises:
        UnsupportedError: this machine cannot isolate the code.
    """
    limits = limits or Limits()
    isolate = settle(missing)
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
    """The limit that ended the tests, in place of the judge's verdict; None if there was none."""
    if printed > limits.output_kib << 10 and found != "passed":
        return "output", f"more than {limits.output_kib} KiB printed"
    if late:
        return "timeout", f"not done after {limits.wall_seconds:g} s"
    if found == "crashed" and _wait(candidate) in (128 + signal.SIGXCPU, 128 + signal.SIGKILL):
        return "timeout", f"killed after {limits.cpu_seconds} s of CPU"
    return None


def _found(answer: bytes, token: str) -> tuple[Verdict, str]:
    """The judge's verdict. Only the judge holds the pipe and knows the token. The reason may quote the code."""
    try:
        said = json.loads(answer)
    except ValueError:
        return "crashed", "the tests did not end"
    if said["token"] != token:
        return "crashed", "the tests did not end"
    reason = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(said["reason"]))
    return next(each for each in VERDICTS if each == said["verdict"]), reason


@contextlib.contextmanager
def _pair(
    task: Mapping[str, object], limits: Limits, isolate: Sequence[str]
) -> Iterator[tuple[Started, Started, int, int]]:
    """Judge and candidate, the pipe of the verdict and that of the output; all killed in the end."""
    with contextlib.ExitStack() as stack:
        ends = [os.fdopen(end, "rb" if place % 2 == 0 else "wb", 0) for place, end in enumerate(_pipes(4))]
        for end in ends:
            stack.callback(end.close)
        asked, asks, told, tells, verdict, says, output, prints = (end.fileno() for end in ends)
        folders = [stack.enter_context(working_folder(isolate)) for _ in range(2)]
        given = stack.enter_context(os.fdopen(os.memfd_create("task"), "w+b"))
        given.write(json.dumps(task).encode())
        given.seek(0)
        words = (*script("judge"), str(told), str(asks), str(says))
        judge = start(words, folders[0], limits, isolate, stdin=given.fileno(), pass_fds=(told, asks, says))
        stack.callback(judge.end)
        coded = (*script("candidate"), str(asked), str(tells))
        candidate = start(coded, folders[1], limits, isolate, stdout=prints, pass_fds=(asked, tells))
        stack.callback(candidate.end)
        for end in ends:
            if end.fileno() not in (verdict, output):
                end.close()
        yield judge, candidate, verdict, output


def _collect(verdict: int, output: int, until: float, most: int) -> tuple[bytes, bytes, bool]:
    """Read both pipes until the verdict is complete, too much is printed or the time is over (then True)."""
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
