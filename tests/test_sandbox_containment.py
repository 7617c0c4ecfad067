"""What code in the sandbox can reach and leave behind: claims of docs/sandbox.md, each with an attack on it."""

import errno
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import esamp
from esamp.doctor import diagnose
from esamp.sandbox import ESSENTIAL, FURTHER, Limits, available, check
from esamp.sandbox import isolation as isolation_module
from esamp.sandbox import start as start_module
from esamp.sandbox.start import start
from esamp.sandbox.system_calls import ARCHITECTURES, CLONE, CLONE3, MACHINES, REFUSED, SOCKET, filter_program

FOUND = available()
needs_isolation = pytest.mark.skipif(bool(FOUND.missing), reason=f"this machine cannot isolate: {FOUND.reason}")
ACTIONS = Path("/proc/sys/kernel/seccomp/actions_avail")
FILTERS = ACTIONS.exists() and "errno" in ACTIONS.read_text().split() and platform.machine() in MACHINES
needs_filter = pytest.mark.skipif(not FILTERS, reason="no system call filter in this kernel or for this architecture")
SMALL = Limits(wall_seconds=15, cpu_seconds=5, memory_mib=256)
CTYPES = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def output_of(body: str, limits: Limits = SMALL) -> str:
    """The output of an attack: `body` runs as a function in the sandbox."""
    result = check(f"def f():\n{textwrap.indent(body.strip(), '    ')}\n    return 1", "assert f() == 1", limits=limits)
    assert result.passed, result
    return result.output.strip()


# ---- the filter of system calls


