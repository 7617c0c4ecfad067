"""Bars for a study: the cell under way and all of them; what a report measures."""

import sys
from collections.abc import Callable, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from esamp.cli.terminal import Rate, console, label
from esamp.engines.base import Progress as Told
from esamp.quoting import printable
from esamp.study.grid import Cell
from esamp.study.run import CellState


class StudyBars:
    """Samples of the cell and of the study, tokens a second, time left. Silent when standard error is no terminal."""

    def __init__(self, found: Sequence[CellState]) -> None:
        self._progress = Progress(
            label(),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            Rate(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
            redirect_stdout=False,
            disable=not sys.stderr.isatty(),
            speed_estimate_period=600,
        )
        total = sum(state.total * state.cell.n for state in found)
        done = sum(state.done * state.cell.n for state in found)
        self._all = self._progress.add_task("study", total=total, completed=done, tokens=0)
        self._cell = self._progress.add_task("", total=None, tokens=0)

    def __enter__(self) -> "StudyBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def model(self, name: str) -> None:
        """A model is being loaded."""
        self._progress.reset(self._cell, total=None, description=printable(f"loading {name}"), tokens=0)

    def cell(self, cell: Cell, groups: int) -> Told:
        """A cell is begun."""
        words = f"{cell.task.name}, {cell.arm.label}, seed {cell.seed}"
        self._progress.reset(self._cell, total=groups * cell.n, description=printable(words), tokens=0)
        return self._advance

    def _advance(self, samples: int, tokens: int) -> None:
        for task in self._progress.tasks:
            self._progress.update(task.id, advance=samples, tokens=task.fields["tokens"] + tokens)


class MeasureBar:
    """Groups measured of all that a model has to measure, time left. Silent when standard error is no terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            label(),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
            redirect_stdout=False,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> "MeasureBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def part(self, title: str, groups: int) -> Callable[[], None]:
        """A measurement is begun."""
        task = self._progress.add_task(printable(title), total=groups)
        return lambda: self._progress.advance(task)

    def count(self, title: str) -> Callable[[int, int], None]:
        """Something that says itself how far it is: of how many it has done how many."""
        task = self._progress.add_task(printable(title), total=None)
        return lambda done, total: self._progress.update(task, completed=done, total=total)
