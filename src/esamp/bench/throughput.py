"""What methods cost: the same decoding plainly and with each of them, in interleaved rounds, on any engine."""

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
"""Parts of a method's time, as far as an engine measures them: before the LM head, behind it, after sampling."""


@dataclass(frozen=True)
class Arm:
    """One way to decode, which is compared with plain sampling."""

    label: str
    method: str
    options: Options

    def __post_init__(self) -> None:
        chosen = registry.get(self.method)
        if not issubclass(chosen, DecodeMethod):
            raise OptionError(
                f"method {self.method!r} ({chosen.kind}) takes no part in decode steps, so it has no cost of its own "
                "there: choose one of kind step, filter or draw (esamp methods lists them)"
            )

    @property
    def decoding(self) -> type[DecodeMethod]:
        """The method's class."""
        chosen = registry.get(self.method)
        assert issubclass(chosen, DecodeMethod)
        return chosen


@dataclass(frozen=True)
class Load:
    """How much is decoded at once, in a run that is timed."""

    prompts: int = 1
    samples: int = 16
    prompt_tokens: int = 16
    tokens: int = 128

    def __post_init__(self) -> None:
        if min(self.prompts, self.samples, self.prompt_tokens, self.tokens - 1) < 1:
            raise InputError("throughput needs at least one prompt, sample and prompt token, and two tokens")

    @property
    def rows(self) -> int:
        """Samples side by side."""
        return self.prompts * self.samples

    @property
    def generated(self) -> int:
        """Tokens of one run."""
        return self.rows * self.tokens


@dataclass(frozen=True)
class Run:
    """One timed run."""

    seconds: float
    steps: int
    """forward passes of the model: one a token, times the waves in which the method starts the samples"""
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """sums over all groups, with a method"""
    phases: Mapping[str, float] = field(default_factory=dict)
    """seconds by `PHASES`, where the engine measures them"""
    bank_bytes: float = 0
    """what the groups' state takes; on vLLM that of all methods which the engine has run"""
    buffer_bytes: float = 0
    """what is kept beside it to read inner states from"""


@dataclass(frozen=True)
class States:
    """Size and place of the states that methods read."""

    size: int
    """d"""
    number_bytes: int
    """bytes of one number"""
    device: str = "cpu"


class Subject(ABC):
    """A model in an engine, which decodes a load of random tokens; those cost what any other tokens cost."""

    load: Load

    @property
    @abstractmethod
    def states(self) -> States:
        """Of the model."""

    @abstractmethod
    def run(self, arm: Arm | None, seed: int, tokens: int | None = None) -> Run:
        """Decode the load with a method (None: plainly), all samples equally long.

        `tokens` of each sample, by default the load's, which is the most.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True)
class Throughput:
    """Runs in rounds. Ratios are taken round by round, because a machine's speed drifts."""

    load: Load
    off: tuple[Run, ...]
    on: Mapping[str, tuple[Run, ...]]
    """by the label of the arm"""

    def ratio(self, label: str, over: str | None = None) -> Interval:
        """Throughput of one arm over that of another (None: plain sampling); 0.97 is 3 % slower.

        With a 95 % bootstrap interval over rounds.
        """
        runs = self.off if over is None else self.on[over]
        below, above = (np.array([run.seconds for run in each]) for each in (runs, self.on[label]))
        return bootstrap_mean(below / above, np.random.default_rng(0))

    def split(self, label: str) -> dict[str, float]:
        """Median milliseconds of a step of an arm, by `PHASES` and the engine's own; empty if not measured."""
        runs = self.on[label]
        if not all(run.phases for run in runs):
            return {}
        parts = {phase: [run.phases.get(phase, 0.0) / run.steps for run in runs] for phase in PHASES}
        parts["engine"] = [
            (run.seconds - sum(run.phases.get(phase, 0.0) for phase in PHASES)) / run.steps for run in runs
        ]
        return {name: 1000 * float(np.median(seconds)) for name, seconds in parts.items()}

    def rate(self, label: str | None = None) -> float:
        """Tokens a second of the median run, prefill included; None is plain sampling."""
        return self.load.generated / float(np.median([run.seconds for run in self._runs(label)]))

    def step(self, label: str | None = None) -> float:
        """Milliseconds a step of the median run, prefill included; None is plain sampling."""
        return 1000 * float(np.median([run.seconds / run.steps for run in self._runs(label)]))

    def added(self, label: str) -> float:
        """Milliseconds that an arm adds to a step: median over rounds of the difference from plain sampling."""
        pairs = zip(self.on[label], self.off, strict=True)
        return 1000 * float(np.median([on.seconds / on.steps - off.seconds / off.steps for on, off in pairs]))

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
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

    def _runs(self, label: str | None) -> tuple[Run, ...]:
        return self.off if label is None else self.on[label]


def measure(
    subject: Subject, arms: Sequence[Arm], *, rounds: int = 5, on_run: Callable[[int], None] | None = None
) -> Throughput:
    """Time rounds of one run each, plain and with every arm, after one uncounted round; they take turns in being first.

    Args:
        subject: what is timed.
        arms: the methods, each with a label of its own.
        rounds: counted rounds.
        on_run: called with the tokens of each finished run.

    Raises:
        InactiveMethodError: a run with a method steered no row, or ESamp learned nothing.
        OptionError: two arms have one label.
        InputError: nothing to time.
    """
    if rounds < 1 or not arms:
        raise InputError(f"throughput needs at least one method and one pair of runs, not {len(arms)} and {rounds}")
    labels = [arm.label for arm in arms]
    if len(set(labels)) < len(labels):
        raise OptionError(f"the same method twice: {', '.join(labels)}; give one of them other options")
    lineup = [arms[0], None, *arms[1:]]
    off: list[Run] = []
    on: dict[str, list[Run]] = {label: [] for label in labels}
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


def check_active(run: Run, arm: Arm) -> None:
    """Refuse a run that amounts to plain sampling.

    Raises:
        InactiveMethodError: the options ask for steering and no row was steered, or ESamp learned nothing.
    """
    steered, updates = run.telemetry.get("rows_steered", 0), run.telemetry.get("updates", 0)
    if (arm.decoding.steers(arm.options) and not steered) or (arm.method == "esamp" and not updates):
        raise InactiveMethodError(
            f"a run with {arm.label} steered {steered:.0f} rows and made {updates:.0f} updates: this would time plain "
            "sampling twice. Is warm-up longer than the samples?"
        )
