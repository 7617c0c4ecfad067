"""matplotlib with fixed settings: the same numbers give the same bytes, and labels are drawn literally."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.patheffects import withStroke

from esamp.report.pages.html import clean

Side: TypeAlias = Literal["left", "right"]

LONGEST = 36
"""Characters of a label that are drawn; a longer label is cut off."""
WIDTH, HEIGHT = 8.0, 5.0
"""Inches."""
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
    "text.parse_math": False,  # a label may contain dollar signs
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
    """Within ``with``: matplotlib's defaults with our changes. The user's own settings are restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def titled_figure(title: str, height: float = HEIGHT) -> Figure:
    """An empty figure with a title, 8 inches wide and `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=10, weight="bold")
    return figure


def legend(figure: Figure, entries: Sequence[tuple[Artist, str]], where: str, columns: int = 1) -> None:
    """Add a legend outside of the axes.

    matplotlib hides names that begin with an underscore; therefore the names are set after the legend is made.
    """
    if not entries:
        return
    size = 8 if len(entries) <= 22 else 6.5
    handles, names = zip(*entries, strict=True)
    placeholders = ["x"] * len(handles)
    added = figure.legend(
        handles, placeholders, loc=where, ncols=columns, fontsize=size, handlelength=2.2, borderaxespad=0
    )
    for text, name in zip(added.get_texts(), names, strict=True):
        text.set_text(name)


def annotate(axes: Axes, words: str, place: tuple[float, float], side: Side) -> None:
    """Write a small remark beside a point at `place`; the point lies on the given side of the text."""
    text = axes.annotate(words, place, (4 if side == "left" else -4, 4), textcoords="offset points", zorder=9)
    text.set(size=6.5, color=FAINT, ha=side, path_effects=[withStroke(linewidth=2, foreground="white")])


def shown(name: str, longest: int = LONGEST) -> str:
    """A label as it can be drawn: one line, cut to `longest` characters; a box for each one that the font lacks."""
    visible = [letter for letter in " ".join(clean(name).split()) if unicodedata.category(letter) != "Cf"]
    drawable = _font_characters()
    text = "".join(letter if ord(letter) in drawable else "\u25a1" for letter in visible)
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str], title: str, description: str) -> list[Path]:
    """Write the figure to ``folder/name.FORMAT`` in each format and return the paths.

    Raises:
        OSError: a file cannot be written.
    """
    metadata = {
        "svg": {"Title": title, "Description": description, "Date": None, "Creator": None},
        "png": {"Title": title, "Description": description, "Software": None},
    }
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # keep this layout in every format
    paths = [folder / f"{name}.{kind}" for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        figure.savefig(path, format=kind, metadata=metadata[kind])
    return paths


@cache
def _font_characters() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FontProperties(family=["DejaVu Sans"]))).get_charmap())