def filter_verdict(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> str:
    """What the filter returns for a system call, by interpreting its BPF instructions."""
    program = filter_program(machine)
    assert program is not None
    code = [struct.unpack_from("<HBBI", program, place) for place in range(0, len(program), 8)]
    data = {0: number, 4: ARCHITECTURES[machine] if architecture is None else architecture, 16: argument & 0xFFFFFFFF}
    place, accumulator = 0, 0
    while True:
        kind, if_true, if_false, operand = code[place]
        place += 1
        if kind == 0x06:
            return "allowed" if operand == 0x7FFF0000 else errno.errorcode[operand & 0xFFFF]
        if kind == 0x20:
            accumulator = data[operand]
        else:
            true = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[kind]
            place += if_true if true else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_refuses_its_list_and_nothing_else(machine: str) -> None:
    numbers = {each[MACHINES.index(machine)] for each in REFUSED.values()}
    assert len(numbers) == len(REFUSED)
    special = {*SOCKET[machine], CLONE[machine], CLONE3}
    for number in range(500):
        expected = "EPERM" if number in numbers else "allowed"
        assert number in special or filter_verdict(machine, number) == expected, number
    for number in SOCKET[machine]:
        assert [filter_verdict(machine, number, family) for family in (1, 2, 10, 16, 38, 40)] == [
            "allowed",
            *["EPERM"] * 5,
        ]
    for flag, expected in ((0x10000000, "EPERM"), (0x20000, "EPERM"), (0x40000000, "EPERM"), (0x3D0F00, "allowed")):
        assert filter_verdict(machine, CLONE[machine], flag) == expected
    assert filter_verdict(machine, CLONE3) == "ENOSYS"
    assert filter_verdict(machine, 0, architecture=0x40000003) == "EPERM"  # 32 bits
    assert filter_program("riscv64") is None
    if machine == "x86_64":
        assert filter_verdict(machine, 0x40000000 | 319) == "ENOSYS"


@needs_isolation
@needs_filter
def test_no_system_call_of_the_list_works() -> None:
    index = MACHINES.index(platform.machine())
    numbers = {name: each[index] for name, each in REFUSED.items()}
    attack = (
        f"{CTYPES}for name, number in {numbers!r}.items():\n"
        "    if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1: print(name)\n"
        f"print(libc.syscall({CLONE[platform.machine()]}, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())\n"
        f"print(libc.syscall({CLONE3}, 0, 0), ctypes.get_errno())"
    )
    assert output_of(attack).split("\n") == ["-1 1", "-1 38"]


@needs_isolation
@needs_filter
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has two further system call interfaces")
def test_32_bit_system_calls_do_not_bypass_the_filter() -> None:
    attack = (
        f"{CTYPES}import mmap\n"
        "print(libc.syscall(0x40000000 | 319, b'x', 0), ctypes.get_errno())\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('53b814000000cd805bc3'))  # getpid by interrupt 0x80\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "if (child := os.fork()) == 0:\n    os._exit(1 if call() > 0 else 0)\n"
        "print(os.waitpid(child, 0)[1] == 256)"
    )
    assert output_of(attack).split("\n") == ["-1 38", "False"]


@needs_isolation
@needs_filter
def test_only_unix_sockets_between_its_own_processes_work() -> None:
    attack = (
        "import socket\n"
        "for family in (2, 10, 16, 17, 38, 40):\n"
        "    for kind in (1, 2, 3):\n"
        "        try:\n            socket.socket(family, kind)\n            print(family, kind)\n"
        "        except OSError as error:\n            assert error.errno == 1\n"
        "a, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'"
    )
    assert output_of(attack) == ""


@needs_isolation
@needs_filter
@pytest.mark.parametrize("way", ["System V", "memfd", "tmpfs", "mapped"])
def test_no_way_to_allocate_memory_exceeds_the_limits(way: str) -> None:
    """Without the filter each way allocates 2 GiB under a limit of 256 MiB."""
    ways = {
        "System V": "one = lambda: libc.shmget(0, 32 << 20, 0o1600)",
        "memfd": "one = lambda: libc.memfd_create(b'x', 0)",
        "tmpfs": "one = lambda: libc.unshare(0x10020000) or libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "mapped": "import mmap\nkept = []\ndef one():\n    kept.append(mmap.mmap(-1, 32 << 20))\n    return 0",
    }
    attack = (
        f"{CTYPES}{ways[way]}\ngot = 0\ntry:\n    while one() >= 0 and got < 100: got += 1\nexcept OSError:\n    pass\n"
        "print(got)"
    )
    assert int(output_of(attack)) < (1 if way != "mapped" else 8)


# ---- keys

KEYS = """
import ctypes, sys
from esamp.sandbox import Limits, check
from esamp.sandbox import start
if sys.argv[4] == "False":
    start.filter_program = lambda machine: None
libc = ctypes.CDLL(None, use_errno=True)
add, request, keyctl = map(int, sys.argv[1:4])
if libc.syscall(keyctl, 1, None) < 0 or (key := libc.syscall(add, b"user", b"esamp", b"secret", 6, -3)) < 0:
    print("keys unavailable")
    raise SystemExit
code = f'''
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
text = ctypes.create_string_buffer(100)
def f():
    found = [libc.syscall({keyctl}, 10, ring, b"user", b"esamp", 0) for ring in (-3, -4, -5)]
    libc.syscall({keyctl}, 11, {key}, text, 100)
    libc.syscall({add}, b"user", b"message", b"hello", 5, -3)
    return max(found) > 0, text.value
'''
print(check(code, "assert f() == (False, b'')", limits=Limits(cpu_seconds=5)).reason)
print(libc.syscall(keyctl, 10, -3, b"user", b"message", 0) > 0)
"""


@needs_isolation
@pytest.mark.skipif(
    platform.machine() not in MACHINES, reason="the system call numbers of this architecture are not known"
)
@pytest.mark.parametrize("filtered", [True, False])
def test_the_session_keyring_cannot_be_read_or_written(filtered: bool) -> None:
    index = MACHINES.index(platform.machine())
    numbers = [str(REFUSED[name][index]) for name in ("add_key", "request_key", "keyctl")]
    output = script(KEYS, *numbers, str(filtered)).stdout.split("\n")
    if output[0] == "keys unavailable":
        pytest.skip("this kernel has no keys, or does not permit their use")
    assert output[:2] == ["all tests pass", "False"]


def script(text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a Python script in a new process."""
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], env=environment(), capture_output=True, text=True, check=True
    )


def environment() -> dict[str, str]:
    source = str(Path(esamp.__path__[0]).parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


# ---- processes and folders left behind

LONG_CHECK = """
from esamp.sandbox import Limits, available, check
available()
print("ready", flush=True)
check("import time\\ntime.sleep(100)", "", limits=Limits(memory_mib={mark}, wall_seconds=100))
"""


def marked(parent: int, mark: int) -> Iterator[int]:
    """The processes of a check: launchers with `parent` as an argument, others with a memory limit of `mark` MiB."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words, limits = (place / "cmdline").read_bytes(), (place / "limits").read_text()
            except OSError:
                continue
            is_launcher = b"launcher.py" in words and f'"parent": {parent},'.encode() in words
            if is_launcher or f" {mark << 20} " in limits:
                yield int(place.name)


def leaves_nothing(parent: int, mark: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while list(marked(parent, mark)):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


@needs_isolation
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5])
def test_a_kill_of_the_caller_leaves_no_process_and_no_folder(tmp_path: Path, delay: float) -> None:
    mark = 777
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CHECK.format(mark=mark)],
        stdout=subprocess.PIPE,
        env=environment() | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    with process.stdout as printed:
        assert printed.readline() == b"ready\n"
        time.sleep(delay)
        process.kill()
        process.wait()
    assert leaves_nothing(process.pid, mark, 10)
    assert list(tmp_path.iterdir()) == []


