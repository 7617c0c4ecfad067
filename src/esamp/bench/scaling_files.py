"""The results of `esamp.bench.scaling` as a CSV file and a figure."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esamp.bench.scaling import ROWS, SAMPLES, SIZE, ScalingPoint, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "scaling"
CAPTION = "Milliseconds of one decode step of the method alone, on random states; bars between the quartiles"


def write_csv(points: Sequence[ScalingPoint], folder: Path) -> Path:
    """Write ``scaling.csv`` with one line per case.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / f"{NAME}.csv"
    records = [point.as_dict() for point in points]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
    return path


def write_figure(points: Sequence[ScalingPoint], folder: Path, label: str) -> Path:
    """Write ``scaling.svg``: milliseconds over groups, over the size of the states, and over slots.

    Raises:
        OSError: it cannot be written.
    """
    from esamp.report.figures import canvas

    with canvas.style():
        figure = canvas.titled_figure(f"One decode step of {canvas.shown(label)}", height=3.2)
        groups, size, slots = figure.subplots(1, 3, sharey=True)
        for index, samples in enumerate(SAMPLES):
            name = f"{samples} sample{'s' * (samples != 1)} each"
            _draw(groups, [p for p in _of(points, "groups") if p.case.samples == samples], "groups", index, name)
        _draw(size, _of(points, "size"), "size", 2)
        _draw(slots, _of(points, "slots"), "slots", 2)
        groups.set(xlabel=f"groups (d = {SIZE})", ylabel="milliseconds")
        size.set_xlabel(f"d (1 group of {ROWS})")
        slots.set_xlabel(f"slots (1 group of {ROWS}, d = {SIZE})")
        groups.legend(loc="upper left")
        return canvas.save(figure, folder, NAME, ["svg"], f"Cost of one decode step of {label}", CAPTION)[0]


def _of(points: Sequence[ScalingPoint], series: Series) -> list[ScalingPoint]:
    return [point for point in points if point.case.series == series]


def _draw(axes: "Axes", points: Sequence[ScalingPoint], across: str, style: int, name: str = "") -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    from esamp.report.figures.styles import COLOURS, MARKERS

    x = [vars(point.case)[across] for point in points]
    y = [point.total for point in points]
    below = [max(0.0, point.total - point.low) for point in points]
    above = [max(0.0, point.high - point.total) for point in points]
    axes.errorbar(x, y, [below, above], color=COLOURS[style], marker=MARKERS[style], label=name, elinewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
