"""The command that installs an extra is one that works for the copy that is running."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from esamp import extras


class Installed:
    """A distribution as pip records it."""

    def __init__(self, origin: object) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


def test_a_copy_from_an_index_is_extended_from_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(None))
    assert extras.install_command("figures", "metrics") == "pip install 'esamp[figures,metrics]'"
    assert extras.install_command() == "pip install esamp"


def test_an_editable_copy_is_extended_from_its_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    told = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(told))
    assert extras.install_command("metrics") == "pip install 'esamp[metrics]'"  # the clone is gone
    (clone / "pyproject.toml").touch()
    assert extras.install_command("metrics") == f"pip install -e '{clone}[metrics]'"


def test_a_copy_without_metadata_is_taken_from_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", missing)
    assert extras.install_command("metrics") == "pip install 'esamp[metrics]'"
