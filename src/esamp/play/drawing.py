"""`Drawing`: one run of the page. A thread of its own draws both arms; the page looks at it a few times a second."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from esamp.analysis.text_scores import TextScorer
from esamp.compare.formatting import sample_view
from esamp.engines.base import Completion
from esamp.engines.hf.following import Step
from esamp.errors import EsampError
from esamp.play.findings import RunFindings, find
from esamp.play.following import Follower
from esamp.play.settings import Choice
from esamp.play.sources import Source
from esamp.report.pages import SampleView
from esamp.study.arm import Arm

INTERVAL = 0.25
"""Seconds between two looks at the samples, at least."""
PATIENCE = 15.0
"""Seconds after which a run ends that no page looks at."""


@dataclass(frozen=True)
class ArmView:
    """The samples of one arm at one time."""

    arm: Arm
    state: Literal["waiting", "drawing", "finished", "stopped"] = "waiting"
    samples: tuple[SampleView, ...] = ()
    seconds: float = 0.0
    """time that drawing took, once it has finished"""


@dataclass(frozen=True)
class View:
    """A run at one time."""

    arms: tuple[ArmView, ...]
    state: Literal["waiting", "running", "measuring", "finished", "stopped", "failed"] = "waiting"
    findings: RunFindings | None = None
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ("finished", "stopped", "failed")


class StoppedError(EsampError):
    """The run was stopped: its visitor left or asked for it."""


class Drawing:
    """Draws both arms of a choice, one after the other, and measures them."""

    def __init__(self, source: Source, scorer: TextScorer, choice: Choice, turn: threading.Lock) -> None:
        """Prepare a run; `start` starts it.

        Args:
            source: of the samples.
            scorer: measures the texts.
            choice: the visitor's prompt and settings.
            turn: held while the source is in use: it serves one run at a time.
        """
        self._source, self._scorer, self._choice, self._turn = source, scorer, choice, turn
        self._stop = threading.Event()
        self._changed = threading.Condition()  # guards `_view`
        self._view = View(tuple(map(ArmView, choice.arms)))
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="esamp-play", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def look(self, seen: View | None = None) -> View:
        """The run as it is now, or, within `INTERVAL`, as soon as it differs from `seen`."""
        self._looked = time.monotonic()
        with self._changed:
            if seen is not None:
                self._changed.wait_for(lambda: self._view is not seen, INTERVAL)
            return self._view

    def stop(self) -> None:
        """Let the run end with its next token, or within `INTERVAL` at a server. The samples so far stay visible."""
        self._stop.set()

    def join(self) -> None:
        """Wait until nothing of it runs any more."""
        self._thread.join()

    # ---- in the thread

    def _run(self) -> None:
        try:
            while not self._turn.acquire(timeout=INTERVAL):
                self._check()
            try:
                self._draw()
            finally:
                self._turn.release()
        except StoppedError:
            self._end("stopped")
        except EsampError as error:
            self._end("failed", str(error))
        finally:
            if not self._view.over:  # an error of ours, which the thread reports on standard error
                self._end("failed", "The run broke off with an error of the program; its terminal shows it.")

    def _draw(self) -> None:
        self._set(state="running")
        drawn = [self._draw_arm(index, arm) for index, arm in enumerate(self._choice.arms)]
        self._set(state="measuring")
        self._check()
        self._set(findings=find(self._choice.prompt, self._choice.arms, drawn, self._scorer), state="finished")

    def _draw_arm(self, index: int, arm: Arm) -> Completion:
        self._check()
        self._set_arm(index, state="drawing")
        tokenizer = self._source.tokenizer
        follower = None if tokenizer is None else Follower(tokenizer, self._choice.n)
        shown = 0.0

        def on_step(step: Step) -> None:
            nonlocal shown
            self._check()
            if follower is None:
                return
            follower.add(step)
            if time.monotonic() - shown >= INTERVAL:
                self._set_arm(index, samples=follower.views())
                shown = time.monotonic()

        completion = self._source.draw(self._choice.request(arm, chat=self._source.chats), on_step, self._check)
        plain = arm.method == "vanilla"
        samples = tuple(sample_view(sample, plain=plain) for sample in completion.samples)
        self._set_arm(index, state="finished", samples=samples, seconds=completion.seconds)
        return completion

    def _check(self) -> None:
        """End the run if it was stopped, or if nobody looks at it any more."""
        if self._stop.is_set() or time.monotonic() - self._looked > PATIENCE:
            raise StoppedError("the run was stopped")

    def _end(self, state: Literal["stopped", "failed"], error: str = "") -> None:
        """End the run before its time."""
        arms = tuple(arm if arm.state == "finished" else replace(arm, state="stopped") for arm in self._view.arms)
        self._set(arms=arms, state=state, error=error)

    def _set_arm(self, index: int, **changes: object) -> None:
        arms: Sequence[ArmView] = self._view.arms
        changed = replace(arms[index], **changes)  # type: ignore[arg-type]
        self._set(arms=(*arms[:index], changed, *arms[index + 1 :]))

    def _set(self, **changes: object) -> None:
        with self._changed:
            self._view = replace(self._view, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()
