"""Studies and stores from other people or edited by hand: one error with its place, and reports without markup."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esamp.analysis.measurement import read_count
from esamp.cli import main
from esamp.errors import InputError
from esamp.report.markdown import cell, markdown_table
from esamp.study import config
from esamp.study.grid import cells
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.run import load_tasks, run
from esamp.study.store import Store
from support.scripted_judges import finished

Output = pytest.CaptureFixture[str]
Edit = Callable[[dict[str, Any]], object]

LABELS = (
    "[click](javascript:alert(1))",
    "![pixel](https://tracker.example/p.png)",
    "<img src=x onerror=alert(1)>",
    r"\u001b]0;title\u0007\u202ereversed\u009b2J\rover",
    "[/INST] [red]bold[/red]",
    "a | b `code",
)
"""Labels with markup and control characters, as written in a TOML file."""


def text(number: int, index: int) -> str:
    return f"answer {number} {index}"


def flags_of_finished_study(folder: Path, *labels: str) -> list[str]:
    """Flags for a finished study with these labels whose report needs no model."""
    file = finished(folder, dict.fromkeys(labels or ("one", "two"), text), problems=2)
    plain = 'embedder = "none"\nwords = false\nlikelihood = false\n'
    file.write_text(file.read_text().replace("[[models]]", f"{plain}[[models]]", 1))
    return [str(file), "--store", str(folder / "store")]


def report(flags: list[str], folder: Path) -> int:
    return main(["study", "report", *flags, "--out", str(folder / "report"), "--no-figures"])


def records(flags: list[str], place: int = 0) -> Path:
    cell = list(cells(config.read(Path(flags[0]))))[place]
    return Path(flags[-1]) / "cells" / cell.key / "records.jsonl"


# ---- records


def sample(name: str, value: Any) -> Edit:
    return lambda line: line["samples"][1].update({name: value})


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda line: line["samples"].pop(), "it has 2 samples of 3"),
        (lambda line: line["samples"].append(line["samples"][0]), "it has 4 samples of 3"),
        (lambda line: line.update(samples=[]), "its samples is"),
        (lambda line: line.update(samples={"a": 1}), "its samples is {'a': 1}"),
        (lambda line: line.pop("samples"), "it has no samples"),
        (sample("tokens", 10**400), "its samples.1.tokens is an integer of 1,329 bits"),
        (sample("tokens", -1), "its samples.1.tokens is -1"),
        (sample("tokens", True), "its samples.1.tokens is True"),
        (sample("tokens", "5"), "its samples.1.tokens is '5'"),
        (sample("correct", 1), "its samples.1.correct is 1"),
        (sample("text", 7), "its samples.1.text is 7"),
        (sample("token_ids", [1, "x"]), "its samples.1.token_ids.1 is 'x'"),
        (sample("logprob", float("nan")), "its samples.1.logprob is nan"),
        (sample("colour", "red"), "its samples.1.colour is 'red'"),
        (sample("trace", {"kl": [0.5, 0.5]}), "its samples.1.trace does not have one value per token"),
        (lambda line: line.update(cost=[]), "its cost is []"),
        (lambda line: line["cost"].update(tokens=10**400), "its cost.tokens is"),
        (lambda line: line["cost"].update(tokens=float("inf")), "its cost.tokens is inf"),
        (lambda line: line["cost"].pop("seconds"), "its cost has no seconds"),
        (lambda line: line["telemetry"].update(kl="much"), "its telemetry.kl is 'much'"),
        (lambda line: line.update(item=None), "its item is None"),
    ],
)
def test_an_edited_record_is_one_error_with_its_place(
    edit: Edit, sentence: str, tmp_path: Path, capsys: Output
) -> None:
    flags = flags_of_finished_study(tmp_path)
    path = records(flags, 1)
    first, second = path.read_text().splitlines()
    values = json.loads(second)
    edit(values)
    path.write_text(f"{first}\n{json.dumps(values)}\n")
    for command in (lambda: main(["study", "status", *flags]), lambda: report(flags, tmp_path)):
        assert command() == 2
        message = capsys.readouterr().err
        assert f"{path}:2: {sentence}" in message
        assert "delete that line" in message
        assert len(message) < 500
    path.write_text(f"{first}\n{second}\n")  # with the original record, everything works again
    assert report(flags, tmp_path) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"share": "half"}, "'half' is not a measurement"),
        ({"share": 10**400}, "an integer of 1,329 bits is not a measurement"),
        ({"share": float("nan")}, "nan is not a measurement"),
        ({"n": 2}, "it is of 2 samples, not of 3"),
        ({"n": None}, "it is of None samples, not of 3"),
    ],
)
def test_an_edited_measurement_is_one_error_with_its_place(
    change: dict[str, Any], sentence: str, tmp_path: Path, capsys: Output
) -> None:
    pytest.importorskip("wordfreq", reason="wordfreq is not installed: pip install 'esamp[metrics]'")
    flags = flags_of_finished_study(tmp_path)
    file = Path(flags[0])
    file.write_text(file.read_text().replace("words = false", "words = true"))
    assert report(flags, tmp_path) == 0
    [path] = records(flags).parent.glob("nonwords-*.jsonl")
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    capsys.readouterr()
    assert report(flags, tmp_path) == 2
    assert f"{path}:2: {sentence}: delete that line, and it is measured again" in capsys.readouterr().err
    path.write_text(f"{first}\n{second[:40]}")
    assert report(flags, tmp_path) == 0
    assert f"warning: the last line of {path} was cut off" in capsys.readouterr().err


def test_measurements_of_other_shapes_are_refused() -> None:
    vectors = np.zeros((3, 2), np.float32)
    GroupMeasurements(vectors, own=GroupLikelihoods((1.0,) * 3, (1.0,) * 3, (1,) * 3)).check(3)
    for wrong in (
        GroupMeasurements(vectors[:2]),
        GroupMeasurements(np.full((3, 2), np.nan, np.float32)),
        GroupMeasurements(own=GroupLikelihoods((1.0,) * 2, (1.0,) * 3, (1,) * 3)),
        GroupMeasurements(second=GroupLikelihoods((1.0,) * 3, (1.0,) * 3, (1,) * 4)),
    ):
        with pytest.raises(ValueError, match=r"it does not have one value per sample|its vectors are not valid"):
            wrong.check(3)
    with pytest.raises(ValueError, match="is not a number of tokens"):
        read_count(-1)


@pytest.mark.parametrize("line", [b"[" * 100_000 + b"\n", b'{"key": 1' + b"0" * 5000 + b"}\n", b"null\n", b"\xff\n"])
def test_an_unreadable_line_is_named(line: bytes, tmp_path: Path, capsys: Output) -> None:
    flags = flags_of_finished_study(tmp_path)
    path = records(flags)
    path.write_bytes(line)
    assert main(["study", "status", *flags]) == 2
    assert f"{path}:1 is" in capsys.readouterr().err


def test_a_folder_in_place_of_a_file_is_one_error(tmp_path: Path, capsys: Output) -> None:
    flags = flags_of_finished_study(tmp_path)
    path = records(flags)
    path.unlink()
    path.mkdir()
    for command in (["study", "status", *flags], ["study", "run", *flags]):
        assert main(command) == 2
        assert f"{path}: Is a directory" in capsys.readouterr().err
    path.rmdir()
    (path.parent / "cell.json").unlink()
    path.parent.rmdir()
    path.parent.write_text("a file in the place of a folder")
    assert main(["study", "status", *flags]) == 0
    assert main(["study", "run", *flags]) == 2
    assert f"cannot create {path.parent}: File exists" in capsys.readouterr().err


def test_a_cut_off_last_line_warns_and_its_group_is_sampled_again(tmp_path: Path, capsys: Output) -> None:
    flags = flags_of_finished_study(tmp_path)
    path = records(flags)
    complete = path.read_bytes()
    path.write_bytes(complete[:-20])
    assert main(["study", "run", *flags]) == 0
    warning = f"warning: the last line of {path} was cut off by an interruption, its group is done again"
    assert warning in capsys.readouterr().err
    assert path.read_bytes().count(b"\n") == complete.count(b"\n")
    assert main(["study", "run", *flags]) == 0
    assert "warning" not in capsys.readouterr().err


# ---- names, numbers and data of a study

STUDY = """name = "s"
seeds = [{seeds}]
groups = [{groups}]
[[models]]
model = "countdown"
[[tasks]]
task = "{task}"
{more}
[[methods]]
method = "vanilla"
{grid}
"""


def write_study(folder: Path, **changes: str) -> str:
    file = folder / "study.toml"
    defaults = {"seeds": "0", "groups": "2", "task": "countdown", "more": "limit = 1", "grid": ""}
    file.write_text(STUDY.format(**defaults | changes))
    return str(file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": "1" * 5000}, "is not a TOML file: Exceeds the limit"),
        ({"seeds": "0x" + "f" * 5000}, "option 'seeds' = an integer of 20,000 bits"),
        ({"groups": "1000000000"}, "option 'groups' = 1000000000: expected a list, each a whole number from 1"),
        ({"more": "limit = " + "1" * 4000}, "option 'limit' = an integer of"),
        ({"more": "x = " + "[" * 5000 + "]" * 5000}, "is not a TOML file"),
        ({"grid": "grid = {" + ", ".join(f"a{n} = [{'0,' * 100}]" for n in range(9)) + "}"}, "combinations are more"),
        ({"task": "math500", "more": 'options = { data = "/dev/zero" }'}, "/dev/zero: it is not a regular file"),
        ({"task": "math500", "more": 'options = { data = "/" }'}, "cannot read /: it is not a regular file"),
        ({"task": "math500", "more": f'options = {{ data = "{"a" * 300}.jsonl" }}'}, "File name too long"),
        ({"task": "continuation", "more": 'options = { data = "/dev/zero" }'}, "/dev/zero: it is not a regular file"),
    ],
    ids=["digits", "hexadecimal", "groups", "limit", "deep", "grid", "device", "folder", "long name", "text"],
)
def test_an_unusable_study_file_is_refused_in_one_sentence(
    changes: dict[str, str], sentence: str, tmp_path: Path, capsys: Output
) -> None:
    file = write_study(tmp_path, **changes)
    assert main(["study", "run", file, "--store", str(tmp_path / "store"), "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1
    assert len(message) < 700


def test_an_endless_study_file_is_refused(capsys: Output) -> None:
    assert main(["study", "run", "/dev/zero", "--dry-run"]) == 2
    assert "cannot read /dev/zero: it is longer than 16 MiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "x", "--output", "{}"],
        ["generate", "--input", "{}"],
        ["study", "run", "{}"],
        ["study", "status", "{study}", "--store", "{}"],
        ["study", "report", "{study}", "--store", "{store}", "--out", "{}", "--no-figures"],
        ["judge", "{study}", "--store", "{store}", "--judge", "j", "--out", "{}", "--dry-run"],
        ["compare", "--page", "{}/page.html"],
        ["generate", "x", "--model", "/{}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_names_of_300_characters_are_one_error(command: list[str], tmp_path: Path, capsys: Output) -> None:
    study, _, store = flags_of_finished_study(tmp_path)
    long = str(tmp_path / ("n" * 300))
    assert main([part.format(long, study=study, store=store) for part in command]) == 2
    assert "File name too long" in capsys.readouterr().err


# ---- labels in reports and on terminals

ACTIVE = re.compile(r"\]\(|\]\[|\]:|!\[|<(?!https?:)[a-z/!]|[^\n\t -\U0010ffff]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Links, images, tags and control characters."""


