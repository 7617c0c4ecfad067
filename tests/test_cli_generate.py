"""`esamp generate` as a user runs it: processes, pipes, signals, files, and a real model (random, so it is quick)."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from esamp.cli import main, sample_text
from esamp.engines.base import Completion, Request, Sample
from esamp.models.tokenizer import build_tokenizer

COMMAND = (sys.executable, "-m", "esamp.cli", "generate")
PROMPT = "Numbers 3 5 8 9 target 24"
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random Llama of 0.1M parameters and the embedded model's tokenizer. It never ends a text."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer(120, 4096)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def esamp(*arguments: str, stdin: str = "", timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout)


def here(capsys: Output, *arguments: str) -> tuple[int, str, str]:
    """The command in this process: exit code, standard output, standard error."""
    code = main(["generate", *arguments])
    return code, *capsys.readouterr()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_prompts(path: Path, count: int) -> Path:
    path.write_text(
        "".join(json.dumps({"id": f"p{i}", "prompt": f"Numbers {i} 5 8 target 24"}) + "\n" for i in range(count))
    )
    return path


# ---- what is printed


@pytest.mark.slow
def test_prompts_can_be_arguments(model: str) -> None:
    result = esamp(PROMPT, "Numbers 1 2 target 3", "--model", model, "-n", "3", "--max-tokens", "12")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    first, second = result.stdout.strip().split("\n\n")
    assert first.startswith(f"> {PROMPT}\n[1] ")
    assert "\n[3] " in first
    assert "3 samples, 36 tokens in" in first
    assert "tokens steered" in first
    assert second.startswith("> Numbers 1 2 target 3\n[1] ")


def test_standard_input_is_a_prompt(model: str) -> None:
    result = esamp("--model", model, "-n", "1", "--max-tokens", "5", "--json", stdin=f"{PROMPT}\n")
    assert result.returncode == 0, result.stderr
    [line] = lines(result.stdout)
    assert line["prompt"] == PROMPT
    assert [sample["tokens"] for sample in line["samples"]] == [5]


@pytest.mark.slow
def test_jsonl_on_standard_input(model: str) -> None:
    prompts = '{"prompt": "Numbers 1 2 target 3"}\n{"id": 2, "messages": [{"role": "user", "content": "target 4"}]}\n'
    result = esamp("--model", model, "--input", "-", "-n", "2", "--max-tokens", "5", "--json", stdin=prompts)
    assert result.returncode == 0, result.stderr
    first, second = lines(result.stdout)
    assert first["prompt"] == "Numbers 1 2 target 3"
    assert second["id"] == "2"
    assert second["prompt"] == [{"role": "user", "content": "target 4"}]
    assert {"steps", "updates", "explained_variance", "kl", "resets"} <= set(first["telemetry"])
    assert first["telemetry"]["rows_steered"] > 0


def test_a_bad_line_is_named_before_the_model_is_loaded(capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    code, out, err = here(capsys, "--model", "missing", "--input", str(path))
    assert (code, out) == (2, "")
    assert err == f'esamp: error: {path}:2: "prompt" should be a text, not 3\n'


@pytest.mark.slow
def test_an_empty_standard_input_is_an_error() -> None:
    result = esamp()
    assert result.returncode == 2
    assert result.stderr == "esamp: error: standard input is empty: it should hold one prompt\n"


def test_the_same_seed_gives_the_same_samples(capsys: Output, model: str) -> None:
    def texts(*more: str) -> list[str]:
        code, out, err = here(capsys, PROMPT, "--model", model, "-n", "2", "--max-tokens", "20", "--json", *more)
        assert code == 0, err
        return [sample["text"] for sample in lines(out)[0]["samples"]]

    first = texts()
    assert texts() == first
    assert first[0] != first[1]
    assert texts("--seed", "1") != first
    assert texts("--method", "vanilla") == texts("--beta", "0")


def test_options_reach_the_method_and_the_sampler(capsys: Output, model: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    given = {"--preset": "paper", "--beta": "0.1", "--method-seed": "3", "--top-k": "5", "--dtype": "float32"}
    flags = ["--no-gate", "--keep-end", *(word for pair in given.items() for word in pair)]
    code, _, err = here(capsys, PROMPT, "--model", model, "-n", "1", "--max-tokens", "4", "--output", str(path), *flags)
    assert code == 0, err
    settings = lines(path.read_text())[0]["settings"]
    options, sampling = settings["options"], settings["sampling"]
    assert (options["distiller"], options["beta"], options["keep_end"], options["seed"]) == ("mlp", 0.1, True, 3)
    assert (sampling["top_k"], settings["dtype"]) == (5, "float32")


def test_chat_makes_a_message_of_the_prompt(capsys: Output, model: str) -> None:
    code, out, _ = here(capsys, "target 4", "--chat", "--model", model, "-n", "1", "--max-tokens", "3", "--json")
    assert code == 0
    assert lines(out)[0]["prompt"] == [{"role": "user", "content": "target 4"}]


def test_a_failed_prompt_is_named_by_its_first_words(capsys: Output, model: str, tmp_path: Path) -> None:
    long = "Numbers " + "7 " * 5000
    (tmp_path / "in.jsonl").write_text(f'{{"prompt": "{long}"}}\n{{"id": "mine", "prompt": "{long}"}}\n')
    code, out, err = here(capsys, "--input", str(tmp_path / "in.jsonl"), "--model", model, "-n", "1", "--json")
    assert code == 1
    assert 'prompt "Numbers 7 7 7 7 7 ' in err
    assert "request 'mine': " in err
    assert lines(out)[0]["id"] not in err
    code, out, err = here(capsys, long, "--model", model, "-n", "1")
    assert code == 2
    assert 'esamp: error: prompt "Numbers 7 7 7 ' in err


def test_a_long_prompt_is_a_heading_of_one_screen_line_or_few(capsys: Output, model: str) -> None:
    code, out, _ = here(capsys, "target " * 200, "--model", model, "-n", "1", "--max-tokens", "3")
    assert code == 0
    assert out.startswith("> target target ")
    assert len(out.splitlines()[0]) <= 2 + 240
    assert out.splitlines()[0].endswith("target …")


def test_a_missing_model_is_an_error(capsys: Output, tmp_path: Path) -> None:
    code, out, err = here(capsys, PROMPT, "--model", str(tmp_path / "none"))
    assert (code, out) == (2, "")
    assert err.startswith("esamp: error: model ")
    assert err.count("\n") == 1


def test_a_method_that_cannot_act_is_an_error(capsys: Output, model: str) -> None:
    code, out, err = here(capsys, PROMPT, "--model", model, "-n", "2", "--max-tokens", "8", "--warmup", "1000")
    assert (code, out) == (1, "")
    assert "method 'esamp' should have acted" in err
    assert err.count("esamp: error:") == 1


def test_samples_cannot_control_the_terminal(capsys: Output, model: str) -> None:
    code, out, _ = here(capsys, "\x1b]0;[red]title\x07", "--model", model, "-n", "1", "--max-tokens", "3")
    assert code == 0
    assert out.startswith("> \\x1b]0;[red]title\\x07\n")
    assert "\x1b" not in out


def test_a_closed_pipe_ends_the_command_quietly(model: str) -> None:
    prompts = [f"Numbers {number} target 9" for number in range(100)]
    command = [*COMMAND, "--model", model, "-n", "2", "--max-tokens", "5", *prompts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "> Numbers 0 target 9\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_on_a_terminal_samples_are_wrapped_and_not_padded(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    sample = Sample(0, "\n" + "word " * 20 + "\n\x1b[2Jnext [bold]\n", (1, 2, 3), "length")
    sample_text.print_text(
        Completion(Request("id", "a prompt"), (sample,), 2, 1.0, {"updates": 2.0, "kl": float("nan")})
    )
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert shown[:3] == ["> a prompt", "[1] " + "word " * 6 + "word", "    " + "word " * 6 + "word"]
    assert shown[4:6] == ["    \\x1b[2Jnext [bold]", "1 sample, 3 tokens in 1.0 s, 1 cut off,"]
    assert all(line == line.rstrip() and len(line) <= 40 for line in shown)


def test_the_embedded_model_is_the_default(capsys: Output) -> None:
    code, out, err = here(capsys, PROMPT, "-n", "8", "--json")
    assert code == 0, err
    [line] = lines(out)
    assert any("Answer:" in sample["text"] for sample in line["samples"])
    assert line["telemetry"]["explained_variance"] > 0


@pytest.mark.slow
def test_the_progress_bar_needs_a_terminal(model: str) -> None:
    leader, follower = pty.openpty()
    command = [*COMMAND, PROMPT, "--model", model, "-n", "2", "--max-tokens", "200", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=follower, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other end of a terminal that is gone
                break
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(leader)
    assert process.returncode == 0
    assert b"tok/s" in shown
    assert b"ETA" in shown
    assert b"0/2" in shown
    assert len(lines(out.decode())) == 1


# ---- runs that are interrupted

RUN = ("-n", "2", "--max-tokens", "16", "--batch-rows", "2")
"""One prompt after the other, each in the time that a few dozen steps take."""
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from esamp.cli import main
sys.exit(main())
"""


