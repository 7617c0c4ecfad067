"""Samples and tables of several arms on the terminal; each sample is cut to a few lines."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from esamp.cli.terminal import console
from esamp.quoting import printable
from esamp.report.pages import ComparisonTable

PIPE_WIDTH, WIDEST = 80, 120
"""Width of the output on a pipe, and its greatest width on a terminal."""


def console_for(terminal: bool) -> Console:
    """A console on standard output: as wide as the terminal but at most 120 columns, or 80 columns on a pipe."""
    return console(width=min(console().width, WIDEST) if terminal else PIPE_WIDTH)


def print_table(console: Console, content: ComparisonTable) -> None:
    """Print a table: intervals below their estimates, the marked row bold."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(content.columns):
        table.add_column(printable(column), justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    for row in content.rows:
        cells = [Text(printable(cell).replace(" [", "\n[")) for cell in row]
        table.add_row(Text(printable(row[0])), *cells[1:], style="bold" if row[0] == content.marked else "")
    console.print(table)


def print_text(console: Console, text: str, style: str = "") -> None:
    """Print a paragraph, wrapped between words."""
    console.print(Text(printable(text), style))


def side_by_side(
    console: Console, heads: tuple[str, str], left: Sequence[str], right: Sequence[str], lines: int = 5
) -> None:
    """Print two columns of numbered samples, each cut to `lines` lines."""
    width = (console.width - 3) // 2
    grid = Table.grid(padding=(0, 3, 0, 0), pad_edge=False)
    for _ in heads:
        grid.add_column(width=width, no_wrap=True)
    grid.add_row(*(Text(printable(head), "bold") for head in heads))
    for number, pair in enumerate(zip(left, right, strict=True), 1):
        grid.add_row(*(clipped(f"{number}. {text}", width, lines, console) for text in pair))
    console.print(grid)


def print_samples(console: Console, head: str, texts: Sequence[str], lines: int = 3) -> None:
    """Print the name of an arm and samples below it, each cut to `lines` lines."""
    console.print(Text(printable(head), "bold"), no_wrap=True, overflow="ellipsis")
    for text in texts:
        console.print(Text("  ").append(clipped(f"- {text}", console.width - 4, lines, console, indent="  ")))


def clipped(text: str, width: int, lines: int, console: Console, indent: str = "") -> Text:
    """`text` wrapped to `width` cells and cut to `lines` lines, with an ellipsis where it was cut."""
    wrapped = list(Text(printable(" ".join(text.split()))).wrap(console, width))
    for line in wrapped:
        line.rstrip()
    shown = wrapped[:lines]
    if len(wrapped) > lines:
        last = shown[-1]
        if cell_len(last.plain) > width - 2:  # drop the last word, if the line has several
            last.truncate(max(last.plain.rfind(" "), 0) or width - 2)
        last.rstrip()
        last.append(" …")
    return Text(f"\n{indent}").join(shown)