def test_labels_are_inert_in_reports_and_on_terminals(tmp_path: Path, capsys: Output) -> None:
    flags = flags_of_finished_study(tmp_path, *LABELS)
    for command in (["study", "status"], ["study", "run", "--dry-run"], ["study", "run"]):
        assert main([*command, *flags]) == 0
    assert report(flags, tmp_path) == 0
    printed = capsys.readouterr()
    for shown in (printed.out, printed.err):
        assert not re.search(r"[^\n\t -\U0010ffff]|[\x7f-\x9f\u202a-\u202e]", shown)
    assert "[/INST] [red]bold[/red]" in printed.out
    written = (tmp_path / "report" / "report.md").read_text()
    assert "javascript:alert" in written  # as plain text
    assert not ACTIVE.search(written)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<img" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("[a](javascript:x)", r"[a]\(javascript:x)"),
        ("![a](https://x)", r"!\[a]\(https://x)"),
        ("[a][b]", r"[a]\[b]"),
        ("[a]: https://x", r"[a]\: https://x"),
        ("<script>", "&lt;script>"),
        ("a|b", r"a\|b"),
        ("a\nb\rc\u2028d\x1b", r"a b\rc\u2028d\x1b"),
        ("0.50 [0.40, 0.60]", "0.50 [0.40, 0.60]"),
    ],
)
def test_table_cells_escape_markdown(label: str, shown: str) -> None:
    assert cell(label) == shown
    assert markdown_table(["head"], [[label]]).splitlines()[-1] == f"| {shown} |"


