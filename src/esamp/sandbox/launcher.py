# ruff: noqa: PTH102, PTH103, PTH112, PTH114, PTH115, PTH120, PTH123, PTH211
"""Becomes an isolated process: run as a script, with the standard library only, never imported by the package.

It does not import `pathlib`, which is slow to import.

There are three processes: this one, which waits; process 1 of the new process namespace, which runs this script too,
so that the code cannot escape from the namespace that is killed; and below it, without privileges, the interpreter that
runs the code. The first two kill everything below them when the time is over, on request, or when their parent dies.
No secret is accessible here: the environment is cleared, and all descriptors but the passed ones are closed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
RDONLY, NOSUID, NODEV, RECURSIVE, DETACH = 1, 2, 4, 0x8000, 2
MOUNT_SETATTR = 442
"""Number of this system call, the same on every architecture since Linux 5.12."""
PDEATHSIG, SECCOMP, NO_NEW_PRIVS = 1, 22, 38
FILTER = 2
"""SECCOMP_MODE_FILTER."""
KEYCTL = {"x86_64": 250, "aarch64": 219}
JOIN_SESSION_KEYRING = 1
WATCHED = {signal.SIGCHLD, signal.SIGTERM}
TIMED_OUT = 124
INSIDE = 1000
"""The user inside a user namespace."""
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/nix/store", "/etc/ld.so.cache", "/etc/localtime")
HIDDEN = ("/new/proc/keys", "/new/proc/key-users")
"""They list the names of a user's keys."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """Argument of ``mount_setattr``."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


class FilterProgram(ctypes.Structure):
    """Argument of ``prctl(PR_SET_SECCOMP)``: the number of instructions and where they are."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount as the system call does."""
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    checked(f"mount {target}", libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))


def protect(path: str, attributes: int, flags: int = RECURSIVE) -> None:
    """Give attributes to a mount: the mount at `path`, and with RECURSIVE all below it, gets these attributes."""
    wanted = MountAttributes(attributes, 0, 0, 0)
    made = libc.syscall(MOUNT_SETATTR, -100, path.encode(), flags, ctypes.byref(wanted), ctypes.sizeof(wanted))
    checked(f"mount_setattr {path}", made)


def bind(path: str, attributes: int) -> None:
    """Show `path` of this machine, whose root is at ``/old``, at the same place below ``/new``."""
    source, target = f"/old{path}", f"/new{path}"
    if os.path.islink(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, MS_BIND | MS_REC)
    protect(target, attributes)


