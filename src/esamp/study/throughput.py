"""What exploring costs: the same decoding with and without it, in interleaved pairs, on any engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from esamp.errors import InactiveMethodError, InputError
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.runs.job import finite

PHASES = ("predict", "mix", "learn")
"""Where exploring spends its time, as far as an engine measures it: before the head, behind it, after sampling."""


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
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """sums over all groups, with exploring"""
    phases: Mapping[str, float] = field(default_factory=dict)
    """seconds by `PHASES`, where the engine measures them"""
    bank_bytes: float = 0
    """what the groups' distillers take"""
    buffer_bytes: float = 0
    """what is kept beside them to read inner states from"""


class Subject(ABC):
    """A model in an engine, which decodes a load of random tokens; those cost what any other tokens cost."""

    load: Load

    @abstractmethod
    def run(self, options: ESampConfig | None, seed: int) -> Run:
        """Decode the load with these options (None: without exploring), all samples equally long."""

    @abstractmethod
    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Throughput:
    """Runs in pairs. Ratios are taken pair by pair, because a machine's speed drifts."""

    load: Load
    off: tuple[Run, ...]
    on: tuple[Run, ...]

    @property
    def ratio(self) -> Interval:
        """Throughput with exploring over that without, 95 % bootstrap interval over pairs; 0.97 is 3 % slower."""
        off, on = (np.array([run.seconds for run in runs]) for runs in (self.off, self.on))
        return bootstrap_mean(off / on, np.random.default_rng(0))

    @property
    def split(self) -> dict[str, float]:
        """Median milliseconds of a step with exploring, by `PHASES` and the engine's own; empty if not measured."""
        if not all(run.phases for run in self.on):
            return {}
        parts = {phase: [run.phases.get(phase, 0.0) for run in self.on] for phase in PHASES}
        parts["engine"] = [run.seconds - sum(run.phases.get(phase, 0.0) for phase in PHASES) for run in self.on]
        return {name: 1000 * float(np.median(seconds)) / self.load.tokens for name, seconds in parts.items()}

    def speed(self, runs: tuple[Run, ...]) -> tuple[float, float]:
        """Tokens a second and milliseconds a step of the median run, prefill included."""
        seconds = float(np.median([run.seconds for run in runs]))
        return self.load.generated / seconds, 1000 * seconds / self.load.tokens

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        ratio, last = self.ratio, self.on[-1]
        (rate_off, step_off), (rate_on, step_on) = self.speed(self.off), self.speed(self.on)
        return {
            "prompts": self.load.prompts,
            "samples": self.load.samples,
            "tokens": self.load.tokens,
            "seconds_off": [run.seconds for run in self.off],
            "seconds_on": [run.seconds for run in self.on],
            "tokens_per_second_off": rate_off,
            "tokens_per_second_on": rate_on,
            "ms_per_step_off": step_off,
            "ms_per_step_on": step_on,
            "ms_per_step_split": self.split,
            "ratio": finite({"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high}),
            "bank_bytes": last.bank_bytes,
            "buffer_bytes": last.buffer_bytes,
            "telemetry": finite(last.telemetry),
        }


def measure(
    subject: Subject, options: ESampConfig, *, pairs: int = 5, on_run: Callable[[int], None] | None = None
) -> Throughput:
    """Time `pairs` pairs of runs after one uncounted pair; on and off take turns in being first.

    Args:
        subject: what is timed.
        options: how to explore.
        pairs: counted pairs.
        on_run: called with the tokens of each finished run.

    Raises:
        InactiveMethodError: a run with exploring steered no row or learned nothing.
        InputError: nothing to time.
    """
    if pairs < 1:
        raise InputError(f"throughput needs at least one pair of runs, not {pairs}")
    found: dict[bool, list[Run]] = {False: [], True: []}
    for pair in range(pairs + 1):
        for explored in (False, True) if pair % 2 else (True, False):
            run = subject.run(options if explored else None, pair)
            if explored:
                _check(run, options)
            if pair > 0:
                found[explored].append(run)
            if on_run is not None:
                on_run(subject.load.generated)
    return Throughput(subject.load, tuple(found[False]), tuple(found[True]))


def _check(run: Run, options: ESampConfig) -> None:
    steered, updates = run.telemetry.get("rows_steered", 0), run.telemetry.get("updates", 0)
    if not updates or (options.steers and not steered):
        raise InactiveMethodError(
            f"a run with exploring steered {steered:.0f} rows and made {updates:.0f} updates: this would time plain "
            "sampling twice. Is warm-up longer than the samples?"
        )
