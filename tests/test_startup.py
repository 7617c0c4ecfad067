"""Help, versions and wrong flags are answered without the libraries that take seconds to import."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

import pytest

import esamp
from esamp import plugins
from esamp.cli import COMMANDS
from esamp.methods import registry

HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "vllm", "numpy", "scipy", "sklearn", "matplotlib")
"""Libraries that no help page needs. What they import themselves (datasets, pandas) comes with them."""
PAGES = (
    ["--version"],
    ["--help"],
    *([name, "--help"] for name in COMMANDS),
    *(["study", name, "--help"] for name in ("run", "status", "plan", "report", "tasks")),
)
WRONG = (
    ["nothing"],
    ["generate", "--nothing"],
    ["generate", "text", "--beta", "99"],
    ["generate", "text", "--method", "nothing"],
    ["generate", "text", "--temperature", "-1"],
    ["compare", "text", "--top-p", "2"],
    ["study", "run"],
    ["study", "plan", "study.toml", "--power", "2"],
    ["judge", "study.toml"],
    ["serve", "--slots", "-1"],
    ["demo", "--task", "nothing"],
    ["demo", "--shown", "3"],
    ["bench", "nothing"],
    ["bench", "--model", "smollm2", "--shape", "llama-125m"],
)
"""Commands that are refused for what is on their line."""
SCRIPT = """
import contextlib, io, json, sys
from esamp.cli import main

codes, found = [], {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        codes.append(main(arguments))
    found |= {name: arguments for name in json.loads(sys.argv[2]) if name in sys.modules and name not in found}
print(json.dumps({"codes": codes, "imported": found}))
"""


def run(script: str, *arguments: object) -> Any:
    """What a script prints as JSON in a process of its own."""
    command = [sys.executable, "-c", script, *map(json.dumps, arguments)]
    environment = os.environ | {"COLUMNS": "100"}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(("lines", "code"), [(PAGES, 0), (WRONG, 2)], ids=["help", "wrong flags"])
def test_no_heavy_library_is_imported(lines: tuple[list[str], ...], code: int) -> None:
    told = run(SCRIPT, lines, HEAVY)
    assert told["imported"] == {}  # by name of the library, the first command that imported it
    assert told["codes"] == [code] * len(lines)


def test_the_package_itself_imports_little() -> None:
    script = (
        "import json, sys, esamp\nprint(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))"
    )
    assert run(script, [*HEAVY, "pydantic", "typer", "rich"]) == []


def test_the_public_names_are_listed_and_there() -> None:
    assert {*esamp.__all__, "__version__"} == set(dir(esamp))
    for name in ("ESampConfig", "Sampling", "Request", "HFEngine", "explore", "answer"):
        assert getattr(esamp, name).__module__.startswith("esamp.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(esamp, "nothing")  # noqa: B009


def test_declared_option_classes_are_those_of_the_methods() -> None:
    declared = registry.option_classes()
    assert declared == {name: method.options for name, method in registry.available().items()}


# ---- methods of other packages

THEIR_OPTIONS = """
from pydantic import Field
from esamp.options import Options

class TheirOptions(Options):
    their_strength: int = Field(2, ge=1, le=9)
"""
THEIR_METHOD = """
from esamp.methods.base import Method
from {package}.options import TheirOptions

class Theirs(Method):
    name, summary, citation, options = "theirs", "a method", "Them 2030", TheirOptions
"""
METHOD = EntryPoint("theirs", "one_package.method:Theirs", registry.GROUP)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Two packages with a method each; the fixture's value installs entry points."""
    packages = ("one_package", "other_package")
    for package in packages:
        (tmp_path / package).mkdir()
        (tmp_path / package / "options.py").write_text(THEIR_OPTIONS)
        (tmp_path / package / "method.py").write_text(THEIR_METHOD.format(package=package))
    monkeypatch.syspath_prepend(str(tmp_path))

    def declare(*points: EntryPoint) -> None:
        def found(group: str) -> EntryPoints:
            return EntryPoints([*entry_points(group=group), *(point for point in points if point.group == group)])

        monkeypatch.setattr(plugins, "entry_points", found)
        plugins.forget()
        registry.get.cache_clear()

    yield declare
    plugins.forget()
    registry.get.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in packages]:
        del sys.modules[name]


def test_a_method_that_declares_no_options_class_is_imported_for_it(install: Callable[..., None]) -> None:
    install(METHOD)
    assert "their_strength" in registry.option_classes()["theirs"].model_fields
    assert "one_package.method" in sys.modules


def test_a_declared_options_class_spares_the_import_of_the_method(install: Callable[..., None]) -> None:
    install(METHOD, EntryPoint("theirs", "one_package.options:TheirOptions", registry.OPTIONS))
    assert registry.option_classes()["theirs"].__module__ == "one_package.options"
    assert "one_package.method" not in sys.modules


@pytest.mark.parametrize("name", ["theirs", "esamp"])
def test_a_package_cannot_declare_options_of_another_packages_method(install: Callable[..., None], name: str) -> None:
    install(METHOD, EntryPoint(name, "other_package.options:TheirOptions", registry.OPTIONS))
    assert registry.option_classes()[name] is registry.get(name).options


def test_a_method_whose_options_class_cannot_be_imported_is_left_out(install: Callable[..., None]) -> None:
    install(METHOD, EntryPoint("theirs", "one_package.missing:TheirOptions", registry.OPTIONS))
    assert "theirs" not in registry.option_classes()
    assert "esamp" in registry.option_classes()
