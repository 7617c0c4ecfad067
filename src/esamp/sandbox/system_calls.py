"""The filter of system calls: a program for the kernel's seccomp that refuses what model-written code has no use for.

Built here, not by libseccomp, since that library is not installed everywhere and this filter is a list. It refuses; it
does not kill: a refused call fails with an error, as on a kernel that lacks it.
"""

from __future__ import annotations

import errno
import struct

# fmt: off
REFUSED = {
    # memory that no limit of a process counts
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197), "semget": (64, 190),
    "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # keys
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    # wide and seldom needed parts of the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "syslog": (103, 116), "acct": (163, 89), "reboot": (169, 142),
}
# fmt: on
"""Refused altogether: their numbers on x86_64 and on aarch64."""
MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""As the kernel numbers them for filters."""
SOCKET = {"x86_64": (41, 53), "aarch64": (198, 199)}
"""``socket`` and ``socketpair``: only of the family AF_UNIX."""
CLONE = {"x86_64": 56, "aarch64": 220}
"""``clone``: not with a new namespace."""
CLONE3 = 435
"""Its flags are in memory, where no filter can look: it does not exist here, and the C library uses ``clone``."""
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET."""
AF_UNIX = 1
X32 = 0x40000000
"""From here on are the x86_64 numbers of 32 bits' pointers."""

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
"""Where the kernel's `struct seccomp_data` has them; of the argument, its lower half."""
ALLOW, FAIL = 0x7FFF0000, 0x00050000


def filter_program(machine: str) -> bytes | None:
    """The instructions of the filter, 8 bytes each; None for an architecture whose numbers are not listed here."""
    index = machine_index(machine)
    if index is None:
        return None
    lines = [
        _instruction(LOAD, ARCHITECTURE),
        _instruction(EQUAL, ARCHITECTURES[machine], 1, 0),
        _refuse(errno.EPERM),
        _instruction(LOAD, NUMBER),
    ]
    if machine == "x86_64":
        lines += [_instruction(AT_LEAST, X32, 0, 1), _refuse(errno.ENOSYS)]
    lines += [_instruction(EQUAL, CLONE3, 0, 1), _refuse(errno.ENOSYS)]
    for numbers in REFUSED.values():
        number = numbers[index]
        lines += [_instruction(EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    for number in SOCKET[machine]:
        lines += [
            _instruction(EQUAL, number, 0, 4),
            _instruction(LOAD, FIRST_ARGUMENT),
            _instruction(EQUAL, AF_UNIX, 1, 0),
            _refuse(errno.EPERM),
            _instruction(RETURN, ALLOW),
        ]
    lines += [
        _instruction(EQUAL, CLONE[machine], 0, 3),
        _instruction(LOAD, FIRST_ARGUMENT),
        _instruction(ANY_BIT, NEW_NAMESPACES, 0, 1),
        _refuse(errno.EPERM),
        _instruction(RETURN, ALLOW),
    ]
    return b"".join(lines)


def machine_index(machine: str) -> int | None:
    """The place of an architecture's numbers in `REFUSED`, None if they are not listed."""
    return MACHINES.index(machine) if machine in MACHINES else None


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; the last two say how many instructions to skip."""
    return struct.pack("<HBBI", code, if_true, if_false, operand)


def _refuse(number: int) -> bytes:
    return _instruction(RETURN, FAIL | number)
