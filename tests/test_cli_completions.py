"""Tab completion: commands, every flag, names of methods and choices, through a real bash."""

import shutil
import subprocess
import sys

import pytest

from esamp.cli import COMMANDS
from esamp.cli.completions_run import SCRIPTS, candidates
from esamp.cli.flags import flags_of
from esamp.cli.generate import command as generate
from esamp.methods import registry


def test_the_first_word_is_a_command() -> None:
    assert set(COMMANDS) < set(candidates([""]))
    assert candidates(["do"]) == ["doctor"]
    assert candidates(["study", "r"]) == ["run", "report"]


def test_every_flag_of_every_method_is_known() -> None:
    known = set(candidates(["generate", "-"]))
    for name in registry.names():
        for flag in flags_of(generate, name):
            assert set(flag.declaration.split("/")) <= known, flag.declaration
    assert {"--model", "--raw", "--temperature", "--help-method", "--json", "--help", "-n"} <= known
    assert candidates(["study", "run", "study.toml", "--dr"]) == ["--dry-run"]


@pytest.mark.parametrize("flag", ["--method", "--help-method"])
def test_methods_are_completed_where_one_is_named(flag: str) -> None:
    assert candidates(["generate", "a prompt", flag, "esamp_n"]) == ["esamp_noise"]
    assert candidates(["methods", "xt"]) == ["xtc"]


def test_choices_are_completed_and_files_are_left_to_the_shell() -> None:
    assert candidates(["generate", "--distiller", ""]) == ["rls", "mlp", "mean"]
    assert candidates(["generate", "--input", "pro"]) == []
    assert candidates(["generate", "pro"]) == []
    assert candidates(["generate", "--gate", "--be"]) == [
        "--beam-groups",
        "--beam-diversity",
        "--beam-length-penalty",
        "--beta",
    ]
    assert candidates(["nothing", "-"]) == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_shell_accepts_its_script(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([program, "-n", "-c", SCRIPTS[shell]], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_a_line() -> None:
    line = f"""
        esamp() {{ {sys.executable} -m esamp.cli "$@"; }}
        eval "$(esamp completions bash)"
        COMP_WORDS=(esamp generate "two words" --help-me) COMP_CWORD=3
        _esamp
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("--help-method\n", "")