def test_code_does_not_start_after_its_parent_has_died(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The launcher gets its parent's process id, because the parent may die before the launcher watches it."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1 << 22)
        sandboxed = start(("-c", "open('ran', 'w')"), str(tmp_path), SMALL, ())
    assert sandboxed.failure() == ""
    assert sandboxed.process.wait(10) == 1
    assert list(tmp_path.iterdir()) == []


@needs_isolation
@pytest.mark.parametrize("stage", [1, 2])
def test_each_launcher_ends_when_its_parent_is_killed(stage: int) -> None:
    mark = 771
    isolate = FOUND.provided
    sandboxed = start(("-c", "import time; time.sleep(100)"), "/tmp", SMALL.replace(memory_mib=mark), isolate)
    assert sandboxed.failure() == ""
    processes = sorted(marked(os.getpid(), mark))
    assert len(processes) == 3
    os.kill(processes[stage - 1], signal.SIGKILL)
    sandboxed.process.wait(10)
    assert leaves_nothing(os.getpid(), mark, 5)


@needs_isolation
def test_the_sandbox_ends_at_its_time_limit_without_its_caller() -> None:
    sandboxed = start(("-c", "import time; time.sleep(100)"), "/tmp", SMALL.replace(wall_seconds=0.5), FOUND.provided)
    assert sandboxed.failure() == ""
    assert sandboxed.process.wait(20) == 124


ZOMBIES = """
import ctypes, os
from esamp.sandbox import Limits, check
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process, as they do of process 1
orphan = "import os\\nif os.fork(): x = 1\\nelse: os.setsid()"
for code in ("x = 1", "import time\\ntime.sleep(9)", "import os\\nos._exit(3)", orphan):
    print(check(code, "assert x", limits=Limits(wall_seconds=2)).verdict)
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("none left")
"""


@needs_isolation
def test_no_zombie_processes_are_left_to_the_callers_process() -> None:
    output = script(ZOMBIES).stdout.split()
    assert output[:3] == ["passed", "timeout", "crashed"]
    assert output[-2:] == ["none", "left"], output


@needs_isolation
def test_no_folder_is_created_outside_the_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = f"import os\ndef f(): return os.path.exists({str(tmp_path)!r})\nopen('/tmp/mine', 'w').close()\n"
    assert check(code, "assert f() is False", limits=SMALL).passed
    assert list(tmp_path.iterdir()) == []


# ---- machines with less isolation


@needs_isolation
def test_code_runs_without_a_system_call_filter_and_the_doctor_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "filter_program", lambda machine: None)
    found = available.__wrapped__()
    assert found.missing == ()
    assert set(found.further) <= {"keys", "namespaces"}
    monkeypatch.setattr("esamp.doctor.available", lambda: found)
    rows = {row.name: row for row in diagnose().sandbox}
    assert not rows["memory"].works
    assert "System V" in rows["memory"].detail
    assert not rows["sockets"].works
    assert check("def f(): return 1", "assert f() == 1", limits=SMALL).passed


def test_an_isolation_that_starts_but_does_not_hold_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = start_module.start

    def open_network(arguments: tuple[str, ...], folder: str, limits: Limits, isolate: tuple[str, ...], **more: int):  # type: ignore[no-untyped-def]
        return original(arguments, folder, limits, [name for name in isolate if name != "network"], **more)

    monkeypatch.setattr(isolation_module, "start", open_network)
    monkeypatch.setattr(start_module, "filter_program", lambda machine: None)
    found = available.__wrapped__()
    assert "network" in found.missing
    assert "network" in found.reason or FOUND.missing


@needs_isolation
@needs_filter
def test_every_further_isolation_holds_where_the_kernel_filters_system_calls() -> None:
    assert set(FOUND.further) == set(FURTHER)


def test_the_doctor_reports_the_further_isolations_that_hold() -> None:
    rows = {row.name: row.works for row in diagnose().sandbox}
    assert {name for name in FURTHER if rows[name]} == set(FOUND.further)


def test_the_page_names_existing_tests_and_every_isolation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "sandbox.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    files = "test_sandbox.py", "test_sandbox_verdict.py", "test_sandbox_containment.py"
    tests = "".join((Path(__file__).parent / file).read_text() for file in files)
    assert len(named) >= 25
    assert {name for name in named if f"def {name}(" not in tests} == set()
    for name in (*ESSENTIAL, *FURTHER):
        assert f"`{name}`" in page
