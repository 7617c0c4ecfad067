"""A study is refused before it runs if packages for its report are missing."""

import sys
from pathlib import Path

import pytest

from esamp.cli import main
from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command
from esamp.metrics.embedding import DEFAULT_MODEL, is_local
from esamp.study import config
from esamp.study.requirements import check_report

TOML = """
name = "small"
groups = [1]
sampling = { max_tokens = 4 }
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
limit = 1
[[methods]]
method = "vanilla"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(TOML)
    return path


def lack(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_missing_packages_error_names_all_of_them_and_one_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = config.read(file)
    check_report(study)
    lack(monkeypatch, "sentence_transformers", "wordfreq", "matplotlib")
    with pytest.raises(MissingDependencyError) as error:
        check_report(study)
    for words in (
        "sentence-transformers and wordfreq and matplotlib",
        install_command("figures", "metrics"),
        "--no-report-check",
    ):
        assert words in str(error.value)


def test_packages_of_measures_that_are_left_out_are_not_required(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "sentence_transformers", "wordfreq")
    file.write_text('embedder = "none"\nwords = false\n' + TOML)
    check_report(config.read(file))
    file.write_text(TOML)
    check_report(config.read(file), texts=False)
    file.write_text('embedder = "none"\n' + TOML)
    with pytest.raises(MissingDependencyError, match=r"needs wordfreq: .*words = false"):
        check_report(config.read(file))


def test_an_embedding_model_that_cannot_be_loaded_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert is_local(str(tmp_path / "folder"))
    assert is_local(DEFAULT_MODEL)
    assert not is_local("no/such/model/at all")
    file.write_text('embedder = "no/such/model/at all"\n' + TOML)
    with pytest.raises(InputError, match=r"the report of this study would fail: .*no/such/model"):
        check_report(config.read(file))


def test_run_checks_the_report_before_loading_a_model(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack(monkeypatch, "wordfreq")
    given = ["study", "run", str(file), "--store", str(file.parent / "store")]
    assert main(given) != 0
    assert install_command("metrics") in " ".join(capsys.readouterr().err.split())
    assert not list((file.parent / "store").glob("cells/*"))
    assert main([*given, "--dry-run"]) != 0
    assert main([*given, "--dry-run", "--no-report-check"]) == 0
    assert main([*given, "--no-report-check"]) == 0
    assert list((file.parent / "store").glob("cells/*/records.jsonl"))
