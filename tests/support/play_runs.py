"""A playground on the embedded model, and what is needed to run its page."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from esamp.analysis.text_scores import TextScorer
from esamp.models import EMBEDDED
from esamp.play.drawing import Drawing, View
from esamp.play.program import Origin
from esamp.play.settings import SETTINGS, of_preset
from esamp.play.sources import LocalModel

PROMPT = "Numbers 3 5 8 9 target 24"


def values(**changes: object) -> dict[str, object]:
    """The page's settings at their start, with few and short samples, and `changes`."""
    started = {setting.name: setting.start for setting in SETTINGS} | of_preset("open")
    return started | {"n": 3, "max_tokens": 12} | changes


def plain_scorer() -> TextScorer:
    """A scorer that needs no package: diversity by word n-grams."""
    return TextScorer(None, words=False, missing=("sentence embeddings are not installed",))


def embedded() -> LocalModel:
    return LocalModel(Origin(EMBEDDED))


def finished(drawing: Drawing, seconds: float = 60) -> View:
    """The view of a run that is over."""
    view, end = drawing.look(), time.monotonic() + seconds
    while not view.over:
        assert time.monotonic() < end, view.state
        view = drawing.look(seen=view)
    return view


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@dataclass(frozen=True)
class Served:
    """A page that another process serves, see `support.run_play`."""

    url: str
    process: "subprocess.Popen[str]"

    @property
    def running(self) -> int:
        """Number of runs that have not ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def served(model: str, scorer: str = "plain") -> Iterator[Served]:
    """Serve the page of a model. With the scorer "measured" it has all measures that are installed."""
    line = [sys.executable, str(Path(__file__).with_name("run_play.py")), model, scorer]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(line, text=True, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None
            yield Served(process.stdout.readline().strip(), process)
            process.communicate(timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()
