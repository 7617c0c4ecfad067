"""Help, versions and wrong flags are answered without the libraries that take seconds to import."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import esamp
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
    assert {*esamp.__all__, "__version__"} <= set(dir(esamp))
    for name in ("ESampConfig", "Sampling", "Request", "HFEngine", "explore", "answer"):
        assert getattr(esamp, name).__module__.startswith("esamp.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(esamp, "nothing")  # noqa: B009


def test_declared_options_are_those_of_the_methods() -> None:
    declared = registry.option_classes()
    assert declared == {name: method.options for name, method in registry.available().items()}
