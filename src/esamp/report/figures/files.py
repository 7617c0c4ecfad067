"""`figures`: the figures of a study, as files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from esamp.analysis.load import Block
from esamp.errors import MissingDependencyError
from esamp.extras import install_command
from esamp.study.config import Study

FORMATS = ("svg", "png")


@dataclass(frozen=True)
class Figure:
    """A figure that was written."""

    block: Block
    """what it is of"""
    path: Path
    """its first format; the others differ in the ending"""
    caption: str
    """how to read it; holds no label"""
    alt: str
    """what it shows, for those who do not see it; one line, with labels, which may hold any other character"""


def figures(study: Study, blocks: Sequence[Block], folder: Path, formats: Sequence[str] = FORMATS) -> list[Figure]:
    """Draw what the blocks have numbers for: pass@k, diversity against quality, similarity over positions.

    The same records give the same files, byte by byte, with one version of matplotlib. Labels are drawn as they are,
    never as markup, and of the samples nothing but numbers is used.

    Args:
        study: what was run.
        blocks: what is finished of it, with what was measured (`esamp.analysis.measurement_run`).
        folder: where the files go; created if it is not there.
        formats: "svg", "png" or both.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(f"figures need matplotlib: {install_command('figures')}")
    from esamp.report.figures import canvas
    from esamp.report.figures.contents import contents

    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with canvas.style():
        for place, block in enumerate(blocks, 1):
            for drawn in contents(study, block, blocks):
                name = f"{place}-{_slug(block)}-{drawn.kind}"
                paths = canvas.save(drawn.canvas, folder, name, formats, drawn.alt, drawn.caption)
                found.append(Figure(block, paths[0], drawn.caption, drawn.alt))
    return found


def _slug(block: Block) -> str:
    """Letters, digits and hyphens, whatever models and tasks are called."""
    return re.sub("[^a-z0-9]+", "-", f"{block.model}-{block.task}-{block.n}".lower()).strip("-")[:60]
