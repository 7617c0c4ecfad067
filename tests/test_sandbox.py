# ruff: noqa: E501, PTH208
"""Attacks on the sandbox, one test for each claim of docs/sandbox.md."""

import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from esamp.errors import OptionError, UnsupportedError
from esamp.sandbox import ESSENTIAL, FURTHER, Isolation, Limits, Result, available, check
from esamp.sandbox import isolation as isolation_module
from esamp.sandbox.start import start, working_folder

FOUND = available()
needs_isolation = pytest.mark.skipif(bool(FOUND.missing), reason=f"this machine cannot isolate: {FOUND.reason}")
SMALL = Limits(wall_seconds=8, cpu_seconds=2, memory_mib=256)


def run(code: str, tests: str = "assert f() == 1", limits: Limits = SMALL) -> Result:
    return check(code, tests, limits=limits)


def output_of(body: str, limits: Limits = SMALL) -> str:
    """The output of an attack: `body` runs as a function in the sandbox."""
    lines = "\n".join(f"    {line}" for line in body.strip().split("\n"))
    result = run(f"def f():\n{lines}\n    return 1", limits=limits)
    assert result.passed, result
    return result.output.strip()


# ---- what the machine provides


def test_every_essential_isolation_is_reported_as_provided_or_missing() -> None:
    assert set(FOUND.provided) | set(FOUND.missing) == set(ESSENTIAL)
    assert bool(FOUND.reason) == bool(FOUND.missing)
    assert Isolation(user=True, files=False, network=True, processes=False, reason="why").missing == (
        "files",
        "processes",
    )


def test_code_is_refused_if_an_essential_isolation_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        isolation_module,
        "available",
        lambda: Isolation(user=True, files=True, network=False, processes=True, reason="no namespaces"),
    )
    with pytest.raises(UnsupportedError, match=r"missing: network \(no network\).*no namespaces"):
        check("", "")
    assert isolation_module.choose_isolation("allow") == ("user", "files", "processes")


@needs_isolation
def test_without_file_isolation_code_runs_in_a_folder_that_is_removed_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        isolation_module,
        "available",
        lambda: Isolation(user=False, files=False, network=True, processes=True, reason="no mounts"),
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with working_folder(("user",)) as folder:
        assert Path(folder).stat().st_mode & 0o777 == (0o777 if os.geteuid() == 0 else 0o700)
    tests = "assert run('3') == (0, '3\\n', '')"
    result = check("open('x', 'w').close()\nprint(input())", tests, program=True, missing="allow", limits=SMALL)
    assert result.passed, result
    assert list(tmp_path.iterdir()) == []


def test_verdict_and_time_limit_hold_without_any_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        isolation_module,
        "available",
        lambda: Isolation(user=False, files=False, network=False, processes=False, reason="old kernel"),
    )
    good = check("def f(): return 1", "assert f() == 1", missing="allow")
    assert good.passed
    assert good.isolated == ()
    spin = check("while True: pass", "", missing="allow", limits=Limits(wall_seconds=1, cpu_seconds=60))
    assert spin.verdict == "timeout"


@pytest.mark.skipif(not Path("/proc/self/ns/user").exists(), reason="this kernel has no user namespaces")
@needs_isolation
def test_a_user_namespace_isolates_as_well_as_root() -> None:
    code = (
        "import json, os, socket\n"
        "def refused(act, *arguments):\n"
        "    try:\n        act(*arguments)\n    except OSError:\n        return True\n"
        "connect = lambda: socket.create_connection(('127.0.0.1', 9), .5)\n"
        "print(json.dumps([os.getuid(), sorted(os.listdir('/proc'))[:1], refused(open, '/usr/x', 'w'), "
        "refused(open, '/etc/passwd'), refused(connect), refused(os.setuid, 0), refused(socket.sethostname, 'x'), "
        "os.path.exists('/proc/keys') and open('/proc/keys').read()]))\n"
    )
    reads, writes = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        sandboxed = start(("-c", code), folder, SMALL, ESSENTIAL, stdout=writes, root=False)
        os.close(writes)
        if failure := sandboxed.failure():
            os.close(reads)
            sandboxed.process.wait()
            pytest.skip(f"no user namespaces here: {failure}")
        with os.fdopen(reads) as file:
            printed = file.read()
        assert sandboxed.process.wait() == 0, printed
        assert json.loads(printed) in ([1000, ["1"], *[True] * 5, each] for each in ("", False))


