"""Throughput of methods: the same decoding plainly and with each method, in interleaved rounds, on any engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from esamp.errors import InactiveMethodError, InputError, OptionError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.options import Options
from esamp.runs.job import finite

PHASES = ("predict", "mix", "learn")
"""Parts of a method's time that an engine may measure: before the LM head, after it, and after sampling."""


@dataclass(frozen=True)
class BenchArm:
    """A method with options, to be compared with plain sampling.

    Raises:
        OptionError: the method takes no part in decode steps.
    """

    label: str
    method: str
    options: Options

    def __post_init__(self) -> None:
        chosen = registry.get(self.method)
        if not issubclass(chosen, DecodeMethod):
            raise OptionError(
                f"method {self.method!r} ({chosen.kind}) takes no part in decode steps, so it has no cost "
                "there: choose one of kind step, filter or draw (esamp methods lists them)"
            )

    @property
    def decoding(self) -> type[DecodeMethod]:
        chosen = registry.get(self.method)
        assert issubclass(chosen, DecodeMethod)
        return chosen


@dataclass(frozen=True)
class Load:
    """How much a timed run decodes.

    Raises:
        InputError: a number is too small.
    """

    prompts: int = 1
    samples: int = 16
    prompt_tokens: int = 16
    tokens: int = 128

    def __post_init__(self) -> None:
        if min(self.prompts, self.samples, self.prompt_tokens, self.tokens - 1) < 1:
            raise InputError("throughput needs at least one prompt, sample and prompt token, and two tokens")

    @property
    def rows(self) -> int:
        """Samples decoded at the same time."""
        return self.prompts * self.samples

    @property
    def generated(self) -> int:
        """Tokens that one run generates."""
        return self.rows * self.tokens


@dataclass(frozen=True)
class TimedRun:
    seconds: float
    steps: int
    """forward passes of the model: one per token, times the number of waves in which the method starts samples"""
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """sums over all groups; empty without a method"""
    phases: Mapping[str, float] = field(default_factory=dict)
    """seconds by `PHASES`; empty if the engine does not measure them"""
    bank_bytes: float = 0
    """memory of the groups' states; on vLLM, of all methods that the engine has run"""
    buffer_bytes: float = 0
    """memory of the buffers that hold inner hidden states"""


@dataclass(frozen=True)
class StateShape:
    """Size, number format and device of the hidden states that methods read."""

    size: int
    """d"""
    number_bytes: int
    """bytes per number"""
    device: str = "cpu"


