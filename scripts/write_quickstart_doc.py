"""Write docs/quickstart.md from docs/quickstart.ipynb: the documentation site has no renderer for notebooks.

``--run`` executes the notebook first and stores its outputs in it; ``--check`` only says whether the page is up to
date.
"""

import sys
from pathlib import Path
from typing import Any

import nbformat

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK, TARGET, FIGURES = DOCS / "quickstart.ipynb", DOCS / "quickstart.md", DOCS / "quickstart"
SECONDS = 1800
"""Longest time for a cell."""
FIGURE = "image/svg+xml"
NOT_RUN = "<!-- not run: tests/test_quickstart.py runs the notebook -->"
NOTE = "This page is the notebook [quickstart.ipynb](quickstart.ipynb) with the outputs of one run of it."


def execute(notebook: Any) -> None:
    """Run all cells in the kernel of this environment, and keep only the outputs that a reader needs."""
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell without standard error, where libraries show progress; what was printed is one output."""
    kept: list[Any] = []
    for each in outputs:
        if each.output_type != "stream":
            kept.append(each)
        elif each.name == "stdout" and kept and kept[-1].output_type == "stream":
            kept[-1].text += each.text
        elif each.name == "stdout":
            kept.append(each)
    return kept


def page(notebook: Any) -> tuple[str, dict[str, str]]:
    """The Markdown page, and its figures by file name."""
    parts, figures = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"{NOT_RUN}\n```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if FIGURE in data:
                name = f"figure-{len(figures) + 1}.svg"
                figures[name] = data[FIGURE].rstrip() + "\n"
                parts.append(f"![Different texts over perplexity]({FIGURES.name}/{name})")
            elif text := output.get("text", data.get("text/plain", "")).rstrip():
                parts.append(f"```text\n{text}\n```")
    first, *rest = parts
    title, _, introduction = first.partition("\n")
    return "\n\n".join([title, NOTE, introduction.strip(), *rest]) + "\n", figures


def main() -> int:
    """Write the page and its figures, or compare them."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if "--run" in sys.argv[1:]:
        execute(notebook)
        nbformat.write(notebook, NOTEBOOK)
    text, figures = page(notebook)
    files = {TARGET: text, **{FIGURES / name: figure for name, figure in figures.items()}}
    if "--check" in sys.argv[1:]:
        fresh = all(path.is_file() and path.read_text(encoding="utf-8") == content for path, content in files.items())
        print("docs/quickstart.md is up to date" if fresh else "docs/quickstart.md is out of date: run this script")
        return 0 if fresh else 1
    FIGURES.mkdir(exist_ok=True)
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
