"""The installed package agrees with the repository: version, entry points, pinned dependencies, files in the wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
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


def test_wheel_holds_every_file_of_the_package(root: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = root / "src"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} - packed == set()
    assert wheel.stat().st_size < WHEEL_LIMIT
