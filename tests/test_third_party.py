"""A method from another package, found by its entry point, runs like the built-in ones."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # builds and installs a package

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "their-methods"
version = "1.0"

[project.entry-points."esamp.methods"]
theirs = "their_methods:OnlyEven"
their_choice = "their_methods:Chosen"
broken = "their_methods:nothing"

[tool.hatch.build.targets.wheel]
only-include = ["their_methods.py"]
"""

MODULE = '''
"""Decode methods of another package."""

from typing import Self

import torch
from pydantic import Field
from torch import Tensor

from esamp.methods.base import LateFilter, Method, ModelShape
from esamp.options import Options, narrowed
from esamp.sampling import Sampling
from esamp.decoding.step import Rows


class OnlyEvenOptions(Options):
    """Options of OnlyEven."""

    modulus: int = Field(2, ge=1, le=9)
    """keep tokens that this number divides"""


class OnlyEven(LateFilter):
    """Keeps tokens whose id is a multiple of `modulus`."""

    name = "theirs"
    summary = "only even tokens"
    citation = "Them 2030"
    options = OnlyEvenOptions

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        return cls(narrowed(options, OnlyEvenOptions).modulus)

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        odd = torch.arange(logits.shape[1], device=logits.device) % self.modulus != 0
        return logits.masked_fill(odd, float("-inf"))


class Chosen(Method):
    """Sets the temperature to 0.5."""

    name = "their_choice"
    summary = "half the temperature"
    citation = "Them 2030"
    options = OnlyEvenOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        return sampling.replace(temperature=0.5)


def nothing() -> None:
    """Not a method."""
'''

USE = """
import json
from dataclasses import replace

import torch

torch.set_num_threads(1)  # the models are tiny, and threads that wait for each other occupy cores
from esamp import HFEngine, Request, Sampling
from esamp.errors import OptionError
from esamp.methods import registry

report = {"names": registry.names(), "kinds": {}, "tokens": {}, "telemetry": {}, "errors": {}}
engine = HFEngine.load()
base_request = Request("r", "Numbers 3 5 8 9 target 24", n=3, sampling=Sampling(max_tokens=6))
cases = {
    "theirs": dict(modulus=2),
    "esamp+theirs": dict(modulus=3, beta=1.0),
    "theirs+fire+xtc": dict(fire_k=90, xtc_threshold=0.2),
    "their_choice": {},
    "theirs+min_p": {},
}
for name, options in cases.items():
    method = registry.get(name)
    request = replace(base_request, method=name, options=method.options(**options))
    [completion] = engine.generate([request])
    report["kinds"][name] = method.kind
    report["tokens"][name] = [sample.token_ids for sample in completion.samples]
    report["telemetry"][name] = dict(completion.telemetry)
report["cooled"] = replace(base_request, method="their_choice").own_sampling.temperature
for name in ("broken", "esamp+broken", "theirs+theirs", "theirs+their_choice"):
    try:
        registry.get(name)
    except OptionError as error:
        report["errors"][name] = str(error)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Any]:
    """The report of a process in whose environment pip has installed the package."""
    project, site = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("site")
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "their_methods.py").write_text(textwrap.dedent(MODULE))
    quiet = ["-q", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(site), str(project)]
    subprocess.run(install, check=True, timeout=200)
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", textwrap.dedent(USE)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_installed_methods_are_listed_with_their_kinds(report: dict[str, Any]) -> None:
    assert {"theirs", "their_choice", "esamp", "xtc"} <= set(report["names"])
    assert report["kinds"] == {
        "theirs": "filter",
        "esamp+theirs": "combination",
        "theirs+fire+xtc": "combination",
        "their_choice": "sampler",
        "theirs+min_p": "combination",
    }


def test_the_engine_runs_installed_methods_and_their_combinations(report: dict[str, Any]) -> None:
    for name, modulus in (("theirs", 2), ("esamp+theirs", 3), ("theirs+fire+xtc", 2), ("theirs+min_p", 2)):
        samples = report["tokens"][name]
        assert len(samples) == 3
        assert all(token % modulus == 0 for tokens in samples for token in tokens), name
    assert any(token % 2 for tokens in report["tokens"]["their_choice"] for token in tokens)
    assert report["cooled"] == 0.5


def test_telemetry_counts_the_rows_of_installed_methods(report: dict[str, Any]) -> None:
    rows = sum(map(len, report["tokens"]["theirs"]))
    assert report["telemetry"]["theirs"]["rows"] == rows
    assert report["telemetry"]["theirs"]["rows_steered"] == rows
    together = report["telemetry"]["esamp+theirs"]
    assert together["rows_filtered"] == sum(map(len, report["tokens"]["esamp+theirs"]))
    assert together["rows"] == together["rows_filtered"] - 3  # ESamp does not act on a sample's first token
    assert report["telemetry"]["their_choice"] == {}


def test_errors_name_the_broken_or_conflicting_method(report: dict[str, Any]) -> None:
    errors = report["errors"]
    assert set(errors) == {"broken", "esamp+broken", "theirs+theirs", "theirs+their_choice"}
    for name in ("broken", "esamp+broken"):
        assert "their_methods:nothing is not an esamp Method; ask the package that installed it" in errors[name]
    assert "both have an option 'modulus'" in errors["theirs+their_choice"]


def test_methods_of_a_package_that_is_not_installed_are_absent() -> None:
    from esamp.methods import registry

    assert "theirs" not in registry.names()
