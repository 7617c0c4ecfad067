"""A method in a package of somebody else's: no line of ours changes, and it runs like our own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

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
"""Methods of a package that knows esamp; esamp does not know it."""

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
    """Keeps tokens whose number is a multiple of `modulus`."""

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
    """Cools the sampler."""

    name = "their_choice"
    summary = "half the temperature"
    citation = "Them 2030"
    options = OnlyEvenOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        return sampling.replace(temperature=0.5)


def nothing() -> None:
    """Is no method."""
'''

USE = """
import json
from dataclasses import replace

import torch

torch.set_num_threads(1)  # tiny models; threads that wait for each other take the cores from whatever else runs
from esamp import HFEngine, Request, Sampling
from esamp.errors import OptionError
from esamp.methods import registry

told = {"names": registry.names(), "kinds": {}, "tokens": {}, "telemetry": {}, "errors": {}}
engine = HFEngine.load()
asked = Request("r", "Numbers 3 5 8 9 target 24", n=3, sampling=Sampling(max_tokens=6))
cases = {
    "theirs": dict(modulus=2),
    "esamp+theirs": dict(modulus=3, beta=1.0),
    "theirs+fire+xtc": dict(fire_k=90, xtc_threshold=0.2),
    "their_choice": {},
    "theirs+min_p": {},
}
for name, options in cases.items():
    method = registry.get(name)
    request = replace(asked, method=name, options=method.options(**options))
    [completion] = engine.generate([request])
    told["kinds"][name] = method.kind
    told["tokens"][name] = [sample.token_ids for sample in completion.samples]
    told["telemetry"][name] = dict(completion.telemetry)
told["cooled"] = replace(asked, method="their_choice").own_sampling.temperature
for name in ("broken", "esamp+broken", "theirs+theirs", "theirs+their_choice"):
    try:
        registry.get(name)
    except OptionError as error:
        told["errors"][name] = str(error)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Any]:
    """What a process says in whose environment their package is installed, as pip builds and installs it."""
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


def test_installed_methods_are_listed_with_their_kinds(told: dict[str, Any]) -> None:
    assert {"theirs", "their_choice", "esamp", "xtc"} <= set(told["names"])
    assert told["kinds"] == {
        "theirs": "filter",
        "esamp+theirs": "combination",
        "theirs+fire+xtc": "combination",
        "their_choice": "sampler",
        "theirs+min_p": "combination",
    }


def test_the_engine_runs_installed_methods_and_their_combinations(told: dict[str, Any]) -> None:
    for name, modulus in (("theirs", 2), ("esamp+theirs", 3), ("theirs+fire+xtc", 2), ("theirs+min_p", 2)):
        samples = told["tokens"][name]
        assert len(samples) == 3
        assert all(token % modulus == 0 for tokens in samples for token in tokens), name
    assert any(token % 2 for tokens in told["tokens"]["their_choice"] for token in tokens)
    assert told["cooled"] == 0.5


def test_telemetry_counts_the_rows_of_installed_methods(told: dict[str, Any]) -> None:
    rows = sum(map(len, told["tokens"]["theirs"]))
    assert told["telemetry"]["theirs"]["rows"] == rows
    assert told["telemetry"]["theirs"]["rows_steered"] == rows
    together = told["telemetry"]["esamp+theirs"]
    assert together["rows_filtered"] == sum(map(len, told["tokens"]["esamp+theirs"]))
    assert together["rows"] == together["rows_filtered"] - 3  # a sample's first token is none of ESamp's
    assert told["telemetry"]["their_choice"] == {}


def test_errors_name_the_broken_or_conflicting_method(told: dict[str, Any]) -> None:
    errors = told["errors"]
    assert set(errors) == {"broken", "esamp+broken", "theirs+theirs", "theirs+their_choice"}
    for name in ("broken", "esamp+broken"):
        assert "their_methods:nothing is no esamp Method; ask the package that installed it" in errors[name]
    assert "both have an option 'modulus'" in errors["theirs+their_choice"]


def test_methods_of_a_package_that_is_not_installed_are_absent() -> None:
    from esamp.methods import registry

    assert "theirs" not in registry.names()
