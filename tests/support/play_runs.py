"""A playground on the embedded model, and what is needed to run its page."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import uvicorn

from esamp.analysis.text_scores import TextScorer
from esamp.models import EMBEDDED
from esamp.play.drawing import Drawing, View
from esamp.play.playground import Playground
from esamp.play.program import Origin
from esamp.play.server import address, application, listen
from esamp.play.settings import SETTINGS, of_preset
from esamp.play.sources import LocalModel, Source

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
    """A page that is being served."""

    url: str
    playground: Playground


@contextlib.contextmanager
def served(source: Source, scorer: TextScorer, *, token: str | None = None) -> Iterator[Served]:
    """Serve the page in a thread, on a free port of 127.0.0.1."""
    playground = Playground(source, scorer)
    with listen("127.0.0.1", 0) as listening:
        app = application(playground, token=token, local=True)
        config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield Served(address(listening, "127.0.0.1", token), playground)
        finally:
            server.should_exit = True
            thread.join()
            playground.close()


def header(headers: Mapping[bytes, bytes], name: str) -> str:
    return headers.get(name.encode(), b"").decode()