def test_stop_texts_that_look_like_markup_are_printed_literally(tmp_path: Path, capsys: Output) -> None:
    file = write_study(tmp_path, grid='sampling = { stop = ["[/INST]", "[bold]"] }')
    assert main(["study", "run", file, "--store", str(tmp_path / "store"), "--dry-run"]) == 0
    assert "stop=['[/INST]', '[bold]']" in " ".join(capsys.readouterr().out.split())


# ---- keys


def at_server(folder: Path, url: str) -> list[str]:
    file = Path(write_study(folder))
    model = f'model = "m"\nengine = "openai"\nbase_url = "{url}"\nchat = false'
    file.write_text(file.read_text().replace('model = "countdown"', model))
    return ["study", "run", str(file), "--store", str(folder / "store"), "--dry-run", "--no-report-check"]


@pytest.mark.parametrize("address", ["nonsense", "http://a:81/v1", "http://[", ""])
def test_an_address_for_the_key_must_be_one_of_the_study(address: str, tmp_path: Path, capsys: Output) -> None:
    assert main([*at_server(tmp_path, "http://a/v1"), "--send-key-to", address]) == 2
    message = capsys.readouterr().err
    assert f"--send-key-to {address!r}: no model of this study is at this address" in message
    assert "'http://a/v1'" in message


