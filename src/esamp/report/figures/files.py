"""`figures`: the figures of a study, drawn and written to files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esamp.analysis.load import Block
from esamp.report.figures.requirement import check_matplotlib
from esamp.study.config import Study

FORMATS = ("svg", "png")


@dataclass(frozen=True)
class FigureFile:
    """A figure that was written to disk."""

    block: Block
    """the block whose numbers it shows"""
    path: Path
    """the file in the first format; other formats have the same path with another suffix"""
    caption: str
    """how to read the figure; contains no label of a study"""
    alt: str
    """alternative text for people who cannot see the figure: one line; its labels may contain any other character"""


def figures(study: Study, blocks: Sequence[Block], folder: Path, formats: Sequence[str] = FORMATS) -> list[FigureFile]:
    """Draw pass@k, diversity against quality, and similarity over positions, as far as the blocks have the numbers.

    The same records give the same files, byte by byte, as long as matplotlib's version is the same. Labels are drawn
    literally, never as markup. Only numbers are taken from the samples, never their texts.

    Args:
        study: the study that was run.
        blocks: its finished blocks with their measurements (`esamp.analysis.measurement_run`).
        folder: folder for the files; created if it is missing.
        formats: "svg", "png" or both.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    check_matplotlib()
    from esamp.report.figures import canvas
    from esamp.report.figures.contents import block_figures

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with canvas.style():
        for number, block in enumerate(blocks, 1):
            for drawn in block_figures(study, block, blocks):
                name = f"{number}-{_slug(block)}-{drawn.kind}"
                paths = canvas.save(drawn.canvas, folder, name, formats, drawn.alt, drawn.caption)
                written.append(FigureFile(block, paths[0], drawn.caption, drawn.alt))
    return written


def _slug(block: Block) -> str:
    """Part of a file name: letters, digits and hyphens only, whatever the names of the model and the task contain."""
    return re.sub("[^a-z0-9]+", "-", f"{block.model}-{block.task}-{block.n}".lower()).strip("-")[:60]
