"""Which figures a block gets, drawn but not yet written."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.figure import Figure as Canvas

from esamp.analysis.load import Block
from esamp.report.figures import captions, curves, drawing
from esamp.report.figures.canvas import shown
from esamp.report.figures.looks import Look, looks
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
"""What diversity is drawn over, and diversity."""

Each = TypeVar("Each", curves.Curve, curves.Point)


@dataclass(frozen=True)
class Drawn:
    """One figure."""

    kind: str
    """part of its file's name"""
    canvas: Canvas
    caption: str
    alt: str


def contents(study: Study, block: Block, blocks: Sequence[Block]) -> Iterator[Drawn]:
    """What the block has numbers for. To be called, and its figures saved, within `canvas.style`.

    pass@k is drawn once for a model and task: over the largest groups, with the points of all others. Groups of one
    have no diversity.
    """
    if block.n < 2:
        return
    own = looks(study, block.arms)
    largest = max(each.n for each in blocks if (each.model, each.task) == (block.model, block.task))
    if block.graded and block.n == largest:
        yield from _pass_at_k(block, blocks, own)
    up, values = curves.diversity(block)
    for across in ("pass@1", "second perplexity", "perplexity", "entropy", "non-words", "on topic"):
        points = curves.cloud(block, across, values) if block.graded or across != "pass@1" else []
        if points:
            yield _cloud(study, block, (across, up), points, own)
    yield from _similarity(block, own)


def _pass_at_k(block: Block, blocks: Sequence[Block], own: Mapping[str, Look]) -> Iterator[Drawn]:
    lines, points = curves.subset_curves(block), curves.group_points(block, blocks)
    if not lines:
        return
    title = _title("pass@k", block)
    alt = captions.of_curves(title, "k", _in_order(lines, own), scale=100, shown=_names(own))
    yield Drawn("pass-at-k", drawing.pass_at_k(title, lines, points, own), captions.pass_at_k(block, points), alt)


def _cloud(
    study: Study, block: Block, names: tuple[str, str], points: Sequence[curves.Point], own: Mapping[str, Look]
) -> Drawn:
    across, up = names
    grids, left = curves.grids(study), len(block.arms) - len(points)
    title = _title(f"Diversity over {across}", block)
    scale = 100 if is_share(across) else 1
    alt = captions.of_points(title, _in_order(points, own), scale=scale, shown=_names(own))
    figure = drawing.cloud(title, (AXES[across], AXES[up]), points, grids, own)
    kind = f"diversity-over-{re.sub('[^a-z0-9]+', '-', across)}"
    return Drawn(kind, figure, captions.cloud(block, AXES[across], AXES[up], left, grid=bool(grids)), alt)


def _similarity(block: Block, own: Mapping[str, Look]) -> Iterator[Drawn]:
    lines, counts = curves.similarity_curves(block)
    if lines:
        title = _title("Similarity over positions", block)
        alt = captions.of_curves(title, "word", _in_order(lines, own), scale=1, shown=_names(own))
        yield Drawn("similarity", drawing.similarity(title, lines, own), captions.similarity(block, counts), alt)


def _title(what: str, block: Block) -> str:
    return f"{what}: {shown(block.title, 80)}"


def _in_order(of: Sequence[Each], own: Mapping[str, Look]) -> list[Each]:
    """What is compared before what it is compared with."""
    return sorted(of, key=lambda each: ("baseline", "other", "vanilla").index(own[each.arm].role))


def _names(own: Mapping[str, Look]) -> dict[str, str]:
    return {arm: shown(arm) for arm in own}
