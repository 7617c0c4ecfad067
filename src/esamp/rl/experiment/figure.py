"""`draw`: the curves of the experiment, each with the mean and the range of its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esamp.report.figures.requirement import check_matplotlib
from esamp.rl.experiment.rows import Row, SeedSpread, evaluations, updates
from esamp.rl.experiment.settings import ARMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = 5
"""A point of a curve over updates is the mean of this many of them."""
PANELS = (("reward", "reward of the rollouts", 1.0), ("entropy", "entropy of a token, nats", 1.0))
"""Measures of updates: name, label and scale."""
DESCRIPTION = (
    "Lines are means over seeds, bands reach from the smallest to the largest seed, and each point over tokens is the "
    f"mean of {WINDOW} updates. Reward and entropy are those of the rollouts. Pass@k is measured on held-out problems "
    "by plain sampling of the trained model."
)


def draw(rows: Sequence[Row], folder: Path) -> Path:
    """Write ``curves.svg`` and return its path.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.lines import Line2D

    from esamp.report.figures import canvas

    title = "GRPO on Countdown: plain and exploring rollouts at equal generated tokens"
    with canvas.style():
        figure = canvas.titled_figure(title, height=3.2)
        panels = figure.subplots(1, 3)
        for axes, (name, label, scale) in zip(panels, PANELS, strict=False):
            for arm in ARMS:
                _plot_updates(axes, rows, arm, name, scale)
            axes.set_ylabel(label)
            axes.set_xlabel("generated tokens, thousands")
        for arm in ARMS:
            _plot_pass_at_k(panels[-1], rows, arm)
        panels[-1].set_ylabel("pass@k after training, %")
        panels[-1].set_xlabel("samples k")
        entries = [(Line2D([], [], color=_colour(arm)), f"{arm} rollouts") for arm in ARMS]
        entries.append((Line2D([], [], color=canvas.FAINT, linestyle=":"), "before training"))
        canvas.legend(figure, entries, "outside lower center", columns=3)
        return canvas.save(figure, folder, "curves", ["svg"], title, DESCRIPTION)[0]


def _plot_updates(axes: Axes, rows: Sequence[Row], arm: str, name: str, scale: float) -> None:
    tokens = [sum(each) / len(each) / 1000 for each in updates(rows, arm, "tokens")]
    values = smoothed(updates(rows, arm, name), WINDOW)
    _band(axes, tokens[WINDOW - 1 :], [[scale * value for value in each] for each in values], arm)


def smoothed(values: Sequence[Sequence[float]], window: int) -> list[list[float]]:
    """The mean of each `window` neighbouring updates, seed by seed, `[updates - window + 1][seeds]`."""
    ends = range(window, len(values) + 1)
    return [[sum(run) / window for run in zip(*values[end - window : end], strict=True)] for end in ends]


def _plot_pass_at_k(axes: Axes, rows: Sequence[Row], arm: str) -> None:
    after = [row["pass_at"] for row in evaluations(rows, arm)]
    first = evaluations(rows, None)[0]["pass_at"]
    sizes = [int(k) for k in first]
    axes.plot(sizes, [100 * first[str(k)] for k in sizes], color=_faint(), linestyle=":")
    _band(axes, sizes, [[100 * curve[str(k)] for curve in after] for k in sizes], arm)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(k) for k in sizes])


def _band(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], arm: str) -> None:
    spreads = [SeedSpread.of(each) for each in values]
    axes.plot(x, [each.mean for each in spreads], color=_colour(arm))
    low, high = [each.low for each in spreads], [each.high for each in spreads]
    axes.fill_between(x, low, high, color=_colour(arm), alpha=0.15, linewidth=0)


def _colour(arm: str) -> str:
    from esamp.report.figures.styles import BASELINE, COLOURS

    return BASELINE if arm == ARMS[0] else COLOURS[0]


def _faint() -> str:
    from esamp.report.figures.canvas import FAINT

    return FAINT
