"""Output on the terminal: plain text that cannot control it, and tables without lines."""

import logging
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from esamp.quoting import one_line

LISTING_WIDTH = 100
"""Columns of a listing that is not printed on a terminal."""


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that prints texts literally: no ``[markup]``, no ``:emoji:``, no highlighting of numbers."""
    return Console(stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def plain_table(columns: Sequence[str], *, texts: int = 1, gap: int = 2, wrap_numbers: bool = False) -> Table:
    """A table without lines.

    Args:
        columns: the heads.
        texts: number of columns with text, which come first and are left-aligned; the others are right-aligned.
        gap: spaces between columns.
        wrap_numbers: whether the columns after `texts` may be wrapped.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for index, column in enumerate(columns):
        number = index >= texts
        table.add_column(column, justify="right" if number else "left", no_wrap=number and not wrap_numbers)
    return table


def show_broken(out: Console, broken: Mapping[str, str]) -> None:
    """Print the plug-ins of other packages that cannot be used, each with its error on one line."""
    if broken:
        out.print(Text.assemble(("cannot be used", "bold"), "  of other packages"))
    for name, reason in broken.items():
        out.print(f"  {one_line(name)}  {one_line(reason)}", soft_wrap=True)


def hush(library: str) -> None:
    """Let `library` log errors only. Call it before the import: some libraries log before they read their log level."""
    logging.getLogger(library).setLevel(logging.ERROR)
