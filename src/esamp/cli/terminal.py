"""What reaches the terminal: text that cannot act on it, and a bar for whoever is looking."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from esamp.quoting import one_line


def show_broken(out: Console, broken: Mapping[str, str]) -> None:
    """Plug-ins of other packages that cannot be used, each with its error in a line."""
    if broken:
        out.print(Text.assemble(("cannot be used", "bold"), "  of other packages"))
    for name, reason in broken.items():
        out.print(f"  {one_line(name)}  {one_line(reason)}", soft_wrap=True)


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that prints texts as they are: no ``[markup]``, no ``:emoji:``, no highlighting of numbers."""
    return Console(stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def label() -> TextColumn:
    """What a bar counts, as it is: names of models and methods may have brackets."""
    return TextColumn("{task.description}", markup=False)


def hush(library: str) -> None:
    """Let `library` log errors only. Some say their first words before they have read how loud they are to be."""
    logging.getLogger(library).setLevel(logging.ERROR)


class Bar:
    """A progress bar on standard error: samples (or `what`) done, tokens a second, time left. Silent elsewhere."""

    def __init__(self, samples: int, what: str = "samples") -> None:
        columns = (
            label(),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            Rate(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(
            *columns,
            console=console(stderr=True),
            transient=True,
            redirect_stdout=False,
            disable=not sys.stderr.isatty(),
            speed_estimate_period=600,
        )
        self._task = self._progress.add_task(what, total=samples, start=False, tokens=0)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def generating(self) -> None:
        """The model is loaded: show the bar, count rate and time left from here."""
        self._progress.start()
        self._progress.start_task(self._task)

    def advance(self, samples: int, tokens: int) -> None:
        """An engine's `Progress`."""
        told = self._progress.tasks[0].fields["tokens"]
        self._progress.update(self._task, advance=samples, tokens=told + tokens)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something is printed."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


class Rate(ProgressColumn):
    """Tokens a second since the task began; the task has a field ``tokens``."""

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        rate = task.fields["tokens"] / task.elapsed if task.elapsed else 0
        return Text(f"{rate:,.0f} tok/s" if rate else "")
