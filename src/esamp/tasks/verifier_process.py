"""`VerifierProcess`: calls of one function in a process that can be killed, each within a limit of processor time."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from esamp.errors import MissingDependencyError, UnsupportedError
from esamp.extras import install_command

SECONDS = 10.0
"""Processor time of one call by default."""
STALLED = 30.0
"""Seconds without any processor time after which a process counts as stalled and is replaced."""
ATTEMPTS = 3
LARGEST_REPLY = 1 << 20
"""Bytes."""
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module; "
    "from esamp.tasks.verifier_process import serve; serve(import_module(sys.argv[2]).start, int(sys.argv[3]))"
)


class _StalledError(Exception):
    """The process got no processor time."""


class VerifierProcess:
    """Calls a function in another process, one call at a time.

    Verifiers hand untrusted answers to libraries that may run for very long or use much memory on them. The module
    that the process runs has a function ``start(settings)``, which prepares the process and returns the function to
    call; replies must be JSON. The process starts with the first call. It is a new interpreter that never imports the
    caller's main module, so a script needs no main guard. Its own timer kills it when one call has used up its
    processor time; time spent waiting for a processor or suspended does not count. The next call starts a new one.
    """

    def __init__(self, module: str, settings: object, *, package: str, seconds: float = SECONDS) -> None:
        """Store the settings; no process is started yet.

        Args:
            module: the module with the function `start`.
            settings: its argument.
            package: the package that the module needs, for the error if it is not installed.
            seconds: processor time of one call.
        """
        self.seconds = seconds
        self._module, self._settings, self._package = module, settings, package
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def call(self, argument: object) -> Any:
        """The function's reply; None if the call used up its processor time or ended the process.

        Raises:
            MissingDependencyError: the package is not installed.
            UnsupportedError: the process was stopped or killed from outside in every attempt.
        """
        with self._lock:
            for _ in range(ATTEMPTS):
                try:
                    pipe = self._started()
                    pipe.send((argument, max(self.seconds, 0.001)))
                    return json.loads(self._received(pipe))
                except _StalledError:
                    self.close()
                except (EOFError, OSError):
                    killed = self._process is not None and self._process.wait() == -signal.SIGKILL
                    self.close()
                    if not killed:  # SIGKILL comes from outside: then the call is not the cause, and is repeated
                        return None
        raise UnsupportedError(
            "the process that verifies answers was stopped or killed from outside, several times: this answer has no "
            "verdict; grade it again when the machine has processor time and memory to spare"
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is None:
            self._pipe, other = multiprocessing.Pipe()
            paths = json.dumps(sys.path)
            command = [sys.executable, "-I", "-c", _START, paths, self._module, str(other.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()])
            other.close()
            self._pipe.send(self._settings)
            if json.loads(self._received(self._pipe)) != "ready":
                self.close()
                raise MissingDependencyError(
                    f"the package {self._package!r} grades this task: {install_command('tasks')}"
                )
        return self._pipe

    def _received(self, pipe: Connection) -> bytes:
        """The next message. Waits without limit as long as the process gets processor time."""
        assert self._process is not None
        used, since = _processor_time(self._process.pid), time.monotonic()
        while not pipe.poll(1.0):
            now = _processor_time(self._process.pid)
            if now != used:
                used, since = now, time.monotonic()
            elif time.monotonic() - since > STALLED:
                raise _StalledError
        return pipe.recv_bytes(LARGEST_REPLY)


def serve(start: Callable[[Any], Callable[[Any], Any]], descriptor: int) -> None:
    """Run in the process: answer the calls that arrive on the pipe with this file descriptor."""
    with Connection(descriptor) as pipe:
        try:
            function = start(pipe.recv())
        except ModuleNotFoundError:
            pipe.send_bytes(b'"missing"')
            return
        pipe.send_bytes(b'"ready"')
        while True:
            try:
                argument, seconds = pipe.recv()
            except EOFError:
                return
            signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal terminates the process
            reply = json.dumps(function(argument)).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(reply)


def _processor_time(pid: int) -> int:
    """Clock ticks of processor time that a process has used, as Linux counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def limit_memory(size: int) -> None:
    """Limit the address space of this process, in bytes."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def silence() -> None:
    """Discard everything that this process prints."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def encodable(text: str) -> str:
    """The text with question marks for half surrogate pairs, which no pipe takes."""
    return text.encode(errors="replace").decode()
