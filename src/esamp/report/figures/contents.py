"""The figures of one block, drawn but not yet written, with captions and alternative texts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.figure import Figure

from esamp.analysis.load import Block
from esamp.analysis.positions import WINDOW
from esamp.metrics.intervals import Interval
from esamp.report.figures import plots, series
from esamp.report.figures.canvas import shown
from esamp.report.figures.series import ArmCurve, ArmPoint
from esamp.report.figures.styles import ArmStyles, arm_styles
from esamp.report.markdown import is_share
from esamp.study.config import Study

AXES = {
    "pass@1": "pass@1, % of samples",
    "second perplexity": "perplexity of the texts under a second model",
    "perplexity": "perplexity of the texts under the undisturbed model",
    "entropy": "mean token entropy under the undisturbed model, nats",
    "non-words": "non-words, % of words",
    "on topic": "on topic, % of samples",
    "Vendi": "Vendi Score of sentence embeddings",
    "n-gram Vendi": "Vendi Score of token n-grams",
}
"""Axis labels of the diversity figures, by measure."""
QUALITIES = ("pass@1", "second perplexity", "perplexity", "entropy", "non-words", "on topic")
"""Measures that diversity is drawn over."""
ALT_ARMS = 6
"""An alternative text gives the numbers of at most this many arms."""

OfArm = TypeVar("OfArm", ArmCurve, ArmPoint)


@dataclass(frozen=True)
class DrawnFigure:
    """One figure with its texts."""

    kind: str
    """part of the file name"""
    canvas: Figure
    caption: str
    """how to read the figure"""
    alt: str
    """what the figure shows, for people who cannot see it"""


def block_figures(study: Study, block: Block, blocks: Sequence[Block]) -> Iterator[DrawnFigure]:
    """The figures for which the block has numbers. Call this, and save the figures, within `canvas.style`.

    pass@k is drawn once per model and task: curves from the largest groups, points from groups of every size. Groups
    of one have no diversity and no figure.
    """
    if block.n < 2:
        return
    styles = arm_styles(study, block.arms)
    largest = max(each.n for each in blocks if (each.model, each.task) == (block.model, block.task))
    if block.graded and block.n == largest:
        yield from _pass_at_k(block, blocks, styles)
    diversity, values = series.diversity(block)
    for quality in QUALITIES:
        points = series.scatter_points(block, quality, values) if block.graded or quality != "pass@1" else []
        if points:
            yield _diversity(study, block, quality, diversity, points, styles)
    yield from _similarity(block, styles)


def _pass_at_k(block: Block, blocks: Sequence[Block], styles: ArmStyles) -> Iterator[DrawnFigure]:
    curves, points = series.subset_curves(block), series.group_points(block, blocks)
    if not curves:
        return
    title = _title("pass@k", block)
    fewer = sorted({(int(point.x.estimate), point.problems) for point in points if point.problems < len(block.items)})
    fewer_problems = "".join(f" Groups of {k}: {problems} of the problems." for k, problems in fewer)
    caption = (
        f"Lines: pass@k (subset of {block.n}), the unbiased estimator from groups of {block.n}, which assumes that "
        "samples do not know of each other. Markers: pass@k (group of k), the share of problems that groups of exactly "
        "k samples solve; where the samples of a group are coupled, this is the number that counts. Bands and bars: "
        f"{_intervals(block)}{fewer_problems}"
    )
    alt = _alt_of_curves(title, "k", curves, styles, scale=100)
    yield DrawnFigure("pass-at-k", plots.pass_at_k(title, curves, points, styles), caption, alt)


def _diversity(
    study: Study, block: Block, quality: str, diversity: str, points: Sequence[ArmPoint], styles: ArmStyles
) -> DrawnFigure:
    lines, unmeasured = series.vanilla_lines(study), len(block.arms) - len(points)
    title = _title(f"Diversity over {quality}", block)
    x_label, y_label = AXES[quality], AXES[diversity]
    line = " Grey line: what plain sampling can be turned to. A method above it is more diverse at the same place on "
    caption = (
        f"{y_label}, the effective number of different samples of a group, over {x_label}."
        f"{f'{line}the other axis.' if lines else ''} Bars: {_intervals(block)} They are of each method by itself; "
        "differences are tested in the tables."
        + (f" {unmeasured} of the methods are not measured and not drawn." if unmeasured else "")
    )
    alt = _alt_of_points(title, points, styles, scale=100 if is_share(quality) else 1)
    figure = plots.scatter(title, (x_label, y_label), points, lines, styles)
    return DrawnFigure(f"diversity-over-{re.sub('[^a-z0-9]+', '-', quality)}", figure, caption, alt)


def _similarity(block: Block, styles: ArmStyles) -> Iterator[DrawnFigure]:
    curves, problems = series.similarity_curves(block)
    if not curves:
        return
    title = _title("Similarity over positions", block)
    first, last = min(problems), max(problems)
    extent = f"{problems[first]} problems at word {first}"
    extent += f", {problems[last]} at word {last}" if last != first else ""
    caption = (
        f"Mean cosine similarity of all pairs of samples of a group, by the sentence embeddings of {WINDOW} words from "
        "each position on; low is diverse. A position stands for the problems of which every method drawn there has at "
        f"least two samples that long ({extent}). Where fewer than half of its problems have them, a line ends. "
        f"Bands: {_intervals(block)}"
    )
    alt = _alt_of_curves(title, "word", curves, styles, scale=1)
    yield DrawnFigure("similarity", plots.similarity(title, curves, styles), caption, alt)


def _title(subject: str, block: Block) -> str:
    return f"{subject}: {shown(block.title, 80)}"


def _intervals(block: Block) -> str:
    """The caption's sentence on its intervals."""
    problems, seeds = len(block.items), len(next(iter(block.arms.values())))
    exception = "; one problem has none" if problems == 1 else "; where all problems agree they have no width"
    return (
        f"95 % bootstrap intervals over {problems} problem{'s' * (problems != 1)}, each with its {seeds} "
        f"seed{'s' * (seeds != 1)}{exception}."
    )


def _alt_of_curves(title: str, x_name: str, curves: Sequence[ArmCurve], styles: ArmStyles, *, scale: float) -> str:
    """The last point of each line."""
    ends = [
        f"{shown(curve.arm)} {_number(curve.y[-1], scale)} at {x_name} {curve.x[-1]:g}"
        for curve in _baseline_first(curves, styles)[:ALT_ARMS]
    ]
    return f"{title}. Where the lines end: {'; '.join(ends)}{_more(len(curves))}."


def _alt_of_points(title: str, points: Sequence[ArmPoint], styles: ArmStyles, *, scale: float) -> str:
    """Each point; `scale` is that of the x-axis."""
    places = [
        f"{shown(point.arm)} {_number(point.y, 1)} at {_number(point.x, scale)}"
        for point in _baseline_first(points, styles)[:ALT_ARMS]
    ]
    return f"{title}. {'; '.join(places)}{_more(len(points))}."


def _baseline_first(entries: Sequence[OfArm], styles: ArmStyles) -> list[OfArm]:
    """The baseline, then the coloured arms, then vanilla at other settings."""
    return sorted(entries, key=lambda entry: ("baseline", "other", "vanilla").index(styles[entry.arm].role))


def _number(interval: Interval, scale: float) -> str:
    return f"{scale * interval.estimate:.3g}{' %' if scale == 100 else ''}"


def _more(count: int) -> str:
    return f"; and {count - ALT_ARMS} more" if count > ALT_ARMS else ""
