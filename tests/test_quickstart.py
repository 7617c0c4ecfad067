"""The notebook of the quick start: its stored outputs, its page on the documentation site, and a run of it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esamp.models import smollm2

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient: pip install 'esamp[test]'")

LENGTH, SHORT = "TOKENS = 40", "TOKENS = 10"
"""The number of tokens of every text, in the notebook and where only a test reads it."""
NUMBERED = re.compile(r"^ ?(\d+)\. \S", re.MULTILINE)


def read(root: Path) -> Any:
    return nbformat.read(root / "docs" / "quickstart.ipynb", as_version=4)


def printed(notebook: Any) -> str:
    """Everything that the cells print."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs)


def check_outputs(notebook: Any) -> None:
    """The outputs that a reader is promised: 16 ideas twice, the table, the figure, the presets."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    text = printed(notebook)
    assert [int(number) for number in NUMBERED.findall(text)] == [*range(1, 17), *range(1, 17)]
    for label in ("plain, T 0.7", "plain, T 0.85", "plain, T 1", "ESamp, preset open", "ESamp, default"):
        assert re.search(rf"^{label} +[\d.]+ +[\d.]+$", text, re.MULTILINE), label
    assert "rows_steered" in text
    assert "answers [" in text
    assert sum("image/svg+xml" in output.get("data", {}) for cell in cells for output in cell.outputs) == 1


def test_the_stored_outputs_are_those_of_one_complete_run(root: Path) -> None:
    notebook = read(root)
    assert sum(LENGTH in cell.source for cell in notebook.cells) == 1
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert str(Path.home()) not in nbformat.writes(notebook)


def test_the_page_of_the_site_is_the_notebook(root: Path) -> None:
    check = [sys.executable, str(root / "scripts" / "write_quickstart_doc.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_readme_and_navigation_link_the_notebook(root: Path) -> None:
    assert "(docs/quickstart.ipynb)" in (root / "README.md").read_text()
    assert "quickstart.md" in (root / "mkdocs.yml").read_text()
    assert "(quickstart.ipynb)" in (root / "docs" / "quickstart.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_notebook_runs(root: Path) -> None:
    """In a kernel of this environment, with shorter texts than a reader sees."""
    nbclient = pytest.importorskip("nbclient", reason="pip install 'esamp[test]'")
    pytest.importorskip("ipykernel", reason="pip install 'esamp[test]'")
    pytest.importorskip("sentence_transformers", reason="pip install 'esamp[metrics]'")
    if not smollm2.state()[0]:
        pytest.skip(f"needs the chat model: {smollm2.state()[1]}")
    notebook = read(root)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = cell.source.replace(LENGTH, SHORT)
    nbclient.NotebookClient(notebook, timeout=1400, kernel_name="python3").execute()
    check_outputs(notebook)