@pytest.mark.parametrize("wrong", [{"wall_seconds": 0.0}, {"memory_mib": 1}, {"processes": 0}], ids=str)
def test_a_limit_outside_its_range_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Limits.parse(wrong)


# ---- verdicts


@needs_isolation
@pytest.mark.parametrize(
    ("code", "tests", "verdict"),
    [
        ("def f(): return 1", "assert f() == 1", "passed"),
        ("def f(): return 2", "assert f() == 1", "failed"),
        ("def f(): return None", "assert f() == 1", "failed"),
        ("def g(): return 1", "assert f() == 1", "failed"),
        ("def f(:", "assert f() == 1", "failed"),
        ("def f(): raise ValueError('no')", "assert f() == 1", "failed"),
        ("def f(): return f()", "assert f() == 1", "failed"),
        ("def f():\n while True: pass", "assert f() == 1", "timeout"),
        ("import time\ntime.sleep(60)", "assert f() == 1", "timeout"),
        ("def f(): return bytearray(1 << 31)", "assert f() == 1", "memory"),
        ("import ctypes\nctypes.string_at(0)", "assert f() == 1", "crashed"),
        ("def f():\n while True: print('x' * 1000)", "assert f() == 1", "output"),
        ("import os\ndef f():\n while True: os.write(2, b'x' * 1000)", "assert f() == 1", "output"),
    ],
    ids=lambda text: str(text)[:30].encode("unicode_escape").decode(),
)
def test_each_way_to_end_has_its_verdict(code: str, tests: str, verdict: str) -> None:
    result = run(code, tests, Limits(wall_seconds=2, cpu_seconds=1, memory_mib=256))
    assert result.verdict == verdict, result
    assert result.seconds < 4
    assert len(result.output) <= 4_000


@needs_isolation
def test_values_of_built_in_types_pass_to_the_code_and_back_unchanged() -> None:
    values = "[1, -2.5, 'é\\ud800', None, True, (1, (2,)), {3}, frozenset({4}), {(1, 2): [b'x']}, 1j, 10**500, 1e309]"
    result = run(
        "def f(x): return x", f"v = {values}\nw = f(v)\nassert w == v\nassert list(map(type, w)) == list(map(type, v))"
    )
    assert result.passed, result.reason


@needs_isolation
def test_other_objects_stay_in_the_codes_process_and_tests_can_use_them() -> None:
    code = "class P:\n def __init__(self, a): self.a = a\n def __len__(self): return 3\ndef f(ps): return (p.a for p in ps)"
    tests = "p = P(4)\nassert p.a == 4 and len(p) == 3\nassert list(f([p, P(5)])) == [4, 5]"
    assert run(code, tests).passed
    assert run(code, "assert f([P(1)]) == [1]").verdict == "failed"
    assert run("def f(g): return g(1)", "assert f(lambda x: x) == 1").verdict == "failed"


@needs_isolation
def test_tests_catch_the_exceptions_that_they_expect() -> None:
    tests = "try:\n    f()\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False"
    assert run("def f(): return 1 / 0", tests).passed
    assert run("def f(): return 1", tests).verdict == "failed"


# ---- programs

