"""Samples of several arms in the terminal, cut to a few lines each."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from esamp.cli.terminal import console
from esamp.quoting import printable
from esamp.report.pages import ComparisonTable

PIPE_WIDTH, WIDEST = 80, 120
"""Columns on a pipe, and the most that are used of a terminal."""


def console_for(terminal: bool) -> Console:
    """A console on standard output that is 80 columns wide unless that is a wider (or narrower) `terminal`."""
    return console(width=min(console().width, WIDEST) if terminal else PIPE_WIDTH)


def print_table(console: Console, summary: ComparisonTable) -> None:
    """The table; intervals go below their estimates, and the marked row is bold."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(summary.columns):
        table.add_column(printable(column), justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    for row in summary.rows:
        cells = [Text(printable(cell).replace(" [", "\n[")) for cell in row]
        table.add_row(Text(printable(row[0])), *cells[1:], style="bold" if row[0] == summary.marked else "")
    console.print(table)


def print_text(console: Console, text: str, style: str = "") -> None:
    """A paragraph, wrapped between words."""
    console.print(Text(printable(text), style))


def side_by_side(
    console: Console, heads: tuple[str, str], left: Sequence[str], right: Sequence[str], lines: int = 5
) -> None:
    """Two columns of numbered samples, each cut to a number of lines."""
    width = (console.width - 3) // 2
    grid = Table.grid(padding=(0, 3, 0, 0), pad_edge=False)
    for _ in heads:
        grid.add_column(width=width, no_wrap=True)
    grid.add_row(*(Text(printable(head), "bold") for head in heads))
    for number, pair in enumerate(zip(left, right, strict=True), 1):
        grid.add_row(*(clipped(f"{number}. {text}", width, lines, console) for text in pair))
    console.print(grid)


def print_samples(console: Console, head: str, texts: Sequence[str], lines: int = 3) -> None:
    """The name of an arm, and samples below it, each cut to a number of lines."""
    console.print(Text(printable(head), "bold"), no_wrap=True, overflow="ellipsis")
    for text in texts:
        console.print(Text("  ").append(clipped(f"- {text}", console.width - 4, lines, console, indent="  ")))


def clipped(text: str, width: int, lines: int, console: Console, indent: str = "") -> Text:
    """`text` on at most `lines` lines of `width` cells, with a mark where it goes on."""
    whole = Text(printable(" ".join(text.split())))
    wrapped = list(whole.wrap(console, width))
    for line in wrapped:
        line.rstrip()
    shown = wrapped[:lines]
    if len(wrapped) > lines:
        last = shown[-1]
        if cell_len(last.plain) > width - 2:  # back to the last whole word, if the line has several
            last.truncate(max(last.plain.rfind(" "), 0) or width - 2)
        last.rstrip()
        last.append(" …")
    return Text(f"\n{indent}").join(shown)
