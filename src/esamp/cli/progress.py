"""Progress bars on standard error. They are silent if standard error is not a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from esamp.cli.estimate import SampleProgress
from esamp.cli.terminal import console
from esamp.engines.base import Progress as OnProgress
from esamp.quoting import printable
from esamp.study.grid import Cell
from esamp.study.run import CellState

RATE_SECONDS = 600
"""Period over which the time left is estimated while a model generates."""
TITLE = 24
"""Most characters of a prompt beside a bar."""
PATIENCE = 2.0
"""Seconds after which a `SimulationCounter` appears."""


class SampleBar:
    """Samples (or other units) done, tokens per second, time left. The bar also moves with each token."""

    def __init__(self, total: int, max_tokens: int | None = None, unit: str = "samples") -> None:
        """Count to `total`; samples have at most `max_tokens` tokens (None: the default of requests)."""
        self._progress = _bar(TokenRate(), estimate_period=RATE_SECONDS, counter=SampleCount())
        samples = SampleProgress(total, max_tokens)
        self._task = self._progress.add_task(printable(unit), total=total, start=False, samples=samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def generating(self) -> None:
        """Show the bar now that the model is loaded; rate and time left count from here."""
        self._progress.start()
        self._progress.start_task(self._task)

    def advance(self, samples: int, tokens: int) -> None:
        """Add finished samples and their tokens (`esamp.engines.base.Progress`)."""
        _advance(self._progress, samples, tokens)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar while something is printed."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


class StudyBars:
    """Two bars of samples: one for the whole study, one for the current cell."""

    def __init__(self, states: Sequence[CellState]) -> None:
        self._progress = _bar(TokenRate(), estimate_period=RATE_SECONDS, counter=SampleCount())
        total = sum(state.total * state.cell.n for state in states)
        done = sum(state.done * state.cell.n for state in states)
        self._samples = SampleProgress(total, None, done)
        self._progress.add_task("study", total=total, completed=done, samples=self._samples)
        self._cell = self._progress.add_task("", total=None, samples=SampleProgress(0, None))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def model(self, name: str) -> None:
        """Show that a model is being loaded."""
        self._progress.reset(self._cell, total=None, description=printable(f"loading {name}"))

    def cell(self, cell: Cell, groups: int) -> OnProgress:
        """Start the bar of a cell; call the result with finished samples and tokens."""
        title = f"{cell.task.name}, {cell.arm.label}, seed {cell.seed}"
        limit = cell.arm.sampling.max_tokens
        samples = SampleProgress(groups * cell.n, limit)
        self._samples.limit = samples.limit
        self._progress.reset(self._cell, total=samples.total, description=printable(title), samples=samples)
        return lambda samples, tokens: _advance(self._progress, samples, tokens)


class MeasureBar:
    """A bar for each measurement of a report: groups measured, time left."""

    def __init__(self) -> None:
        self._progress = _bar()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def part(self, title: str, groups: int) -> Callable[[], None]:
        """Add a measurement; call the result once for each group measured."""
        task = self._progress.add_task(printable(title), total=groups)
        return lambda: self._progress.advance(task)

    def count(self, title: str) -> Callable[[int, int], None]:
        """Add a measurement of unknown size; call the result with the number done and the total."""
        task = self._progress.add_task(printable(title), total=None)
        return lambda done, total: self._progress.update(task, completed=done, total=total)


class SimulationCounter:
    """The number of simulated study sizes; appears only if the simulation takes more than `PATIENCE` seconds."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} sizes simulated"), TimeElapsedColumn())
        self._progress = _progress(*columns)
        self._task = self._progress.add_task("", total=None)
        self._begun = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tick(self) -> None:
        """Count one more simulated size."""
        self._progress.advance(self._task)
        if monotonic() - self._begun > PATIENCE:
            self._progress.start()


class TokenRate(ProgressColumn):
    """Tokens per second since the task began; the task has a field ``samples``."""

    def render(self, task: Task) -> Text:
        """The rate; empty until there is one."""
        rate = task.fields["samples"].tokens / task.elapsed if task.elapsed else 0
        return Text(f"{rate:,.0f} tok/s" if rate else "")


class SampleCount(ProgressColumn):
    """Finished samples and all samples; the task has a field ``samples``."""

    def render(self, task: Task) -> Text:
        """``3/16``; the number of all samples is ``?`` while it is unknown."""
        return Text(f"{task.fields['samples'].done}/{'?' if task.total is None else int(task.total)}")


def _bar(*columns: ProgressColumn, estimate_period: float = 30.0, counter: ProgressColumn | None = None) -> Progress:
    """Title, bar, number done, further columns, time left. Titles may contain brackets, so they are not markup."""
    title = TextColumn("{task.description}", markup=False)
    done = (BarColumn(bar_width=None), counter or MofNCompleteColumn())
    left = (TextColumn("ETA"), TimeRemainingColumn())
    return _progress(title, *done, *columns, *left, estimate_period=estimate_period)


def _progress(*columns: ProgressColumn, estimate_period: float = 30.0) -> Progress:
    return Progress(
        *columns,
        console=console(stderr=True),
        transient=True,
        redirect_stdout=False,
        disable=not sys.stderr.isatty(),
        speed_estimate_period=estimate_period,
    )


def _advance(progress: Progress, samples: int, tokens: int) -> None:
    """Advance all bars."""
    for task in progress.tasks:
        progress.update(task.id, completed=task.fields["samples"].add(samples, tokens))
