"""`Playground`: the source, the scorer, and the runs of all visitors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from esamp.analysis.text_scores import TextScorer
from esamp.play.drawing import Drawing
from esamp.play.settings import Choice
from esamp.play.sources import Source


class Playground:
    """Lets visitors draw in turn. A visitor has at most one run, and nobody else can see or end it."""

    def __init__(self, source: Source, scorer: TextScorer) -> None:
        """Use a loaded source and a scorer."""
        self.source, self._scorer = source, scorer
        self._turn = threading.Lock()  # held by the run that uses the source
        self._lock = threading.Lock()  # guards `_runs`
        self._runs: dict[str, Drawing] = {}
        self._started: WeakSet[Drawing] = WeakSet()  # guarded by it too; those that were stopped may still draw a token

    @contextmanager
    def drawing(self, visitor: str, choice: Choice) -> Iterator[Drawing]:
        """A run of a visitor, who is named by the session; it ends at the end of the block at the latest."""
        drawing = Drawing(self.source, self._scorer, choice, self._turn)
        with self._lock:
            earlier, self._runs[visitor] = self._runs.get(visitor), drawing
        if earlier is not None:
            earlier.stop()
        drawing.start()
        with self._lock:
            self._started.add(drawing)
        try:
            yield drawing
        finally:
            drawing.stop()
            with self._lock:
                if self._runs.get(visitor) is drawing:
                    del self._runs[visitor]

    def stop(self, visitor: str, *, wait: bool = False) -> None:
        """Stop the run of a visitor, if there is one; with `wait`, return when it has ended."""
        with self._lock:
            drawing = self._runs.get(visitor)
        if drawing is not None:
            drawing.stop()
            if wait:
                drawing.join()

    def close(self) -> None:
        """Stop all runs and wait for their end: a thread within PyTorch would abort the process at its exit."""
        with self._lock:
            started = list(self._started)
        for drawing in started:
            drawing.stop()
        for drawing in started:
            drawing.join()

    @property
    def running(self) -> int:
        """Number of runs that have not ended."""
        with self._lock:
            return len(self._runs)
