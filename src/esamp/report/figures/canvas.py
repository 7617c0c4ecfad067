"""matplotlib, held so that the same numbers give the same bytes and no label is taken for markup."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.patheffects import withStroke

from esamp.report.pages.html import clean

Side: TypeAlias = Literal["left", "right"]

LONGEST = 36
"""Letters of a label that are shown."""
WIDTH, HEIGHT = 8.0, 5.0
INK, FAINT = "#333333", "#666666"
_STYLE: Mapping[str, object] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollars
    "xtick.color": FAINT,
    "xtick.labelsize": 8,
    "ytick.color": FAINT,
    "ytick.labelsize": 8,
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "svg.hashsalt": "esamp",
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's own defaults with few changes, whatever the user's settings are; those come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def sheet(title: str, height: float = HEIGHT) -> Canvas:
    """An empty figure of 8 inches with a title."""
    figure = Canvas(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=10, weight="bold")
    return figure


def legend(figure: Canvas, entries: Sequence[tuple[Artist, str]], where: str, columns: int = 1) -> None:
    """A legend outside of the axes. Names that begin with _ would be hidden, so all are put in afterwards."""
    if not entries:
        return
    size = 8 if len(entries) <= 22 else 6.5
    handles, names = zip(*entries, strict=True)
    blanks = ["x"] * len(handles)
    made = figure.legend(handles, blanks, loc=where, ncols=columns, fontsize=size, handlelength=2.2, borderaxespad=0)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(name)


def beside(axes: Axes, words: str, place: tuple[float, float], side: Side) -> None:
    """A small remark to a point, which lies at the given side of it; legible across lines."""
    text = axes.annotate(words, place, (4 if side == "left" else -4, 4), textcoords="offset points", zorder=9)
    text.set(size=6.5, color=FAINT, ha=side, path_effects=[withStroke(linewidth=2, foreground="white")])


def shown(name: str, longest: int = LONGEST) -> str:
    """A label as it can be drawn: one line, of characters that the font has, not longer than it may be."""
    letters = [letter for letter in " ".join(clean(name).split()) if unicodedata.category(letter) != "Cf"]
    known = _letters()
    text = "".join(letter if ord(letter) in known else "\u25a1" for letter in letters)
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


def save(figure: Canvas, folder: Path, name: str, formats: Sequence[str], title: str, description: str) -> list[Path]:
    """Write the figure in each format.

    Raises:
        OSError: it cannot be written.
    """
    about = {
        "svg": {"Title": title, "Description": description, "Date": None, "Creator": None},
        "png": {"Title": title, "Description": description, "Software": None},
    }
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is laid out stays, in every format
    paths = [folder / f"{name}.{kind}" for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        figure.savefig(path, format=kind, metadata=about[kind])
    return paths


@cache
def _letters() -> frozenset[int]:
    """Characters of the font."""
    return frozenset(FT2Font(findfont(FontProperties(family=["DejaVu Sans"]))).get_charmap())
