"""The process that verifies answers: its limit of processor time, its replacement, and its start from any script."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import esamp
from esamp.errors import MissingDependencyError, UnsupportedError
from esamp.tasks import verifier_process
from esamp.tasks.math_verifier import MathVerifier
from esamp.tasks.verifier_process import VerifierProcess

pytest.importorskip("math_verify", reason="math-verify is not installed: pip install -e '.[tasks]'")
SCRIPT = r"""
from esamp.tasks.math_verifier import MathVerifier
with MathVerifier() as verifier:
    print(verifier.same("\\frac{1}{2}", "0.5"), verifier.same("\\frac{1}{2}", "0.4"))
"""
ECHO = """
import os, signal, time
def start(settings):
    if settings == "missing":
        import no_such_package
    def function(argument):
        while argument == "busy":
            pass
        if argument == "dead":
            raise SystemExit
        if argument == "waits":
            time.sleep(1.5)
        if argument == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        return [settings, argument]
    return function
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module whose function returns its argument."""
    (tmp_path / "echo_process.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    return "echo_process"


def pid(process: VerifierProcess) -> int:
    assert process._process is not None
    return process._process.pid


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["file", "standard input", "command"])
def test_a_script_without_a_main_guard_grades(tmp_path: Path, how: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = {"file": ["script.py"], "standard input": ["-"], "command": ["-c", SCRIPT]}[how]
    paths = os.pathsep.join([str(Path(esamp.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        input=SCRIPT if how == "standard input" else None,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True False\n", "")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_call_survives_a_suspension_of_its_process(echo: str) -> None:
    with VerifierProcess(echo, "set", package="echo", seconds=1.0) as process:
        assert process.call("one") == ["set", "one"]
        stopped = pid(process)
        os.kill(stopped, signal.SIGSTOP)
        threading.Timer(3.0, os.kill, (stopped, signal.SIGCONT)).start()  # longer than its processor time
        assert process.call("two") == ["set", "two"]
        assert pid(process) == stopped
        assert process.call("waits") == ["set", "waits"]


@pytest.mark.timeout(120)
def test_a_stalled_or_killed_process_is_replaced(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_process, "STALLED", 3.0)
    with VerifierProcess(echo, "set", package="echo", seconds=60.0) as process:
        for end in (signal.SIGSTOP, signal.SIGKILL):
            assert process.call("one") == ["set", "one"]
            ended = pid(process)
            os.kill(ended, end)
            assert process.call("two") == ["set", "two"]
            assert pid(process) != ended


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_always_stalls_raises_an_error(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_process, "STALLED", 1.5)
    with (
        VerifierProcess(echo, "set", package="echo", seconds=60.0) as process,
        pytest.raises(UnsupportedError, match="grade it again"),
    ):
        process.call("stops")


@pytest.mark.timeout(120)
def test_a_call_that_uses_up_its_processor_time_returns_none_and_the_next_call_works(echo: str) -> None:
    with VerifierProcess(echo, "set", package="echo", seconds=0.5) as process:
        assert process.call("busy") is None
        assert process.call("dead") is None
        assert process.call("one") == ["set", "one"]


def test_a_missing_package_error_names_the_package(echo: str) -> None:
    with pytest.raises(MissingDependencyError, match="the package 'echo' grades this task: pip install"):
        VerifierProcess(echo, "missing", package="echo").call("one")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_answer_that_exceeds_the_time_limit_is_wrong_and_the_next_one_is_graded() -> None:
    with MathVerifier(seconds=1.0) as verifier:
        assert verifier.same("18", "10^{10^{10^{10}}}") is False
        verifier.seconds = 60.0
        assert verifier.same("18", "18") is True
