"""Curves and points on matplotlib's axes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from esamp.metrics.intervals import Interval
from esamp.report.figures import canvas
from esamp.report.figures.canvas import shown
from esamp.report.figures.curves import Curve, Grid, Point
from esamp.report.figures.looks import VANILLA
from esamp.report.figures.panels import Looks, bars, panels

_DIGITS = ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,))


def pass_at_k(title: str, curves: Sequence[Curve], points: Sequence[Point], looks: Looks) -> Canvas:
    """Both kinds of pass@k over k, in percent."""
    n = int(max(curve.x[-1] for curve in curves))
    keys = [
        (Line2D([], [], color=canvas.FAINT), f"line: pass@k (subset of {n})"),
        (Line2D([], [], color=canvas.FAINT, marker="o", linestyle=""), "marker: pass@k (group of k)"),
    ]
    sheet = panels(title, curves, looks, points, scale=100.0, keys=keys)
    sheet.name("samples k", "pass@k, %")
    for axes in sheet.axes:
        axes.set_xscale("log", base=2)
        _ticks(axes, sorted({2**power for power in range(n.bit_length())} - {n} | {n}))
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))
    return sheet.figure


def similarity(title: str, curves: Sequence[Curve], looks: Looks) -> Canvas:
    """Similarity over positions. The axis is that of a square root: most happens at the beginning."""
    positions = sorted({x for curve in curves for x in curve.x})
    sheet = panels(title, curves, looks)
    sheet.name("words before the window", "mean pairwise cosine similarity")
    for axes in sheet.axes:
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.set_xlim(0, max(positions[-1] * 1.04, 1))
        _ticks(axes, [x for x in positions if x in (0, positions[-1]) or (x > 16 and math.log2(x).is_integer())])
    return sheet.figure


def cloud(title: str, names: tuple[str, str], points: Sequence[Point], grids: Sequence[Grid], looks: Looks) -> Canvas:
    """One measure over another: an axis in percent if its name says so, a logarithmic one for perplexity.

    Perplexity and non-words fall to the right, so that the right is the better side on every axis of quality.
    """
    figure = canvas.sheet(title)
    axes = figure.add_subplot()
    scale = 100.0 if "%" in names[0] else 1.0
    entries = _grid_lines(axes, points, grids, scale)
    entries += _dots(axes, points, looks, scale)
    if "perplexity" in names[0]:
        axes.set_xscale("log")
        low, high = sorted(axes.get_xlim())
        _ticks(axes, _round(low, high))
        axes.set_xlim(high, low)
    if "non-words" in names[0]:
        axes.invert_xaxis()
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    canvas.legend(figure, entries, "outside right upper")
    return figure


def _grid_lines(axes: Axes, points: Sequence[Point], grids: Sequence[Grid], scale: float) -> list[tuple[Artist, str]]:
    places = {point.arm: (scale * point.x.estimate, point.y.estimate) for point in points}
    entries: list[tuple[Artist, str]] = []
    marked: set[str] = set()
    styles: tuple[tuple[str, canvas.Side], ...] = (("-", "left"), ("--", "right"), (":", "right"))
    for grid, (line, side) in zip(grids, styles, strict=False):
        own = [(arm, mark) for arm, mark in zip(grid.arms, grid.marks, strict=True) if arm in places]
        if len(own) < 2:
            continue
        x, y = zip(*(places[arm] for arm, _ in own), strict=True)
        (curve,) = axes.plot(x, y, line, color=VANILLA, linewidth=1.4, zorder=2)
        entries.append((curve, grid.name))
        for arm, mark in own if len(own) <= 8 else (own[0], own[-1]):
            if arm not in marked:
                canvas.beside(axes, mark, places[arm], side)
        marked.update(arm for arm, _ in own)
    return entries


def _dots(axes: Axes, points: Sequence[Point], looks: Looks, scale: float) -> list[tuple[Artist, str]]:
    """The baseline last, on top of all."""
    order = {"vanilla": 0, "other": 1, "baseline": 2}
    entries: dict[str, tuple[Artist, str]] = {}
    for point in sorted(points, key=lambda each: order[looks[each.arm].role]):
        look = looks[point.arm]
        x, y = scale * point.x.estimate, point.y.estimate
        zorder = 3 + order[look.role]
        bars(axes, x, y, look.colour, across=_scaled(point.x, scale), up=point.y, zorder=zorder)
        (dot,) = axes.plot([x], [y], look.marker, color=look.colour, zorder=zorder, linestyle="")
        quiet = look.role == "vanilla"
        entries["" if quiet else point.arm] = dot, "vanilla at other settings" if quiet else shown(point.arm)
    first = [arm for arm in entries if arm and looks[arm].role == "baseline"]
    return [entries[arm] for arm in dict.fromkeys([*first, *entries])]


def _scaled(interval: Interval, scale: float) -> Interval:
    return Interval(scale * interval.estimate, scale * interval.low, scale * interval.high)


def _ticks(axes: Axes, places: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _round(low: float, high: float) -> list[float]:
    """A few round numbers between two positive ones."""
    if high / low < 4:  # on such a stretch a logarithmic axis is nearly straight
        return [value for value in MaxNLocator(6).tick_values(low, high) if low <= value <= high]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in _DIGITS:
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) <= 8:
            return found
    return [low, high]