PROGRAM_TESTS = (
    "for given, expected in cases:\n    code, printed, error = run(given)\n"
    "    assert (code, printed.strip()) == (0, expected), (code, printed, error)"
)
ADD = "print(sum(map(int, input().split())))"
PROGRAMS = {
    "plain": (ADD, "passed"),
    "in a thread": (f"import threading\ndef work():\n    {ADD}\nthreading.Thread(target=work).start()", "passed"),
    "at exit": (f"import atexit\n@atexit.register\ndef work():\n    {ADD}", "passed"),
    "as the main module": (
        "import sys\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"
        f"if __name__ == '__main__' and sys.modules['__main__'].P is P and sys.argv == ['answer']:\n    {ADD}",
        "passed",
    ),
    "no state is left for the next run": (
        f"import sys\nif hasattr(sys, 'left'): print('left')\nsys.left = 1\n{ADD}",
        "passed",
    ),
    "a megabyte on standard error": (f"import sys\nsys.stderr.write('x' * 1_000_000)\n{ADD}", "passed"),
    "another process keeps running": (f"import os\n{ADD}\nif os.fork() == 0:\n    while True: pass", "timeout"),
    "writes to every descriptor": (
        "import os\nfor n in range(3, 64):\n    try:\n        os.write(n, b'00000014[\"ok\", [0, 3]]')\n"
        f"    except OSError:\n        pass\n{ADD}",
        "passed",
    ),
    "kills the process of the judge": ("import os\nos.kill(os.getppid(), 9)", ("crashed", "timeout")),
    "not compiled": ("print(", "failed"),
}


@needs_isolation
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_gets_its_verdict(name: str) -> None:
    code, verdict = PROGRAMS[name]
    limits = SMALL.replace(call_seconds=1.0)
    result = check(code, PROGRAM_TESTS, cases=[("1 2", "3"), ("4 5", "9")], program=True, limits=limits)
    assert result.verdict in verdict, result
    assert result.output == ""


@needs_isolation
def test_each_call_has_a_time_limit_that_tests_cannot_catch() -> None:
    tests = "try:\n    f()\nexcept Exception:\n    pass"
    result = run("def f():\n while True: pass", tests, SMALL.replace(call_seconds=0.5))
    assert (result.verdict, result.reason) == ("timeout", "not done after 0.5 s")
    slow = "import time\ndef f():\n time.sleep(.9)\n return 1"
    assert run(
        slow, "for _ in range(3): assert f() == 1", SMALL.replace(call_seconds=2.5)
    ).passed  # the limit applies to each call, not to all together


@needs_isolation
def test_the_prelude_runs_before_the_code_and_only_tests_see_the_cases() -> None:
    code = "from __future__ import annotations\ndef f(): return floor(1.5) if 'cases' not in globals() else 0"
    assert check(code, "assert f() == cases[0]", prelude="from math import *", cases=[1], limits=SMALL).passed


# ---- attacks on the verdict

CHEATS = {
    "exit at once": "import sys; sys.exit(0)",
    "os._exit": "import os; os._exit(0)",
    "exit when called": "def f():\n import os; os._exit(0)",
    "SystemExit when called": "def f(): raise SystemExit(0)",
    "equal to everything": "class A:\n def __eq__(self, other): return True\n __ne__ = lambda s, o: False\ndef f(): return A()",
    "equal int": "class A(int):\n def __eq__(self, other): return True\n __hash__ = int.__hash__\ndef f(): return A(7)",
    "no AssertionError": "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\ndef f(): return 2",
    "patched checker": (
        "import sys\nm = sys.modules['__main__']\n"
        "m.Judge.run = lambda *a: None\nm.pack = lambda v, o: True\ndef f(): return 2"
    ),
    "patched frames": (
        "import sys, gc\nf_ = sys._getframe()\n"
        "while f_:\n    f_.f_globals['Judge'] = f_.f_locals['channel'] = None; f_ = f_.f_back\n"
        "[o.clear() for o in gc.get_objects() if type(o) is dict and 'token' in o]\ndef f(): return 2"
    ),
    "patched builtins": "import builtins\nbuiltins.__dict__.update(exec=print, compile=print)\ndef f(): return 2",
    "verdict into every descriptor": (
        'import os\nsaid = b\'{"token": "", "verdict": "passed", "reason": ""}\'\n'
        "for n in range(64):\n    try:\n        os.write(n, said)\n    except OSError:\n        pass\ndef f(): return 2"
    ),
    "forged answers": (
        'import os\nbody = b\'["ok", ["r", 0]]\'\n'
        "for n in range(3, 64):\n    try:\n        os.write(n, (b'%08d' % len(body) + body) * 50)\n"
        "    except OSError:\n        pass\ndef f(): return 2"
    ),
    "a huge message": "import os\n[os.write(n, b'99999999') for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{n}')]",
    "deep value": "def f():\n x = []\n for _ in range(10**5): x = [x]\n return x",
    "replaced math module": "import sys\nclass M:\n isclose = staticmethod(lambda *a: True)\nmath = sys.modules['math'] = M()\ndef f(): return 2",
    "kill the judge": "import os, signal\nfor p in range(2, 400):\n    try: os.kill(p, 9)\n    except OSError: pass\ndef f(): return 2",
}


