"""Tries from within the sandbox what it should prevent, and prints as JSON what holds.

Run as a script in the sandbox, with the standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import socket
import sys
from collections.abc import Callable
from typing import Any

CALLS = {"x86_64": {"keyctl": 250, "memfd_create": 319, "shmget": 29}}
CALLS["aarch64"] = {"keyctl": 219, "memfd_create": 279, "shmget": 194}
NEWUSER, NEWNS = 0x10000000, 0x20000
AF_VSOCK = 40
GET_KEYRING_ID, SESSION_KEYRING = 0, -3
GET_NO_NEW_PRIVS = 39
libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """What a system call returns; -1 if it is refused, or if its number is not known here."""
    number = CALLS.get(platform.machine(), {}).get(name)
    return -1 if number is None else int(libc.syscall(number, *arguments))


def refused(act: Callable[..., Any], *arguments: Any) -> bool:
    """Whether something fails."""
    try:
        act(*arguments)
    except OSError:
        return True
    return False


def no_privileges() -> bool:
    """Whether this is not root, cannot become it, and gains nothing by running a program."""
    return os.getuid() != 0 and refused(os.setuid, 0) and libc.prctl(GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1


def no_namespaces() -> bool:
    """Whether a child process cannot create new namespaces, in which it would have all rights."""
    child = os.fork()
    if child == 0:
        os._exit(1 if libc.unshare(NEWUSER | NEWNS) == 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def find_route() -> None:
    """Look for a way to this machine itself, which every network has. Nothing is sent."""
    with socket.socket(type=socket.SOCK_DGRAM) as outside:
        outside.connect(("127.0.0.1", 9))


def no_keys(keyring: int) -> bool:
    """Whether the session keyring cannot be used, or is another one than the caller's."""
    own = call("keyctl", GET_KEYRING_ID, SESSION_KEYRING, 0)
    return own < 0 or own != keyring


def main() -> None:
    """Try all. The arguments: a file that exists outside, and the number of the session keyring there."""
    file, keyring = sys.argv[1], int(sys.argv[2])
    alone = no_namespaces()
    holds = {
        "user": no_privileges(),
        "files": not os.path.exists(file) and refused(os.mkdir, "/esamp"),  # noqa: PTH110
        "network": refused(find_route),
        "processes": os.getppid() == 1,
        "keys": no_keys(keyring),
        "sockets": refused(socket.socket, AF_VSOCK) and refused(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
        "namespaces": alone,
        "memory": alone and call("shmget", 0, 4096, 0o1600) < 0 and call("memfd_create", b"esamp", 0) < 0,
    }
    sys.stdout.write(json.dumps([name for name, there in holds.items() if there]))


if __name__ == "__main__":
    main()