def started(model: str, source: Path, output: Path) -> "subprocess.Popen[str]":
    """A run that has finished two prompts or more."""
    files = ("--input", str(source), "--output", str(output))
    command = [sys.executable, "-c", INTERRUPTIBLE, "generate", *files, "--model", model, *RUN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (output.exists() and output.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def without_times(path: Path) -> list[dict[str, Any]]:
    found = [{key: value for key, value in line.items() if key != "seconds"} for line in lines(path.read_text())]
    for line in found:
        line["cost"] = {key: value for key, value in line["cost"].items() if key != "seconds"}
    return found


@pytest.mark.slow
def test_a_killed_run_can_be_continued(capsys: Output, model: str, tmp_path: Path) -> None:
    source, output, whole = write_prompts(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    process = started(model, source, output)
    process.kill()
    process.communicate()
    before = output.read_bytes()
    assert 2 <= before.count(b"\n") < 10
    output.write_bytes(before[: before.rindex(b"\n", 0, -1) + 40])  # as if it had been killed while it wrote
    flags = ["--input", str(source), "--model", model, *RUN]
    code, out, err = here(capsys, *flags, "--output", str(output))
    assert (code, out) == (0, "")
    assert f"warning: the last line of {output} was cut off" in err
    assert f"10 prompts done in {output}" in err
    assert here(capsys, *flags, "--output", str(whole))[0] == 0
    assert without_times(output) == without_times(whole)


@pytest.mark.slow
def test_an_interrupted_run_can_be_continued(capsys: Output, model: str, tmp_path: Path) -> None:
    source, output = write_prompts(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl"
    process = started(model, source, output)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert output.read_bytes().endswith(b"\n")
    done = output.read_bytes().count(b"\n")
    told = f"esamp: interrupted; {done} of 10 prompts are in {output}: the same command continues it\n"
    assert (out, err) == ("", told)
    code, _, err = here(capsys, "--input", str(source), "--output", str(output), "--model", model, *RUN)
    assert code == 0
    assert f"10 prompts done in {output}, {done} of them before this run\n" in err


@pytest.mark.slow
def test_a_second_process_on_the_file_is_refused(capsys: Output, model: str, tmp_path: Path) -> None:
    source, output = write_prompts(tmp_path / "in.jsonl", 100), tmp_path / "out.jsonl"
    process = started(model, source, output)
    code, _, err = here(capsys, PROMPT, "--model", model, "--output", str(output))
    process.kill()
    process.communicate()
    assert code == 2
    assert f"{output} is being written by another process" in err


def test_other_settings_on_the_file_are_refused(capsys: Output, model: str, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    flags = [PROMPT, "--model", model, "-n", "1", "--max-tokens", "4", "--output", str(output)]
    assert here(capsys, *flags)[0] == 0
    assert here(capsys, *flags)[2].endswith("1 of them before this run\n")
    code, _, err = here(capsys, *flags, "--beta", "1")
    assert code == 2
    assert "options.beta = 0.5 there, 1.0 here" in err
