"""What code in the sandbox can reach, hold and leave behind: claims of docs/sandbox.md, each with the attack on it."""

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
needs_filter = pytest.mark.skipif(
    not FILTERS, reason="this kernel filters no system calls, or not on this architecture"
)
SMALL = Limits(wall_seconds=15, cpu_seconds=5, memory_mib=256)
CTYPES = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def says(body: str, limits: Limits = SMALL) -> str:
    """What an attack prints: the body of a function that runs in the sandbox."""
    result = check(f"def f():\n{textwrap.indent(body.strip(), '    ')}\n    return 1", "assert f() == 1", limits=limits)
    assert result.passed, result
    return result.output.strip()


# ---- the filter of system calls


def outcome(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> str:
    """What the filter says of a system call: its instructions, carried out here."""
    program = filter_program(machine)
    assert program is not None
    code = [struct.unpack_from("<HBBI", program, place) for place in range(0, len(program), 8)]
    data = {0: number, 4: ARCHITECTURES[machine] if architecture is None else architecture, 16: argument & 0xFFFFFFFF}
    place, held = 0, 0
    while True:
        kind, if_true, if_false, operand = code[place]
        place += 1
        if kind == 0x06:
            return "allowed" if operand == 0x7FFF0000 else errno.errorcode[operand & 0xFFFF]
        if kind == 0x20:
            held = data[operand]
        else:
            true = {0x15: held == operand, 0x35: held >= operand, 0x45: bool(held & operand)}[kind]
            place += if_true if true else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_refuses_its_list_and_nothing_else(machine: str) -> None:
    numbers = {each[MACHINES.index(machine)] for each in REFUSED.values()}
    assert len(numbers) == len(REFUSED)
    special = {*SOCKET[machine], CLONE[machine], CLONE3}
    for number in range(500):
        expected = "EPERM" if number in numbers else "allowed"
        assert number in special or outcome(machine, number) == expected, number
    for number in SOCKET[machine]:
        assert [outcome(machine, number, family) for family in (1, 2, 10, 16, 38, 40)] == ["allowed", *["EPERM"] * 5]
    for flag, expected in ((0x10000000, "EPERM"), (0x20000, "EPERM"), (0x40000000, "EPERM"), (0x3D0F00, "allowed")):
        assert outcome(machine, CLONE[machine], flag) == expected
    assert outcome(machine, CLONE3) == "ENOSYS"
    assert outcome(machine, 0, architecture=0x40000003) == "EPERM"  # 32 bits
    assert filter_program("riscv64") is None
    if machine == "x86_64":
        assert outcome(machine, 0x40000000 | 319) == "ENOSYS"


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
    assert says(attack).split("\n") == ["-1 1", "-1 38"]


@needs_isolation
@needs_filter
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 alone has two more ways to call the kernel")
def test_the_system_calls_of_32_bits_are_no_way_around() -> None:
    attack = (
        f"{CTYPES}import mmap\n"
        "print(libc.syscall(0x40000000 | 319, b'x', 0), ctypes.get_errno())\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('53b814000000cd805bc3'))  # getpid by interrupt 0x80\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "if (child := os.fork()) == 0:\n    os._exit(1 if call() > 0 else 0)\n"
        "print(os.waitpid(child, 0)[1] == 256)"
    )
    assert says(attack).split("\n") == ["-1 38", "False"]


@needs_isolation
@needs_filter
def test_no_sockets_but_those_of_the_processes_themselves() -> None:
    attack = (
        "import socket\n"
        "for family in (2, 10, 16, 17, 38, 40):\n"
        "    for kind in (1, 2, 3):\n"
        "        try:\n            socket.socket(family, kind)\n            print(family, kind)\n"
        "        except OSError as error:\n            assert error.errno == 1\n"
        "a, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'"
    )
    assert says(attack) == ""


@needs_isolation
@needs_filter
@pytest.mark.parametrize("way", ["System V", "memfd", "tmpfs", "mapped"])
def test_no_memory_beyond_the_limits(way: str) -> None:
    """Each way alone held 2 GiB under a limit of 256 MiB, or would have."""
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
    assert int(says(attack)) < (1 if way != "mapped" else 8)


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
    print("no keys here")
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
@pytest.mark.skipif(platform.machine() not in MACHINES, reason="its numbers of system calls are not known here")
@pytest.mark.parametrize("filtered", [True, False])
def test_the_session_keyring_is_out_of_reach(filtered: bool) -> None:
    index = MACHINES.index(platform.machine())
    numbers = [str(REFUSED[name][index]) for name in ("add_key", "request_key", "keyctl")]
    said = script(KEYS, *numbers, str(filtered)).stdout.split("\n")
    if said[0] == "no keys here":
        pytest.skip("this kernel has no keys, or lets nobody use them")
    assert said[:2] == ["all tests pass", "False"]


def script(text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of its own."""
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], env=environment(), capture_output=True, text=True, check=True
    )


def environment() -> dict[str, str]:
    source = str(Path(esamp.__path__[0]).parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


# ---- what is left behind

HOLDS = """
from esamp.sandbox import Limits, available, check
available()
print("ready", flush=True)
check("import time\\ntime.sleep(100)", "", limits=Limits(memory_mib={mark}, wall_seconds=100))
"""


def marked(parent: int, mark: int) -> Iterator[int]:
    """The processes of a check: ours name their parent, the others have a memory limit that nobody else has."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words, limits = (place / "cmdline").read_bytes(), (place / "limits").read_text()
            except OSError:
                continue
            ours = b"launcher.py" in words and f'"parent": {parent},'.encode() in words
            if ours or f" {mark << 20} " in limits:
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
        [sys.executable, "-c", HOLDS.format(mark=mark)],
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


def test_an_interpreter_whose_parent_is_gone_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The launcher is told its parent, since that may have died before it could ask to be told of its death."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1 << 22)
        begun = start(("-c", "open('ran', 'w')"), str(tmp_path), SMALL, ())
    assert begun.failure() == ""
    assert begun.process.wait(10) == 1
    assert list(tmp_path.iterdir()) == []


@needs_isolation
@pytest.mark.parametrize("stage", [1, 2])
def test_the_launchers_end_when_the_one_above_is_killed(stage: int) -> None:
    mark = 771
    isolate = FOUND.provided
    begun = start(("-c", "import time; time.sleep(100)"), "/tmp", SMALL.replace(memory_mib=mark), isolate)
    assert begun.failure() == ""
    mine = sorted(marked(os.getpid(), mark))
    assert len(mine) == 3
    os.kill(mine[stage - 1], signal.SIGKILL)
    begun.process.wait(10)
    assert leaves_nothing(os.getpid(), mark, 5)


@needs_isolation
def test_the_sandbox_ends_by_itself_when_the_time_is_over() -> None:
    begun = start(("-c", "import time; time.sleep(100)"), "/tmp", SMALL.replace(wall_seconds=0.5), FOUND.provided)
    assert begun.failure() == ""
    assert begun.process.wait(20) == 124  # nobody asked it to


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
def test_no_zombies_are_left_to_process_1_of_a_container() -> None:
    said = script(ZOMBIES).stdout.split()
    assert said[:3] == ["passed", "timeout", "crashed"]
    assert said[-2:] == ["none", "left"], said


@needs_isolation
def test_no_folder_is_made_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = f"import os\ndef f(): return os.path.exists({str(tmp_path)!r})\nopen('/tmp/mine', 'w').close()\n"
    assert check(code, "assert f() is False", limits=SMALL).passed
    assert list(tmp_path.iterdir()) == []


# ---- machines that have less


@needs_isolation
def test_without_a_filter_code_still_runs_and_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "filter_program", lambda machine: None)
    found = available.__wrapped__()
    assert found.missing == ()
    assert set(found.further) <= {"keys", "namespaces"}
    monkeypatch.setattr("esamp.doctor.available", lambda: found)
    rows = {each.name: each for each in diagnose().sandbox}
    assert not rows["memory"].works
    assert "System V" in rows["memory"].detail
    assert not rows["sockets"].works
    assert check("def f(): return 1", "assert f() == 1", limits=SMALL).passed


def test_what_is_tried_out_decides_not_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An isolation that starts but does not hold counts as missing."""
    honest = start_module.start

    def open_network(arguments: tuple[str, ...], folder: str, limits: Limits, isolate: tuple[str, ...], **more: int):  # type: ignore[no-untyped-def]
        return honest(arguments, folder, limits, [name for name in isolate if name != "network"], **more)

    monkeypatch.setattr(isolation_module, "start", open_network)
    monkeypatch.setattr(start_module, "filter_program", lambda machine: None)
    found = available.__wrapped__()
    assert "network" in found.missing
    assert "network" in found.reason or FOUND.missing


@needs_isolation
@needs_filter
def test_where_the_kernel_filters_system_calls_all_of_it_holds() -> None:
    assert set(FOUND.further) == set(FURTHER)


def test_the_doctors_lines_are_those_that_were_tried_out() -> None:
    rows = {each.name: each.works for each in diagnose().sandbox}
    assert {name for name in FURTHER if rows[name]} == set(FOUND.further)


def test_every_attack_that_the_page_names_is_a_test() -> None:
    page = (Path(__file__).parents[1] / "docs" / "sandbox.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    files = "test_sandbox.py", "test_sandbox_verdict.py", "test_sandbox_containment.py"
    tests = "".join((Path(__file__).parent / file).read_text() for file in files)
    assert len(named) >= 25
    assert {name for name in named if f"def {name}(" not in tests} == set()
    for name in (*ESSENTIAL, *FURTHER):
        assert f"`{name}`" in page