class Subject(ABC):
    """A model in an engine that decodes a load. The prompts are random tokens, which cost as much as any others."""

    load: Load

    @property
    @abstractmethod
    def states(self) -> StateShape: ...

    @abstractmethod
    def run(self, arm: BenchArm | None, seed: int, tokens: int | None = None) -> TimedRun:
        """Decode the load with a method (None: plainly), all samples of the same length.

        Args:
            arm: the method.
            seed: seed of the sampling.
            tokens: tokens of each sample; at most, and by default, those of the load.
        """

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True)
class Throughput:
    """Timed runs in rounds. Ratios are taken within each round, because a machine's speed drifts."""

    load: Load
    off: tuple[TimedRun, ...]
    on: Mapping[str, tuple[TimedRun, ...]]
    """runs by the label of the arm"""

    def ratio(self, label: str, over: str | None = None) -> Interval:
        """Throughput of one arm divided by that of another (None: plain sampling); 0.97 means 3 % slower.

        The interval is a 95 % bootstrap interval over rounds.
        """
        runs = self.off if over is None else self.on[over]
        other, own = (np.array([run.seconds for run in each]) for each in (runs, self.on[label]))
        return bootstrap_mean(other / own, np.random.default_rng(0))

    def split(self, label: str) -> dict[str, float]:
        """Median milliseconds per step of each of an arm's `PHASES` and of the engine; empty if not measured."""
        runs = self.on[label]
        if not all(run.phases for run in runs):
            return {}
        parts = {phase: [run.phases.get(phase, 0.0) / run.steps for run in runs] for phase in PHASES}
        parts["engine"] = [
            (run.seconds - sum(run.phases.get(phase, 0.0) for phase in PHASES)) / run.steps for run in runs
        ]
        return {name: 1000 * float(np.median(seconds)) for name, seconds in parts.items()}

    def rate(self, label: str | None = None) -> float:
        """Tokens per second of the median run of an arm (None: plain sampling), including prefill."""
        return self.load.generated / float(np.median([run.seconds for run in self._runs(label)]))

    def step(self, label: str | None = None) -> float:
        """Milliseconds per step of the median run of an arm (None: plain sampling), including prefill."""
        return 1000 * float(np.median([run.seconds / run.steps for run in self._runs(label)]))

    def added(self, label: str) -> float:
        """Milliseconds that an arm adds to a step: the median over rounds of the difference from plain sampling."""
        pairs = zip(self.on[label], self.off, strict=True)
        return 1000 * float(np.median([on.seconds / on.steps - off.seconds / off.steps for on, off in pairs]))

    def as_dict(self) -> dict[str, Any]:
        arms = []
        for label, runs in self.on.items():
            ratio = self.ratio(label)
            arms.append(
                {
                    "arm": label,
                    **self._record(label),
                    "ms_per_step_split": self.split(label),
                    "ratio": finite({"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high}),
                    "bank_bytes": runs[-1].bank_bytes,
                    "buffer_bytes": runs[-1].buffer_bytes,
                    "telemetry": finite(runs[-1].telemetry),
                }
            )
        sizes = {"prompts": self.load.prompts, "samples": self.load.samples, "tokens": self.load.tokens}
        return {**sizes, "off": self._record(None), "arms": arms}

    def _record(self, label: str | None) -> dict[str, Any]:
        return {
            "seconds": [run.seconds for run in self._runs(label)],
            "tokens_per_second": self.rate(label),
            "ms_per_step": self.step(label),
        }

    def _runs(self, label: str | None) -> tuple[TimedRun, ...]:
        return self.off if label is None else self.on[label]


def measure(
    subject: Subject, arms: Sequence[BenchArm], *, rounds: int = 5, on_run: Callable[[int], None] | None = None
) -> Throughput:
    """Time rounds of one run each, plainly and with every arm. Each run is first in some round.

    A warm-up round comes before the counted rounds.

    Args:
        subject: the model.
        arms: the methods; their labels must differ.
        rounds: number of counted rounds.
        on_run: called with the number of tokens after each run.

    Raises:
        InactiveMethodError: a run with a method steered no row, or ESamp learned nothing.
        OptionError: two arms have the same label.
        InputError: there are no arms or no rounds.
    """
    if rounds < 1 or not arms:
        raise InputError(f"throughput needs at least one method and one round, not {len(arms)} and {rounds}")
    labels = [arm.label for arm in arms]
    if len(set(labels)) < len(labels):
        raise OptionError(f"methods need different labels, not {', '.join(labels)}: give one of them other options")
    lineup = [arms[0], None, *arms[1:]]
    off: list[TimedRun] = []
    on: dict[str, list[TimedRun]] = {label: [] for label in labels}
    for turn in range(rounds + 1):
        first = turn % len(lineup)
        for arm in lineup[first:] + lineup[:first]:
            run = subject.run(arm, turn)
            if arm is not None:
                check_active(run, arm)
            if turn > 0:
                (off if arm is None else on[arm.label]).append(run)
            if on_run is not None:
                on_run(subject.load.generated)
    return Throughput(subject.load, tuple(off), {label: tuple(runs) for label, runs in on.items()})


def check_active(run: TimedRun, arm: BenchArm) -> None:
    """Check that the method acted in a run.

    Raises:
        InactiveMethodError: the options steer but no row was steered, or ESamp learned nothing.
    """
    steered, updates = run.telemetry.get("rows_steered", 0), run.telemetry.get("updates", 0)
    if (arm.decoding.steers(arm.options) and not steered) or (arm.method == "esamp" and not updates):
        raise InactiveMethodError(
            f"a run with {arm.label} steered {steered:.0f} rows and made {updates:.0f} updates: the comparison "
            "would be one of plain sampling with itself. Is the warm-up longer than the samples?"
        )
