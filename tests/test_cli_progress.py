"""Progress within a batch, and the text of a single sample on a terminal while it is decoded."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from esamp.cli import main
from esamp.cli.estimate import SampleProgress
from esamp.cli.streaming import StreamedSample
from esamp.engines.base import Request
from esamp.engines.hf import HFEngine
from esamp.sampling import DEFAULT_TOKENS, Sampling

PROMPT = "Numbers 3 5 8 9 target 24"
GENERATE = ("generate", PROMPT, "-n", "1", "--max-tokens", "200")
Output = pytest.CaptureFixture[str]


# ---- progress


def test_running_samples_count_by_their_tokens() -> None:
    progress = SampleProgress(4, 10)
    assert progress.add(0, 5) == 0.5
    assert progress.add(0, 15) == 2.0
    assert progress.done == 0
    assert progress.add(2, 0) == 2.0
    assert progress.add(0, 10) == 3.0
    assert progress.add(2, 0) == 4.0
    assert (progress.done, progress.tokens) == (4, 30)


def test_samples_that_end_early_never_move_the_bar_back() -> None:
    progress = SampleProgress(8, 100)
    estimates = [progress.add(0, 8) for _ in range(20)] + [progress.add(1, 0) for _ in range(8)]
    assert estimates == sorted(estimates)
    assert estimates[-1] == 8


def test_an_estimate_stays_within_the_total() -> None:
    progress = SampleProgress(1, 2, 0)
    assert progress.add(0, 50) == 1
    assert SampleProgress(3, None).limit == DEFAULT_TOKENS


def test_the_bar_moves_while_a_batch_decodes() -> None:
    progress = SampleProgress(6, 16)
    estimates: list[tuple[int, float]] = []

    def advance(samples: int, tokens: int) -> None:
        estimate = progress.add(samples, tokens)
        estimates.append((progress.done, estimate))

    sampling = Sampling(max_tokens=16)
    requests = [Request(str(number), f"Numbers {number} 5 target 9", 3, sampling) for number in range(2)]
    list(HFEngine.load().generate(requests, progress=advance))
    before = [estimate for done, estimate in estimates if not done]
    assert len(set(before)) > 8
    assert before[-1] > 1
    assert estimates[-1] == (6, 6.0)


# ---- streaming


def on_terminal(*arguments: str, columns: int = 80) -> tuple[list[str], int]:
    """The pieces in which a terminal gets the output of a command, and its exit code."""
    parent, child = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "esamp.cli", *arguments]
    process = subprocess.Popen(command, stdout=child, stderr=subprocess.DEVNULL, env=environment)
    os.close(child)
    pieces = []
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the process has closed the terminal
            break
        if not piece:
            break
        pieces.append(piece.decode())
    os.close(parent)
    return pieces, process.wait(timeout=60)


def plain(text: str) -> str:
    """A terminal's text without colours and with ordinary line ends."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n")


@pytest.mark.slow
def test_a_single_sample_appears_on_a_terminal_while_it_is_decoded(capsys: Output) -> None:
    assert main([*GENERATE, "--json"]) == 0
    [sample] = json.loads(capsys.readouterr().out)["samples"]
    pieces, code = on_terminal(*GENERATE, columns=40)
    assert code == 0
    shown = plain("".join(pieces))
    head, body = shown.split("[1] ")
    assert head == f"> {PROMPT}\n"
    text, summary = body.rstrip("\n").rsplit("\n1 sample,", 1)
    assert text.split() == sample["text"].split()
    assert all(len(line) <= 40 for line in shown.splitlines())
    assert "tokens in" in summary
    assert len(pieces) > 10


def test_a_pipe_gets_the_sample_as_a_whole(capsys: Output) -> None:
    assert main([*GENERATE[:-1], "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"> {PROMPT}"
    assert lines[1].startswith("[1] ")


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["\n\none", " tw", "o"], ["[1] one two"]),
        (["a b\n", "\nc\n\n"], ["[1] a b", "    ", "    c"]),
        (["word ", "word ", "word ", "word"], ["[1] word word word", "    word"]),
        (["x" * 30], ["[1] " + "x" * 30]),
        (["red \x1b[31m", "x"], ["[1] red \\x1b[31mx"]),
    ],
)
def test_streamed_text_is_wrapped_between_words(
    pieces: list[str], lines: list[str], capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    removed: list[bool] = []
    sample = StreamedSample("a prompt", lambda: removed.append(True))
    assert not removed
    for piece in pieces:
        sample.add(0, piece)
    assert removed == [True]
    sample.end()
    assert plain(capsys.readouterr().out).splitlines() == ["> a prompt", *lines]
