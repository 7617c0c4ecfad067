"""Curves and points on matplotlib's axes.

Curves share one panel while at most `TOGETHER` of them are coloured. Otherwise each coloured curve has a panel of its
own, together with the baseline and with vanilla at other settings.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from esamp.metrics.intervals import Interval
from esamp.report.figures import canvas
from esamp.report.figures.canvas import shown
from esamp.report.figures.series import ArmCurve, ArmPoint, VanillaLine
from esamp.report.figures.styles import VANILLA, ArmStyle, ArmStyles

TOGETHER = 2
"""Most coloured curves in one panel: more of them, with their bands, would hide each other."""
_LEADING_DIGITS = ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,))
"""Leading digits of the ticks of a logarithmic axis, the densest first."""


@dataclass(frozen=True)
class PanelFigure:
    """A figure and its panels, row by row."""

    figure: Figure
    axes: Sequence[Axes]
    columns: int = 1

    def label(self, x: str, y: str) -> None:
        """Write the axis labels once for all panels."""
        for axes in self.axes[-self.columns :]:  # the last panel of each column
            axes.set_xlabel(x, size=8 if self.columns > 2 else 9)
        if len(self.axes) == 1:
            self.axes[0].set_ylabel(y)
        else:
            self.figure.supylabel(y, size=9)


def pass_at_k(title: str, curves: Sequence[ArmCurve], points: Sequence[ArmPoint], styles: ArmStyles) -> Figure:
    """Both kinds of pass@k over k, in percent."""
    n = int(max(curve.x[-1] for curve in curves))
    keys = [
        (Line2D([], [], color=canvas.FAINT), f"line: pass@k (subset of {n})"),
        (Line2D([], [], color=canvas.FAINT, marker="o", linestyle=""), "marker: pass@k (group of k)"),
    ]
    drawn = _panels(title, curves, styles, points, scale=100.0, keys=keys)
    drawn.label("samples k", "pass@k, %")
    for axes in drawn.axes:
        axes.set_xscale("log", base=2)
        _ticks(axes, sorted({2**power for power in range(n.bit_length())} - {n} | {n}))
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))
    return drawn.figure


def similarity(title: str, curves: Sequence[ArmCurve], styles: ArmStyles) -> Figure:
    """Similarity over positions, on a square-root axis: similarity changes most at the beginning."""
    positions = sorted({x for curve in curves for x in curve.x})
    drawn = _panels(title, curves, styles)
    drawn.label("words before the window", "mean pairwise cosine similarity")
    for axes in drawn.axes:
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.set_xlim(0, max(positions[-1] * 1.04, 1))
        _ticks(axes, [x for x in positions if x in (0, positions[-1]) or (x > 16 and math.log2(x).is_integer())])
    return drawn.figure


def scatter(
    title: str, labels: tuple[str, str], points: Sequence[ArmPoint], lines: Sequence[VanillaLine], styles: ArmStyles
) -> Figure:
    """One measure over another. The x-axis is in percent if its label has a %, and logarithmic for a perplexity.

    Perplexity and non-words decrease to the right, so that the right is the better side for every measure of quality.
    """
    x_label, y_label = labels
    figure = canvas.titled_figure(title)
    axes = figure.add_subplot()
    scale = 100.0 if "%" in x_label else 1.0
    entries = _vanilla_lines(axes, points, lines, scale)
    entries += _arm_points(axes, points, styles, scale)
    if "perplexity" in x_label:
        axes.set_xscale("log")
        low, high = sorted(axes.get_xlim())
        _ticks(axes, _round_numbers(low, high))
        axes.set_xlim(high, low)
    if "non-words" in x_label:
        axes.invert_xaxis()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    canvas.legend(figure, entries, "outside right upper")
    return figure


def bars(
    axes: Axes, x: float, y: float, colour: str, *, across: Interval | None = None, up: Interval, zorder: float
) -> None:
    """Draw the intervals of a point as thin lines; an interval with NaN bounds is not drawn."""
    horizontal, vertical = None if across is None else _errors(across), _errors(up)
    axes.errorbar(
        [x], [y], xerr=horizontal, yerr=vertical, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.5, zorder=zorder
    )


def _panels(
    title: str,
    curves: Sequence[ArmCurve],
    styles: ArmStyles,
    points: Sequence[ArmPoint] = (),
    *,
    scale: float = 1.0,
    keys: Sequence[tuple[Artist, str]] = (),
) -> PanelFigure:
    """Draw curves, and the points of their arms; `keys` are further entries of the legend.

    Vanilla at other settings is a thin grey line without band and points.
    """
    arms = [curve.arm for curve in curves if styles[curve.arm].role == "other"]
    background = [arm for role in ("vanilla", "baseline") for arm in styles if styles[arm].role == role]
    if len(arms) <= TOGETHER:
        figure = canvas.titled_figure(title)
        drawn = PanelFigure(figure, [figure.add_subplot()])
        panel_arms = [[*background, *arms]]
    else:
        drawn = _panel_grid(title, [(arm, styles[arm]) for arm in arms])
        panel_arms = [[*background, arm] for arm in arms]
    together = len(drawn.axes) == 1
    by_arm = {curve.arm: curve for curve in curves}
    for axes, own in zip(drawn.axes, panel_arms, strict=True):
        for arm in own:
            if arm in by_arm:
                _draw_curve(axes, by_arm[arm], styles[arm], scale, styles[arm].line if together else "-")
        marked = [arm for arm in own if arm in by_arm and styles[arm].role != "vanilla"]
        for index, arm in enumerate(marked):
            shift = 2 ** (0.04 * (1 + drawn.columns) * (index - (len(marked) - 1) / 2))  # no marker hides another
            _draw_points(axes, [point for point in points if point.arm == arm], styles[arm], scale, shift)
    named = [*(arm for arm in styles if styles[arm].role == "baseline"), *(arms if together else ())]
    entries = [(_legend_key(styles[arm], bool(points)), shown(arm)) for arm in named if arm in by_arm]
    if any(styles[arm].role == "vanilla" for arm in by_arm):
        entries.append((Line2D([], [], color=VANILLA, linewidth=0.8), "vanilla at other settings"))
    where, columns = ("outside right upper", 1) if together else ("outside lower left", 4)
    canvas.legend(drawn.figure, [*entries, *keys], where, columns)
    return drawn


def _panel_grid(title: str, arms: Sequence[tuple[str, ArmStyle]]) -> PanelFigure:
    columns = 2 if len(arms) <= 4 else 3 if len(arms) <= 9 else 4
    rows = math.ceil(len(arms) / columns)
    figure = canvas.titled_figure(title, max(canvas.HEIGHT, 1.5 * rows + 1))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for index in range(len(arms), len(panels)):
        panels[index].remove()
        panels[index - columns].tick_params(labelbottom=True)
    for axes, (arm, style) in zip(panels, arms, strict=False):
        lines = textwrap.wrap(shown(arm, 54), 29, max_lines=2, placeholder="\u2026")
        axes.set_title("\n".join(lines), size=7.5, loc="left", color=style.colour)
    return PanelFigure(figure, panels[: len(arms)], columns)


def _draw_curve(axes: Axes, curve: ArmCurve, style: ArmStyle, scale: float, line: str) -> None:
    y = [scale * each.estimate for each in curve.y]
    if style.role == "vanilla":
        axes.plot(curve.x, y, color=style.colour, linewidth=0.8, zorder=2)
        return
    axes.plot(curve.x, y, line, color=style.colour, zorder=3)
    low, high = [scale * each.low for each in curve.y], [scale * each.high for each in curve.y]
    axes.fill_between(curve.x, low, high, color=style.colour, alpha=0.11, linewidth=0, zorder=1)
    for edge in (low, high):
        axes.plot(curve.x, edge, color=style.colour, alpha=0.5, linewidth=0.5, zorder=1)


def _draw_points(axes: Axes, points: Sequence[ArmPoint], style: ArmStyle, scale: float, shift: float) -> None:
    """Points of one arm, their x multiplied by `shift`."""
    for point in points:
        x, y = point.x.estimate * shift, _scaled(point.y, scale)
        bars(axes, x, y.estimate, style.colour, up=y, zorder=4)
        axes.plot([x], [y.estimate], style.marker, color=style.colour, markeredgecolor="white", zorder=5)


def _vanilla_lines(
    axes: Axes, points: Sequence[ArmPoint], lines: Sequence[VanillaLine], scale: float
) -> list[tuple[Artist, str]]:
    """A grey line for each varied setting, with marks at its points; returns the legend's entries."""
    places = {point.arm: (scale * point.x.estimate, point.y.estimate) for point in points}
    entries: list[tuple[Artist, str]] = []
    marked: set[str] = set()
    styles: tuple[tuple[str, canvas.Side], ...] = (("-", "left"), ("--", "right"), (":", "right"))
    for line, (dashes, side) in zip(lines, styles, strict=False):
        own = [(arm, mark) for arm, mark in zip(line.arms, line.marks, strict=True) if arm in places]
        if len(own) < 2:
            continue
        x, y = zip(*(places[arm] for arm, _ in own), strict=True)
        (artist,) = axes.plot(x, y, dashes, color=VANILLA, linewidth=1.4, zorder=2)
        entries.append((artist, line.name))
        for arm, mark in own if len(own) <= 8 else (own[0], own[-1]):
            if arm not in marked:
                canvas.annotate(axes, mark, places[arm], side)
        marked.update(arm for arm, _ in own)
    return entries


