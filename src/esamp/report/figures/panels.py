"""Curves with bands: in one panel while they are few, otherwise a panel for each beside what it is compared with."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from esamp.metrics.intervals import Interval
from esamp.report.figures import canvas
from esamp.report.figures.canvas import shown
from esamp.report.figures.curves import Curve, Point
from esamp.report.figures.looks import VANILLA, Look

Looks: TypeAlias = Mapping[str, Look]
TOGETHER = 2
"""Coloured curves that one panel bears, with their bands and those of the baseline."""


@dataclass(frozen=True)
class Sheet:
    """A figure and its panels."""

    figure: Canvas
    axes: Sequence[Axes]
    columns: int = 1

    def name(self, across: str, up: str) -> None:
        """Name the axes, once for all panels."""
        for axes in self.axes[-self.columns :]:  # the last of each column
            axes.set_xlabel(across, size=8 if self.columns > 2 else 9)
        if len(self.axes) == 1:
            self.axes[0].set_ylabel(up)
        else:
            self.figure.supylabel(up, size=9)


def panels(
    title: str,
    curves: Sequence[Curve],
    looks: Looks,
    points: Sequence[Point] = (),
    *,
    scale: float = 1.0,
    keys: Sequence[tuple[Artist, str]] = (),
) -> Sheet:
    """Draw curves, and points that belong to their arms.

    Vanilla at other settings is a thin grey line, without band and points. `keys` are further entries of the legend.
    """
    arms = [curve.arm for curve in curves if looks[curve.arm].role == "other"]
    background = [arm for role in ("vanilla", "baseline") for arm in looks if looks[arm].role == role]
    if len(arms) <= TOGETHER:
        figure = canvas.sheet(title)
        sheet = Sheet(figure, [figure.add_subplot()])
        shares = [[*background, *arms]]
    else:
        sheet = _grid(title, [(arm, looks[arm]) for arm in arms])
        shares = [[*background, arm] for arm in arms]
    by_arm = {curve.arm: curve for curve in curves}
    together = len(sheet.axes) == 1
    for axes, share in zip(sheet.axes, shares, strict=True):
        loud = [arm for arm in share if arm in by_arm and looks[arm].role != "vanilla"]
        for arm in share:
            if arm in by_arm:
                _curve(axes, by_arm[arm], looks[arm], scale, looks[arm].line if together else "-")
        for place, arm in enumerate(loud):
            aside = 2 ** (0.04 * (1 + sheet.columns) * (place - (len(loud) - 1) / 2))  # no marker hides another
            _points(axes, [point for point in points if point.arm == arm], looks[arm], scale, aside)
    named = [*(arm for arm in looks if looks[arm].role == "baseline"), *(arms if together else ())]
    entries = [(_key(looks[arm], bool(points)), shown(arm)) for arm in named if arm in by_arm]
    if any(looks[arm].role == "vanilla" for arm in by_arm):
        entries.append((Line2D([], [], color=VANILLA, linewidth=0.8), "vanilla at other settings"))
    where, columns = ("outside right upper", 1) if together else ("outside lower left", 4)
    canvas.legend(sheet.figure, [*entries, *keys], where, columns)
    return sheet


def bars(
    axes: Axes, x: float, y: float, colour: str, *, across: Interval | None = None, up: Interval, zorder: float
) -> None:
    """Intervals as thin lines, where there are any."""
    aside, along = None if across is None else _sides(across), _sides(up)
    axes.errorbar([x], [y], xerr=aside, yerr=along, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.5, zorder=zorder)


def _grid(title: str, arms: Sequence[tuple[str, Look]]) -> Sheet:
    columns = 2 if len(arms) <= 4 else 3 if len(arms) <= 9 else 4
    rows = math.ceil(len(arms) / columns)
    figure = canvas.sheet(title, max(canvas.HEIGHT, 1.5 * rows + 1))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for place in range(len(arms), len(axes)):
        axes[place].remove()
        axes[place - columns].tick_params(labelbottom=True)
    for each, (arm, look) in zip(axes, arms, strict=False):
        lines = textwrap.wrap(shown(arm, 54), 29, max_lines=2, placeholder="\u2026")
        each.set_title("\n".join(lines), size=7.5, loc="left", color=look.colour)
    return Sheet(figure, axes[: len(arms)], columns)


def _curve(axes: Axes, curve: Curve, look: Look, scale: float, line: str) -> None:
    y = [scale * each.estimate for each in curve.y]
    if look.role == "vanilla":
        axes.plot(curve.x, y, color=look.colour, linewidth=0.8, zorder=2)
        return
    axes.plot(curve.x, y, line, color=look.colour, zorder=3)
    low, high = [scale * each.low for each in curve.y], [scale * each.high for each in curve.y]
    axes.fill_between(curve.x, low, high, color=look.colour, alpha=0.11, linewidth=0, zorder=1)
    for edge in (low, high):
        axes.plot(curve.x, edge, color=look.colour, alpha=0.5, linewidth=0.5, zorder=1)


def _points(axes: Axes, points: Sequence[Point], look: Look, scale: float, aside: float) -> None:
    for point in points:
        up = Interval(*(scale * value for value in (point.y.estimate, point.y.low, point.y.high)))
        x = point.x.estimate * aside
        bars(axes, x, up.estimate, look.colour, up=up, zorder=4)
        axes.plot([x], [up.estimate], look.marker, color=look.colour, markeredgecolor="white", zorder=5)


def _sides(interval: Interval) -> list[list[float]] | None:
    """How far an interval reaches below and above its estimate."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return None
    return [[max(0.0, interval.estimate - interval.low)], [max(0.0, interval.high - interval.estimate)]]


def _key(look: Look, marked: bool) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker if marked else "")
