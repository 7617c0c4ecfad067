"""`Worker`: calls of one function in a process of its own, which can be killed, under a limit of processor time."""

import json
import multiprocessing
import os
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

STALLED = 30.0
"""Seconds without any processor time after which a process counts as stalled, and is replaced."""
TRIES = 3
LARGEST = 1 << 20
"""Bytes of a reply."""
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module; "
    "from esamp.tasks.worker import serve; serve(import_module(sys.argv[2]).start, int(sys.argv[3]))"
)


class _StalledError(Exception):
    """The process got no processor time."""


class Worker:
    """A process that answers one request at a time.

    The module that it runs has a function ``start(settings)``, which prepares the process and returns the function
    that is called with each request; its replies must be JSON. The process is a new interpreter that never imports the
    caller's main module, so that a script needs no main guard. It is killed by its own timer when one request has used
    its processor time: how long it waits for a processor, or is suspended, does not count.
    """

    def __init__(self, module: str, settings: object, seconds: float, missing: str) -> None:
        """Start nothing yet.

        Args:
            module: what the process runs.
            settings: what its ``start`` is given.
            seconds: processor time of one request.
            missing: the error's sentence where a package is not installed.
        """
        self.seconds = seconds
        self._module, self._settings, self._missing = module, settings, missing
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def ask(self, request: object) -> Any:
        """The reply to a request; None if the process used up its time, or died of the request.

        Raises:
            MissingDependencyError: a package is not installed.
            UnsupportedError: the process gets no processor time, in several tries.
        """
        with self._lock:
            for _ in range(TRIES):
                try:
                    pipe = self._started()
                    pipe.send((request, max(self.seconds, 0.001)))
                    return json.loads(self._received(pipe))
                except _StalledError:
                    self.close()
                except (EOFError, OSError):
                    killed = self._process is not None and self._process.wait() == -signal.SIGKILL
                    self.close()
                    if not killed:  # by somebody else: the request is not to blame
                        return None
        raise UnsupportedError(
            "the process that verifies answers was stopped or killed from outside, several times: this answer has no "
            "verdict; grade it again when the machine has processor time and memory to spare"
        )

    def close(self) -> None:
        """End the process."""
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
                raise MissingDependencyError(self._missing)
        return self._pipe

    def _received(self, pipe: Connection) -> bytes:
        """The next message, however long it takes, as long as the process is given processor time."""
        assert self._process is not None
        used, since = _processor_time(self._process.pid), time.monotonic()
        while not pipe.poll(1.0):
            now = _processor_time(self._process.pid)
            if now != used:
                used, since = now, time.monotonic()
            elif time.monotonic() - since > STALLED:
                raise _StalledError
        return pipe.recv_bytes(LARGEST)


def serve(start: Callable[[Any], Callable[[Any], Any]], descriptor: int) -> None:
    """The other end of the pipe."""
    with Connection(descriptor) as pipe:
        try:
            answer = start(pipe.recv())
        except ModuleNotFoundError:
            pipe.send_bytes(b'"missing"')
            return
        pipe.send_bytes(b'"ready"')
        while True:
            try:
                request, seconds = pipe.recv()
            except EOFError:
                return
            signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
            reply = json.dumps(answer(request)).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(reply)


def _processor_time(pid: int) -> int:
    """Clock ticks of processor time that a process has used, as Linux counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def quiet() -> None:
    """Send whatever a library prints nowhere."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
