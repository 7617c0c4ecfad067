"""The command line itself: help, flags derived from options, one-line errors, `esamp doctor`."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from esamp.cli import COMMANDS, main
from esamp.cli.flags import FlagGroup, value_of, with_flags
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.extras import install_command
from esamp.options import Options, allowed
from esamp.quoting import first_words, one_line, printable
from esamp.runs.job import RunOptions
from esamp.sampling import Sampling

Output = pytest.CaptureFixture[str]


def esamp(capsys: Output, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    code = main(arguments)
    return code, *capsys.readouterr()


def flat(text: str) -> str:
    """A help page as one line of words: without columns and line breaks."""
    return " ".join(text.split())


# ---- the application


def test_help_lists_the_commands_without_importing_them() -> None:
    code = (
        "import sys\nfrom esamp.cli import main\n"
        "assert main([{}]) == 0\n"
        "heavy = {{'torch', 'transformers', 'numpy'}} & set(sys.modules)\nassert not heavy, heavy"
    )
    for argument in ("'--help'", "'--version'", ""):
        result = subprocess.run(
            [sys.executable, "-c", code.format(argument)], capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)
    assert all(summary in flat(result.stdout) for summary in COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys: Output, name: str) -> None:
    code, out, err = esamp(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert f"esamp {name}" in out


def test_help_fits_a_narrow_terminal(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = esamp(capsys, "generate", "--help")[1]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_help_use_flags_that_exist(capsys: Output, name: str) -> None:
    page = esamp(capsys, name, "--help")[1]
    for example in re.findall(r"^ {4}esamp (.*)$", page, re.MULTILINE):
        code, out, err = esamp(capsys, *shlex.split(example), "--help")
        assert (code, err) == (0, ""), example
        assert out == page


def test_version_is_one_line(capsys: Output) -> None:
    code, out, _ = esamp(capsys, "--version")
    assert code == 0
    assert out.startswith("esamp ")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'"),
        (["generat"], "Did you mean 'generate'?"),
        (["--nope"], "No such option: --nope"),
        (["generate", "x", "--nope", "1"], "No such option: --nope"),
        (["generate", "x", "--beta"], "Option '--beta' requires an argument"),
        (["generate", "x", "--gate=3"], "Option '--gate' does not take a value"),
        (["generate", "x", "--beta", "nan"], "option 'beta' = nan: expected a number from 0 to 16"),
        (["generate", "x", "--beta", "inf"], "option 'beta' = inf: expected a number from 0 to 16"),
        (["generate", "x", "--beta", "17"], "option 'beta' = 17.0: expected a number from 0 to 16"),
        (["generate", "x", "--beta", "much"], "option 'beta' = 'much': expected a number from 0 to 16"),
        (["generate", "x", "--features", "1.5"], "option 'features' = '1.5': expected a whole number from 0 to 8192"),
        (["generate", "x", "--signal", "none"], "option 'signal' = 'none': expected one of 'state', 'contrast'"),
        (["generate", "x", "--top-p", "0"], "option 'top_p' = 0.0: expected a number, above 0, at most 1"),
        (["generate", "x", "-n", "0"], "option 'n' = 0: expected a whole number from 1 to 1000000"),
        (["generate", "x", "--preset", "mine"], "option 'preset' = 'mine': expected one of 'default', 'open'"),
        (["generate", "x", "--source-layer", "2", "--target-layer", "1"], "target_layer = 1 must lie above"),
        (["generate", "x", "--method", "nope"], "unknown method 'nope': choose from "),
        (["generate", "x", "--method", "vanilla", "--beta", "1"], "--beta is no option of method 'vanilla'"),
        (["generate", "x", "--engine", "nope"], "option 'engine' = 'nope': choose from hf"),
        (["generate", "x", "--input", "f"], "give prompts as arguments or by --input, not both"),
        (["generate", "--input", "missing.jsonl"], "cannot read missing.jsonl: No such file"),
        (["generate", "x\udcff"], "prompt 1: contains half a surrogate pair, or bytes that are not UTF-8"),
        (["doctor", "more"], "extra argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys: Output, arguments: list[str], message: str) -> None:
    code, out, err = esamp(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("esamp: error: ")
    assert err.count("\n") == 1
    assert message in err


# ---- flags


@pytest.mark.parametrize("cls", [RunOptions, Sampling, ESampConfig])
def test_every_option_has_a_flag_with_its_help(capsys: Output, cls: type[Options]) -> None:
    page = flat(esamp(capsys, "generate", "--help")[1] + esamp(capsys, "generate", "--help-method", "esamp")[1])
    for name, info in cls.model_fields.items():
        renamed = cls is ESampConfig and name in ("seed", "dtype")
        flag = f"-{name}" if len(name) == 1 else f"--{'method-' * renamed}{name.replace('_', '-')}"
        assert f" {flag} " in page
        assert (info.description or "").split()[0] in page
        if info.annotation in (int, float):
            assert re.sub("a (whole )?number,? ?(from )?", "", allowed(info)).split(",")[0] in page


class First(Options):
    """Options of a method."""

    shared: int = Field(default=1, ge=0)
    """an option of both methods [with brackets]"""
    switch: bool = True
    level: Literal[1, 2] = 1
    maybe: float | None = None
    parts: tuple[int, ...] = Field(default=(), strict=False)
    name: str = "a"


class Second(Options):
    """Options of another method; one has the name of a parameter of the command."""

    shared: int = 5
    extra: str = "x"


class Choice(Options):
    """The choice between the two."""

    method: str = "first"


def parse(**given: Any) -> Options:
    """The options that a command is called with, for these flags."""
    got: list[Options] = []

    @with_flags(
        run=FlagGroup("Run", Choice),
        options=FlagGroup(
            "Method",
            {"first": First, "second": Second},
            choose=lambda parsed: parsed["run"].model_dump()["method"],
            kind="method",
        ),
    )
    def command(run: Choice, options: Options, name: str = "") -> None:
        got.append(options)

    names = ("method", "shared", "switch", "level", "maybe", "parts", "method_name", "extra")
    command(**{**dict.fromkeys(names), "name": "", **given})
    return got[0]


def test_a_flag_that_was_not_given_leaves_the_default() -> None:
    assert parse() == First()
    assert parse().model_fields_set == set()
    assert parse(method="second") == Second()


def test_texts_are_converted_to_the_type_of_the_field() -> None:
    given = parse(shared="3", switch=False, level="2", maybe="0.5", parts=["1", "2"], method_name="b")
    assert given == First(shared=3, switch=False, level=2, maybe=0.5, parts=(1, 2), name="b")


def test_a_flag_of_another_method_is_refused() -> None:
    with pytest.raises(OptionError, match="--extra is no option of method 'first': it belongs to second"):
        parse(extra="y")
    with pytest.raises(OptionError, match="--method-name is no option of method 'second': it belongs to first"):
        parse(method="second", method_name="b")
    assert parse(method="second", shared="7", extra="y") == Second(shared=7, extra="y")


def test_the_error_names_the_method() -> None:
    with pytest.raises(OptionError, match="method 'first': option 'shared' = -1: expected a whole number, at least 0"):
        parse(shared="-1")


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "3", 3),
        (int, "3.5", "3.5"),
        (float, "1e-4", 1e-4),
        (float, "x", "x"),
        (int | None, "4", 4),
        (int | float, "4.5", 4.5),
        (str, "4", "4"),
        (Literal["a", "b"], "b", "b"),
        (Literal["a", "b"], "c", "c"),
        (bool, True, True),
    ],
)
def test_value_of_converts_by_annotation(annotation: Any, text: Any, value: Any) -> None:
    assert value_of(annotation, text) == value
    assert type(value_of(annotation, text)) is type(value)


# ---- what reaches the terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢 🙂 [bold]x[/bold]\n\tnext", "plain ü 漢 🙂 [bold]x[/bold]\n\tnext"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\rb\x08\x7f\x9b31m\x85", "a\\rb\\x08\\x7f\\x9b31m\\x85"),
        ("\u202egnp.exe\u2066 \u2028", "\\u202egnp.exe\\u2066 \\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable_spells_out_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Suggest a name.", '"Suggest a name."'),
        ("Suggest  a\n\x1b[31m.", '"Suggest a \\x1b[31m."'),
        ("Suggest a name for a small café by the sea", '"Suggest a name for …"'),
        ("Suggest a name for  a", '"Suggest a name for a"'),
        ("x" * 100, '"' + "x" * 20 + '…"'),
        ("", '""'),
    ],
)
def test_first_words_are_quoted_and_cut_at_a_word(text: str, shown: str) -> None:
    assert first_words(text, 21) == shown
    assert len(shown) <= 21 + 2


def test_one_line_has_no_line_break() -> None:
    assert one_line("a\nb\x1b") == "a b\\x1b"


# ---- doctor


def test_doctor_prints_what_is_installed(capsys: Output) -> None:
    _, out, err = esamp(capsys, "doctor")
    assert err == ""
    for word in ("torch", "transformers", "cpu", "hf", "countdown", "metrics"):
        assert word in out


def test_doctor_prints_json(capsys: Output) -> None:
    code, out, _ = esamp(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == (0 if found["healthy"] else 1)
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"name", "works", "detail"} == set(found["devices"][0])
    [hf] = [engine for engine in found["engines"] if engine["name"] == "hf"]
    assert hf["works"]
    assert {extra["name"] for extra in found["extras"]} >= {"metrics"}


def test_doctor_names_the_install_command(capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from esamp import doctor
    from esamp.engines.registry import EngineEntry

    entry = EngineEntry("far", "nowhere:Engine", "far away", ("no_such_package",), "far")
    monkeypatch.setattr(doctor, "ENTRIES", {"far": entry})
    monkeypatch.setattr(doctor, "embedded_path", lambda: tmp_path)
    code, out, _ = esamp(capsys, "doctor")
    assert code == 1
    assert f"needs no_such_package: {install_command('far')}" in flat(out)
    assert "no weights in" in flat(out)


def test_a_missing_engine_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from esamp.engines import registry
    from esamp.errors import MissingDependencyError

    entry = registry.EngineEntry("far", "nowhere:Engine", "far away", ("no_such_package",), "far")
    monkeypatch.setattr(registry, "ENTRIES", {"far": entry})
    with pytest.raises(
        MissingDependencyError, match=re.escape(f"engine 'far' needs no_such_package: {install_command('far')}")
    ):
        registry.start("far", None, device="cpu", dtype="auto", batch_rows=1)