def _arm_points(axes: Axes, points: Sequence[ArmPoint], styles: ArmStyles, scale: float) -> list[tuple[Artist, str]]:
    """All points, the baseline last and on top; returns the legend's entries, the baseline first."""
    order = {"vanilla": 0, "other": 1, "baseline": 2}
    entries: dict[str, tuple[Artist, str]] = {}
    for point in sorted(points, key=lambda each: order[styles[each.arm].role]):
        style = styles[point.arm]
        x, y = scale * point.x.estimate, point.y.estimate
        zorder = 3 + order[style.role]
        bars(axes, x, y, style.colour, across=_scaled(point.x, scale), up=point.y, zorder=zorder)
        (dot,) = axes.plot([x], [y], style.marker, color=style.colour, zorder=zorder, linestyle="")
        vanilla = style.role == "vanilla"
        entries["" if vanilla else point.arm] = dot, "vanilla at other settings" if vanilla else shown(point.arm)
    first = [arm for arm in entries if arm and styles[arm].role == "baseline"]
    return [entries[arm] for arm in dict.fromkeys([*first, *entries])]


def _scaled(interval: Interval, scale: float) -> Interval:
    return Interval(scale * interval.estimate, scale * interval.low, scale * interval.high)


def _errors(interval: Interval) -> list[list[float]] | None:
    """Distances of an interval's bounds from its estimate, as matplotlib's error bars take them."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return None
    return [[max(0.0, interval.estimate - interval.low)], [max(0.0, interval.high - interval.estimate)]]


def _legend_key(style: ArmStyle, marked: bool) -> Line2D:
    return Line2D([], [], color=style.colour, linestyle=style.line, marker=style.marker if marked else "")


def _ticks(axes: Axes, places: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _round_numbers(low: float, high: float) -> list[float]:
    """A few round numbers between two positive ones."""
    if high / low < 4:  # over such a short range a logarithmic axis is nearly linear
        return [value for value in MaxNLocator(6).tick_values(low, high) if low <= value <= high]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in _LEADING_DIGITS:
        numbers = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(numbers) <= 8:
            return numbers
    return [low, high]
