"""The documentation site builds without a warning, and each public name is in its reference."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import esamp

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is built from, so that the build leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(root / "mkdocs.yml", folder)
    for name in ("docs", "src"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


def test_the_site_builds_strictly_and_refers_to_every_public_name(source: Path) -> None:
    done = build(source)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (source / "build" / "site" / "reference.html").read_text()
    written = set(re.findall(r'id="(esamp\.\w+)"', page))
    assert {f"esamp.{name}" for name in esamp.__all__} <= written
    assert "strength of the state and contrast signals" in page  # what an option does, from its declaration


def test_every_page_is_in_the_navigation(source: Path) -> None:
    named = set(re.findall(r"[\w-]+\.md", (source / "mkdocs.yml").read_text()))
    assert {path.name for path in (source / "docs").glob("*.md")} == named


def test_a_broken_link_fails_the_build(source: Path) -> None:
    page = source / "docs" / "choices.md"
    text = page.read_text()
    page.write_text(f"{text}\n[broken](nowhere.md)\n")
    try:
        assert build(source).returncode != 0
    finally:
        page.write_text(text)


def test_the_site_asks_no_other_server_for_fonts(source: Path) -> None:
    assert "fonts.googleapis" not in (source / "build" / "site" / "index.html").read_text()
