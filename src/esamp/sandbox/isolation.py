"""Says what this machine can isolate: tried out from within, once a process."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from esamp.errors import UnsupportedError
from esamp.sandbox.limits import Limits
from esamp.sandbox.start import script, start, working_folder
from esamp.sandbox.system_calls import REFUSED, machine_index

ESSENTIAL = ("user", "files", "network", "processes")
"""Code is run only if all of these hold, unless the caller allows less."""
MEANING = {
    "user": "no privileges, and none to gain",
    "files": "sees the system read-only, a temporary folder of its own in memory and nothing else",
    "network": "no network",
    "processes": "reaches no other process, and all of its own are killed",
}
FURTHER = {
    "keys": "reads and leaves no keys in your session keyring",
    "sockets": "no sockets but AF_UNIX: none of AF_VSOCK, which leads to the host of a virtual machine",
    "namespaces": "no user namespace of its own, in which more of the kernel could be attacked",
    "memory": "no memory that its limits do not count: no shared memory of System V, memfd or tmpfs of its own",
}
"""Isolations that need the kernel's filter of system calls. Code is run without them too."""
WITHOUT = {
    "keys": "missing: code can read the keys in your session keyring, and leave some there",
    "sockets": "missing: code can open sockets of other kinds; in a virtual machine, AF_VSOCK reaches its host",
    "namespaces": "missing: code can make a user namespace of its own, and attack more of the kernel from there",
    "memory": "missing: shared memory (System V), memfds and a tmpfs of its own count in no limit",
}
"""Consequences if one of `FURTHER` is missing."""


@dataclass(frozen=True)
class Isolation:
    """The isolation of this machine. Limits and an empty environment always hold."""

    user: bool
    files: bool
    network: bool
    processes: bool
    reason: str = ""
    """why something is missing"""
    further: tuple[str, ...] = ()
    """which of `FURTHER` hold"""

    @property
    def provided(self) -> tuple[str, ...]:
        """The names in `ESSENTIAL` that hold."""
        flags = (self.user, self.files, self.network, self.processes)
        return tuple(name for name, there in zip(ESSENTIAL, flags, strict=True) if there)

    @property
    def missing(self) -> tuple[str, ...]:
        """The names in `ESSENTIAL` that do not hold."""
        return tuple(name for name in ESSENTIAL if name not in self.provided)


@lru_cache(maxsize=1)
def available() -> Isolation:
    """Test which isolation hold on this machine: all together, and if that fails one by one."""
    if not sys.platform.startswith("linux"):
        return Isolation(
            user=False, files=False, network=False, processes=False, reason=f"{sys.platform} has no namespaces"
        )
    held, reason = _attempt(ESSENTIAL)
    if not reason:
        return Isolation(user=True, files=True, network=True, processes=True, further=_further(held))
    alone = {name: name in _attempt(tuple(dict.fromkeys(("user", name))))[0] for name in ESSENTIAL}
    together = tuple(name for name in ESSENTIAL if alone[name])
    return Isolation(**alone, reason=reason, further=_further(_attempt(together)[0]))


def _further(held: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in FURTHER if name in held)


def _attempt(isolate: Sequence[str]) -> tuple[list[str], str]:
    """Start a probe in isolation. Returns the isolation that the probe found to hold, and the reason if one failed."""
    reads, writes = os.pipe()
    with os.fdopen(reads) as printed, working_folder(isolate) as folder, tempfile.NamedTemporaryFile() as outside:
        words = (*script("probe"), outside.name, str(_session_keyring()))
        started = start(words, folder, Limits(), isolate, stdout=writes)
        os.close(writes)
        failure, report = started.failure(), printed.read()
        code = started.process.wait()
    if failure or code:
        return [], failure or f"the interpreter ended with {code}: {report.strip()[-200:]}"
    held = json.loads(report)
    ineffective = [name for name in isolate if name not in held]
    return held, f"tried out, these do not hold: {', '.join(ineffective)}" if ineffective else ""


def _session_keyring() -> int:
    """The number of this process's session keyring, -1 if there is none."""
    index = machine_index(platform.machine())
    return -1 if index is None else int(ctypes.CDLL(None).syscall(REFUSED["keyctl"][index], 0, -3, 0))


def choose_isolation(missing: str) -> tuple[str, ...]:
    """The isolation to use on this machine.

    Args:
        missing: ``refuse`` or ``allow`` a run with an essential isolation missing.

    Raises:
        UnsupportedError: an essential isolation is missing and `missing` is ``refuse``, or the platform is unsupported.
    """
    isolation = available()
    if isolation.missing and missing != "allow":
        words = "; ".join(f"{name} ({MEANING[name]})" for name in isolation.missing)
        raise UnsupportedError(
            f"this machine cannot isolate untrusted code, missing: {words}. Reason: {isolation.reason}. Run it where "
            "user namespaces are allowed or as root of a throw-away machine"
        )
    return isolation.provided