@needs_isolation
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes_the_tests(cheat: str) -> None:
    result = run(CHEATS[cheat], "import math\nassert f() == 1\nassert math.isclose(f(), 1)")
    assert result.verdict in ("failed", "crashed", "timeout"), result


@needs_isolation
def test_neither_token_nor_expected_values_are_in_the_codes_process() -> None:
    code = (
        "import gc, os, re, sys\n"
        "def f(given=None):\n"
        "    held = [repr(o)[:10**6] for o in gc.get_objects() if type(o) in (dict, list, tuple)]\n"
        "    held += [str(sys._current_frames()), str(sys.argv[1:]), open('/proc/self/environ').read()]\n"
        "    text = ' '.join(held)\n"
        "    return ''.join(reversed('hgulpyzzyx')) in text or bool(re.search(chr(39) + '[0-9a-f]{32}' + chr(39), text))\n"
    )
    assert run(code, "expected = 'xyzzyplugh'\nassert f() is False\nassert f(['xyzzyplugh']) is True").passed


@needs_isolation
def test_the_code_sees_no_process_of_the_judge() -> None:
    output = output_of("import os\nfor p in os.listdir('/proc'):\n    if p.isdigit(): print(p)")
    assert len(output.split()) <= 2  # process 1, which waits, and the code's own


# ---- attacks on the machine


@needs_isolation
def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    names = output_of("import os\nprint(*sorted(os.environ))").split()
    assert set(names) <= {"PATH", "LANG", "HOME", "PYTHONHASHSEED", "LC_CTYPE"}
    assert "hunter2" not in output_of(
        "print(open('/proc/1/environ').read() if __import__('os').access('/proc/1/environ', 4) else '')"
    )


@needs_isolation
def test_no_network_address_can_be_reached() -> None:
    attack = (
        "import socket\n"
        "for family, address in ((socket.AF_INET, ('127.0.0.1', {port})), (socket.AF_INET, ('1.1.1.1', 53)), "
        "(socket.AF_UNIX, '\\0esamp-test')):\n"
        "    try:\n        socket.socket(family).connect(address)\n        print('open')\n"
        "    except OSError as error:\n        print('refused')"
    )
    import socket

    with socket.socket() as server, socket.socket(socket.AF_UNIX) as named:
        server.bind(("127.0.0.1", 0))
        server.listen()
        named.bind("\0esamp-test")
        named.listen()
        assert output_of(attack.replace("{port}", str(server.getsockname()[1]))).split() == ["refused"] * 3


@needs_isolation
def test_files_of_the_machine_are_neither_seen_nor_changed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    output = output_of(
        "import os, shutil, sys\n"
        f"print(os.path.exists({str(precious)!r}), os.path.exists('/etc/passwd'), os.path.exists('/home'))\n"
        "for place in ('/', '/usr', os.path.dirname(os.__file__), '/dev', '/etc', '/proc/sys/kernel'):\n"
        "    try:\n        open(place + '/mine', 'w')\n        print('wrote', place)\n    except OSError:\n        pass\n"
        "for place in ('/usr/bin', '/tmp', os.path.dirname(os.__file__) + '/json'): shutil.rmtree(place, ignore_errors=True)\n"
        "print(os.path.exists(os.path.dirname(os.__file__) + '/json/__init__.py'), os.path.exists(sys.executable))"
    )
    assert output.split("\n") == ["False False False", "True True"]
    assert precious.read_text() == "kept"
    assert Path(os.__file__).exists()


