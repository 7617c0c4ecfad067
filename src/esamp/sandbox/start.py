"""Starts isolated interpreters and ends them."""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import platform
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from esamp.sandbox.limits import Limits
from esamp.sandbox.system_calls import filter_program

HERE = Path(__file__).parent
FLAGS = ("-P", "-s", "-S", "-B", "-u")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "PYTHONHASHSEED": "0"}
"""The whole environment of the code. The fixed hash seed makes verdicts reproducible."""
USERS = 0x60000000
"""User ids from here on are used by no machine."""
GRACE = 2.0
"""Seconds after the wall-clock limit at which the sandbox ends by itself, and that it has for ending on request."""
WIRE = "esamp.sandbox.wire"
BOOTSTRAP = (
    "import marshal, sys, types\n"
    "wire, script = marshal.loads(bytes.fromhex(sys.argv.pop(1)))\n"
    f"module = sys.modules[{WIRE!r}] = types.ModuleType({WIRE!r})\n"
    "exec(wire, module.__dict__)\n"
    "exec(script)\n"
)
"""Runs a script of this folder in a process that cannot see the folder, with `wire` as an importable module."""


@dataclass(frozen=True)
class Started:
    """An isolated interpreter. `status` is empty and closed once it runs; else it says what went wrong."""

    process: subprocess.Popen[bytes]
    status: int
    contained: bool
    """whether the end of its first process ends all of its processes"""

    def failure(self) -> str:
        """Wait until it runs: what went wrong, or nothing."""
        with os.fdopen(self.status, "rb") as file:
            return file.read().decode(errors="replace")

    def end(self) -> None:
        """End all of its processes, if they have not, and leave none of them to be waited for."""
        if self.contained:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
                return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@lru_cache(maxsize=4)
def script(name: str) -> tuple[str, ...]:
    """The interpreter's arguments that run a script of this folder; those of the script follow."""
    codes = [compile((HERE / f"{each}.py").read_text(), f"<{each}>", "exec") for each in ("wire", name)]
    return "-c", BOOTSTRAP, marshal.dumps(tuple(codes)).hex()


@contextlib.contextmanager
def working_folder(isolate: Sequence[str]) -> Iterator[str]:
    """Where to run: a folder that is only covered where the files are isolated, else a new one that is removed."""
    if "files" in isolate:
        yield tempfile.gettempdir()
        return
    with tempfile.TemporaryDirectory(prefix="esamp-") as folder:
        if os.geteuid() == 0:  # the code is another user
            Path(folder).chmod(0o777)
        yield folder


def start(
    arguments: Sequence[str],
    folder: str,
    limits: Limits,
    isolate: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    root: bool | None = None,
) -> Started:
    """Start an interpreter in a new session with the given isolations.

    Args:
        arguments: arguments of the interpreter.
        folder: see `working_folder`.
        limits: limits of each process and of the sandbox.
        isolate: names of `ESSENTIAL`.
        stdin: its standard input.
        stdout: its standard output and errors.
        pass_fds: open descriptors that it gets; all others are closed.
        root: whether to use the rights of root and no user namespace; None: if this process has them.
    """
    reads, writes = os.pipe()
    python = os.path.realpath(sys.executable)
    root = os.geteuid() == 0 if root is None else root
    inside = bool(isolate) and not root
    machine = platform.machine() if sys.maxsize > 1 << 32 else ""  # an interpreter of 32 bits calls in another way
    refused = filter_program(machine)
    spec = {
        "parent": os.getpid(),
        "seconds": limits.wall_seconds + GRACE,
        "folder": folder,
        "prefix": os.path.realpath(sys.base_prefix),
        "isolate": list(isolate),
        "namespace_user": inside,
        "uid": USERS + secrets.randbelow(1 << 28) if root and "user" in isolate else None,
        "file": limits.file_mib << 20,
        "limits": _rlimits(limits, inside),
        "machine": machine,
        "filter": refused.hex() if refused else "",
        "status": writes,
        "command": [python, *FLAGS, *arguments],
        "environment": ENVIRONMENT,
    }
    try:
        process = subprocess.Popen(
            [python, "-I", "-S", "-B", str(HERE / "launcher.py"), json.dumps(spec)],
            stdin=stdin,
            stdout=stdout,
            stderr=stdout,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            pass_fds=(*pass_fds, writes),
        )
    finally:
        os.close(writes)
    return Started(process, reads, "processes" in isolate)


def _rlimits(limits: Limits, inside: bool) -> list[tuple[int, int, int]]:
    """(resource, soft, hard). A user namespace counts our two waiting processes as well."""
    memory, file = limits.memory_mib << 20, limits.file_mib << 20
    wanted = [
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file, file),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_NPROC, limits.processes + 2 * inside, limits.processes + 2 * inside),
    ]
    most = [(name, hard, resource.getrlimit(name)[1]) for name, _, hard in wanted]
    allowed = {name: hard if top == resource.RLIM_INFINITY else min(hard, top) for name, hard, top in most}
    return [(name, min(soft, allowed[name]), allowed[name]) for name, soft, _ in wanted]
