"""All commands and programs in the README and the guides run as printed.

Shell and Python blocks of a page run from top to bottom in one empty folder, so that a later block may use files of an
earlier one. Commands that set up a clone are replaced by dry runs (`PRELUDE`). A line ``<!-- not run: REASON -->``
precedes a block that cannot run here.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FENCE = re.compile(r"(?ms)^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$")
PRELUDE = """
set -euo pipefail
make() { command make --no-print-directory --directory "$ROOT" --dry-run "$@" >/dev/null; }
git() { :; }
cd() { :; }
pip() { :; }
source() { :; }
"""
SHELL = ("bash", "console", "sh", "shell")


@dataclass(frozen=True)
class Block:
    """One fenced block of code."""

    line: int
    language: str
    code: str
    reason: str | None
    """why the block is not run; None if it is"""

    def command(self, forked: Any) -> list[str]:
        """The command line that runs the block."""
        if self.language == "python":
            command: list[str] = forked.program(self.code)
            return command
        return ["bash", "-c", PRELUDE + re.sub(r"^\$ ", "", self.code, flags=re.MULTILINE)]


def blocks(text: str) -> list[Block]:
    """The shell and Python blocks of a Markdown text in their order."""
    return [
        Block(text[: found.start("code")].count("\n") + 1, found["language"], found["code"], found["reason"])
        for found in FENCE.finditer(text)
        if found["language"] in (*SHELL, "python")
    ]


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def test_the_readme_shows_make_demo_and_make_test(readme: str) -> None:
    shown = "\n".join(block.code for block in blocks(readme) if block.language in SHELL)
    assert "make demo" in shown
    assert "make test" in shown


ROOT = Path(__file__).parents[1]
PAGES = [path.relative_to(ROOT) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks((ROOT / page).read_text())], ids=str)
def test_every_block_runs(page: Path, root: Path, tmp_path: Path, forked: Any) -> None:
    environment = os.environ | {"ROOT": str(root), "PATH": forked.path, "COLUMNS": "100"}
    for block in blocks((root / page).read_text()):
        if block.reason is None:
            result = subprocess.run(
                block.command(forked),
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            assert result.returncode == 0, f"{page}:{block.line}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_between_pages_has_a_target(page: Path, root: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (root / page).read_text()):
        assert target.startswith("https://") or (root / page.parent / target).exists(), target


def test_the_option_reference_matches_the_declarations(root: Path) -> None:
    check = [sys.executable, str(root / "scripts" / "write_options_doc.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