@pytest.mark.parametrize(
    ("environment", "url", "flags", "allowed"),
    [
        ({"OPENAI_API_KEY": "sk-mine"}, "https://stranger.example/v1", [], False),
        ({"OPENAI_API_KEY": "sk-mine"}, "http://api.openai.com/v1", [], False),
        ({"OPENAI_API_KEY": "sk-mine"}, "https://api.openai.com/v1", [], True),
        ({"OPENAI_API_KEY": "sk-mine"}, "https://api.openai.com.stranger.example/v1", [], False),
        ({"OPENAI_API_KEY": "sk-mine", "OPENAI_BASE_URL": "http://a/v1"}, "https://api.openai.com/v1", [], False),
        ({"OPENAI_API_KEY": "sk-mine", "OPENAI_BASE_URL": "http://A:80/v1/"}, "http://a/v1", [], True),
        ({"OPENAI_API_KEY": "sk-mine", "OPENAI_BASE_URL": "http://a/v1"}, "http://a:81/v1", [], False),
        ({"OPENAI_API_KEY": "sk-mine"}, "http://a/v1", ["--send-key-to", "http://a/v1/"], True),
        ({"OPENAI_API_KEY": "sk-mine"}, "http://a/v1", ["--send-key-to", "http://b/v1"], False),
        ({}, "https://stranger.example/v1", [], True),
    ],
)
def test_the_key_is_sent_only_to_servers_that_the_environment_or_a_flag_names(
    environment: dict[str, str],
    url: str,
    flags: list[str],
    allowed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [*at_server(tmp_path, url), *flags]
    assert main(command) == (0 if allowed else 2)
    message = capsys.readouterr().err
    assert allowed or f"[[models]] number 1: base_url = '{url}': only the file names this server" in message
    assert allowed or "--send-key-to" in message
    assert os.environ.get("OPENAI_API_KEY", "sk-mine") not in message
    if not allowed:  # the run itself refuses too
        study = config.read(Path(command[2]))
        with pytest.raises(InputError, match="only the file names this server"):
            run(study, Store(tmp_path / "store"), load_tasks(study), on_cell=lambda cell, groups: pytest.fail("it ran"))
