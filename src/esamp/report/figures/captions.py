"""What stands below a figure, and what is read to those who do not see it."""

from collections.abc import Mapping, Sequence

from esamp.analysis.load import Block
from esamp.analysis.positions import WINDOW
from esamp.metrics.intervals import Interval
from esamp.report.figures.curves import Curve, Point

TOLD = 6
"""Arms whose numbers an alternative text has."""


def pass_at_k(block: Block, points: Sequence[Point]) -> str:
    """How to read the figure."""
    few = sorted({(int(point.x.estimate), point.problems) for point in points if point.problems < len(block.items)})
    fewer = "".join(f" Groups of {k}: {problems} of the problems." for k, problems in few)
    return (
        f"Lines: pass@k (subset of {block.n}), the unbiased estimator from groups of {block.n}, which assumes that "
        "samples do not know of each other. Markers: pass@k (group of k), the share of problems that groups of exactly "
        "k samples solve; where the samples of a group are coupled, this is the number that counts. Bands and bars: "
        f"{_intervals(block)}{fewer}"
    )


def cloud(block: Block, across: str, up: str, left: int, *, grid: bool) -> str:
    """How to read the figure."""
    line = " Grey line: what plain sampling can be turned to. A method above it is more diverse at the same place on "
    return (
        f"{up}, the effective number of different samples of a group, over {across}."
        f"{f'{line}the other axis.' if grid else ''} Bars: {_intervals(block)} They are of each method by itself; "
        "differences are tested in the tables."
        + (f" {left} of the methods are not measured and not drawn." if left else "")
    )


def similarity(block: Block, counts: Mapping[int, int]) -> str:
    """How to read the figure."""
    first, last = min(counts), max(counts)
    extent = f"{counts[first]} problems at word {first}"
    extent += f", {counts[last]} at word {last}" if last != first else ""
    return (
        f"Mean cosine similarity of all pairs of samples of a group, by the sentence embeddings of {WINDOW} words from "
        "each position on; low is diverse. A position stands for the problems of which every method drawn there has at "
        f"least two samples that long ({extent}). Where fewer than half of its problems have them, a line ends. "
        f"Bands: {_intervals(block)}"
    )


def of_curves(what: str, across: str, curves: Sequence[Curve], *, scale: float, shown: Mapping[str, str]) -> str:
    """Alternative text: the last point of each line."""
    told = [f"{shown[each.arm]} {_number(each.y[-1], scale)} at {across} {each.x[-1]:g}" for each in curves[:TOLD]]
    return f"{what}. Where the lines end: {'; '.join(told)}{_more(len(curves))}."


def of_points(what: str, points: Sequence[Point], *, scale: float, shown: Mapping[str, str]) -> str:
    """Alternative text: each point."""
    told = [f"{shown[each.arm]} {_number(each.y, 1)} at {_number(each.x, scale)}" for each in points[:TOLD]]
    return f"{what}. {'; '.join(told)}{_more(len(points))}."


def _intervals(block: Block) -> str:
    problems, seeds = len(block.items), len(next(iter(block.arms.values())))
    one = "; one problem has none" if problems == 1 else "; where all problems agree they have no width"
    return (
        f"95 % bootstrap intervals over {problems} problem{'s' * (problems != 1)}, each with its {seeds} "
        f"seed{'s' * (seeds != 1)}{one}."
    )


def _number(interval: Interval, scale: float) -> str:
    return f"{scale * interval.estimate:.3g}{' %' if scale == 100 else ''}"


def _more(count: int) -> str:
    return f"; and {count - TOLD} more" if count > TOLD else ""