def new_root(spec: dict[str, Any]) -> None:
    """Make a new root: the system and the interpreter read-only, a temporary folder in memory, nothing else.

    All of it is in mounts of this process, so it is invisible outside and ends with the process. The mounts need an
    existing folder, which they cover only until the machine's root has moved to ``/old``.
    """
    base = spec["folder"]
    os.umask(0o022)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for name in ("old", "new"):
        os.mkdir(f"{base}/{name}")
    checked("pivot_root", libc.pivot_root(base.encode(), f"{base}/old".encode()))
    os.chdir("/")
    mount("tmpfs", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    inside = [path for path in SYSTEM if os.path.lexists(f"/old{path}")]
    if not any(spec["prefix"] == path or spec["prefix"].startswith(f"{path}/") for path in inside):
        inside.append(spec["prefix"])
    for path in inside:
        bind(path, RDONLY | NOSUID | NODEV)
    for path in DEVICES:
        bind(path, NOSUID)
    os.mkdir("/new/tmp")
    mount("tmpfs", "/new/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={spec['file']},nr_inodes=1k,mode=1777")
    if "processes" in spec["isolate"]:
        os.mkdir("/new/proc")
        mount("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV)
        protect("/new/proc", RDONLY)
        for path in filter(os.path.exists, HIDDEN):
            mount("/old/dev/null", path, None, MS_BIND)
    os.chdir("/new")
    checked("pivot_root", libc.pivot_root(b".", b"."))
    checked("umount2", libc.umount2(b".", DETACH))
    os.chdir("/tmp")
    protect("/", RDONLY, 0)


def separate(spec: dict[str, Any]) -> None:
    """Enter the new namespaces."""
    isolate, user, group = spec["isolate"], os.geteuid(), os.getegid()
    flags = NEWIPC | NEWUTS if isolate else 0
    flags |= NEWUSER if spec["namespace_user"] else 0
    flags |= NEWNET if "network" in isolate else 0
    flags |= NEWPID if "processes" in isolate else 0
    flags |= NEWNS if "files" in isolate else 0
    if flags:
        checked("unshare", libc.unshare(flags))
    if spec["namespace_user"]:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{INSIDE} {user} 1"),
            ("gid_map", f"{INSIDE} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def restrict(spec: dict[str, Any]) -> None:
    """Limits first, then the privileges go, then the system calls that the code has no use for."""
    for name, soft, hard in spec["limits"]:
        resource.setrlimit(name, (soft, hard))
    if spec["uid"] is not None:
        os.setgroups([])
        os.setresgid(spec["uid"], spec["uid"], spec["uid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    checked("prctl", libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    join_own_keyring(spec["machine"])
    if spec["filter"]:
        instructions = bytes.fromhex(spec["filter"])
        program = FilterProgram(len(instructions) // 8, instructions)
        if libc.prctl(SECCOMP, FILTER, ctypes.byref(program), 0, 0) != 0 and ctypes.get_errno() != errno.EINVAL:
            raise OSError(ctypes.get_errno(), "the filter of system calls is refused")  # EINVAL: a kernel without them


def join_own_keyring(machine: str) -> None:
    """Leave the session keyring of the parent process.

    Kernels without keys refuse this, and so do containers, which then refuse all use of keys; neither is an error.
    """
    if machine in KEYCTL:
        libc.syscall(KEYCTL[machine], JOIN_SESSION_KEYRING, None, 0, 0, 0)


def die_with(gone: Callable[[], bool]) -> None:
    """End when the parent dies. `gone` returns whether it died before the kernel began to watch it."""
    checked("prctl", libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if gone():
        os._exit(1)


def hung_up(pipe: int) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def watch(child: int, until: float, null: int, kept: int) -> None:
    """End as the child ends; end it when the time is over or SIGTERM arrives. That of process 1 ends all below it.

    Nothing is held open meanwhile but `null` and the pipe `kept`.
    """
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, kept)
    os.closerange(max(3, kept + 1), 4096)
    while True:
        signalled = signal.sigtimedwait(WATCHED, max(0.0, until - time.monotonic()))
        if signalled is None or signalled.si_signo == signal.SIGTERM:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os._exit(TIMED_OUT)
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)) is not None:
            if found.si_pid == child:
                os._exit(found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status)


def main() -> None:
    """Isolate as the specification says, then become the interpreter that runs the code."""
    spec = json.loads(sys.argv[1])
    status, until = spec["status"], time.monotonic() + spec["seconds"]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    null = os.open(os.devnull, os.O_RDWR)  # while it can be found: process 1 moves the root of both
    try:
        die_with(lambda: os.getppid() != spec["parent"])
        separate(spec)
        die_with(lambda: os.getppid() != spec["parent"])  # a new user namespace has cleared it
        alive, held = os.pipe()  # held by this process alone, as long as it lives
        if (first := os.fork()) != 0:
            watch(first, until, null, held)
        os.close(held)
        die_with(lambda: hung_up(alive))
        if "files" in spec["isolate"]:
            new_root(spec)
        else:
            os.chdir(spec["folder"])
        above = os.getpid()
        if (second := os.fork()) != 0:
            watch(second, until, null, alive)
        restrict(spec)
        die_with(lambda: os.getppid() != above)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.set_inheritable(status, False)
        os.execve(spec["command"][0], spec["command"], spec["environment"])
    except (OSError, ValueError, AttributeError) as error:
        os.write(status, str(error).encode()[:500])
        os._exit(1)


if __name__ == "__main__":
    main()
