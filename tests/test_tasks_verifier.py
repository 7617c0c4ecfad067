"""The process that verifies answers: judged by its processor time, replaced when it ends, started from any script."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import esamp
from esamp.errors import MissingDependencyError, UnsupportedError
from esamp.tasks import worker
from esamp.tasks.verifier import Verifier
from esamp.tasks.worker import Worker

pytest.importorskip("math_verify", reason="math-verify is not installed: pip install -e '.[tasks]'")
SCRIPT = r"""
import esamp.tasks.verifier
with esamp.tasks.verifier.Verifier() as verifier:
    print(verifier.same("\\frac{1}{2}", "0.5"), verifier.same("\\frac{1}{2}", "0.4"))
"""
ECHO = """
import os, signal, time
def start(settings):
    if settings == "missing":
        import no_such_package
    def answer(request):
        while request == "busy":
            pass
        if request == "dead":
            raise SystemExit
        if request == "waits":
            time.sleep(1.5)
        if request == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        return [settings, request]
    return answer
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that answers with what it is asked."""
    (tmp_path / "echo_process.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    return "echo_process"


def pid(running: Worker) -> int:
    assert running._process is not None
    return running._process.pid


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


@pytest.mark.timeout(120)
def test_a_process_that_is_suspended_for_a_while_still_answers(echo: str) -> None:
    with Worker(echo, "set", 1.0, "") as running:
        assert running.ask("one") == ["set", "one"]
        stopped = pid(running)
        os.kill(stopped, signal.SIGSTOP)
        threading.Timer(3.0, os.kill, (stopped, signal.SIGCONT)).start()  # longer than its processor time
        assert running.ask("two") == ["set", "two"]
        assert pid(running) == stopped
        assert running.ask("waits") == ["set", "waits"]


@pytest.mark.timeout(120)
def test_a_process_that_stays_suspended_or_is_killed_is_replaced(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STALLED", 3.0)
    with Worker(echo, "set", 60.0, "") as running:
        for end in (signal.SIGSTOP, signal.SIGKILL):
            assert running.ask("one") == ["set", "one"]
            ended = pid(running)
            os.kill(ended, end)
            assert running.ask("two") == ["set", "two"]
            assert pid(running) != ended


@pytest.mark.timeout(120)
def test_an_answer_without_a_verdict_is_an_error(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STALLED", 1.5)
    with Worker(echo, "set", 60.0, "") as running, pytest.raises(UnsupportedError, match="grade it again"):
        running.ask("stops")


@pytest.mark.timeout(120)
def test_processor_time_that_is_used_up_ends_a_request_and_the_next_one_is_answered(echo: str) -> None:
    with Worker(echo, "set", 0.5, "") as running:
        assert running.ask("busy") is None
        assert running.ask("dead") is None
        assert running.ask("one") == ["set", "one"]


def test_a_missing_package_is_named(echo: str) -> None:
    with pytest.raises(MissingDependencyError, match="install it"):
        Worker(echo, "missing", 60.0, "install it").ask("one")


@pytest.mark.timeout(300)
def test_an_answer_that_takes_for_ever_is_wrong_and_the_next_one_is_graded() -> None:
    with Verifier(seconds=1.0) as verifier:
        assert verifier.same("18", "10^{10^{10^{10}}}") is False
        verifier.worker.seconds = 60.0
        assert verifier.same("18", "18") is True