@needs_isolation
def test_the_temporary_folder_is_private_and_limited_in_size() -> None:
    output = output_of(
        "import tempfile\n"
        "with tempfile.NamedTemporaryFile('w+', delete=False) as file:\n    file.write('x')\n    print(file.name)\n"
        "written = 0\n"
        "try:\n    for n in range(9):\n        with open(f'/tmp/{n}', 'wb') as file: written += file.write(bytes(1 << 20))\n"
        "except OSError as error:\n    print(error.errno, written >> 20)",
        SMALL.replace(file_mib=4),
    )
    name, full = output.split("\n")
    assert full.split()[0] == "28"  # no space left on the device
    assert int(full.split()[1]) <= 4
    assert not Path(name).exists()


@needs_isolation
def test_a_file_cannot_exceed_its_size_limit() -> None:
    code = "def f():\n with open('/tmp/x', 'wb', 0) as file: return sum(file.write(bytes(1 << 20)) for _ in range(9))"
    assert not run(code, "assert f() == 9 << 20", SMALL.replace(file_mib=4)).passed


@needs_isolation
def test_code_has_no_privileges_and_gains_none() -> None:
    output = output_of(
        "import ctypes, os\n"
        "print(os.getuid() == 0, os.getgroups())\n"
        "for line in open('/proc/self/status'):\n"
        "    if line.startswith(('CapEff', 'CapPrm', 'CapBnd', 'NoNewPrivs')): print(line.split()[1].lstrip('0') or '0')\n"
        "for act in (lambda: os.setuid(0), lambda: os.chroot('/tmp'), lambda: os.mknod('/tmp/d', 0o60666, 1)):\n"
        "    try:\n        act()\n        print('done')\n    except OSError:\n        print('refused')"
    ).split("\n")
    assert output[0] == "False []"
    assert output[1:3] == ["0", "0"]
    assert output[4:] == ["1", *["refused"] * 3]


@needs_isolation
def test_a_fork_bomb_is_limited_and_leaves_no_process() -> None:
    mark = f"esampbomb{os.getpid()}"
    code = (
        "import os, time, sys, ctypes\n"
        f"ctypes.CDLL(None).prctl(15, b'{mark[-14:]}', 0, 0, 0)\n"
        "def f():\n"
        "    most = 1\n"
        "    for _ in range(200):\n"
        "        try:\n            if os.fork() == 0:\n                os.setsid()\n                time.sleep(100)\n            most += 1\n"
        "        except OSError:\n            break\n"
        "    return most\n"
    )
    result = run(code, "assert f() == 5", SMALL.replace(processes=5))
    assert result.passed, result
    assert mark[-14:] not in names_of_processes()
    endless = run(
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", limits=SMALL.replace(wall_seconds=2)
    )
    assert endless.verdict in ("timeout", "crashed")


def names_of_processes() -> str:
    return subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True, check=True).stdout


@needs_isolation
def test_code_that_ignores_all_signals_ends_at_its_time_limit() -> None:
    code = (
        "import os, signal\n"
        "for n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "while True: pass\n"
    )
    result = run(code, limits=Limits(wall_seconds=20, cpu_seconds=1))
    assert result.verdict == "timeout"
    assert result.seconds < 19
    assert run(code, limits=Limits(wall_seconds=1, cpu_seconds=60)).seconds < 15


@needs_isolation
def test_concurrent_checks_leave_no_open_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    found: list[Result] = []
    threads = [threading.Thread(target=lambda n=n: found.append(run(f"def f(): return {n % 2}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.verdict for result in found) == ["failed", "failed", "passed", "passed"]
    time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_doctor_lists_the_isolations_of_this_machine() -> None:
    from esamp.doctor import diagnose

    reported = {row.name: row.works for row in diagnose().sandbox}
    holding = (*FOUND.provided, *FOUND.further)
    assert reported == {"limits": True, **{name: name in holding for name in (*ESSENTIAL, *FURTHER)}}
