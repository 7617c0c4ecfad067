"""Schedules of requests for a vLLM engine: arrivals, aborts and cache resets by step.

A schedule is independent of engines, so the same one can run on two engines, or twice on one. `random_schedules` draws
schedules from a seed, `vllm_schedule_runs` runs them, and `vllm_invariants` checks the results.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

EOS, NUMBERS = 2, range(22, 123)
"""The end token and the number tokens of the embedded model."""
REPLAY = "ESAMP_FUZZ_SEED"
"""The environment variable with a seed that replaces those of the tests."""
MODEL_LENGTH, BLOCK, ROWS = 192, 32, 12
ENGINE: Mapping[str, Any] = dict(
    max_model_len=MODEL_LENGTH,
    max_num_seqs=ROWS,
    max_num_batched_tokens=2 * MODEL_LENGTH,
    block_size=BLOCK,
    num_gpu_blocks_override=22,  # room for 3.5 requests of full length, so that requests are preempted
    enable_prefix_caching=True,
    enable_chunked_prefill=True,
    max_logprobs=20,
)
"""Settings of an engine that has few rows, tokens and blocks."""
SIDES = 0, 1
Sample = tuple[str, int]
"""The name of a request and the index of one of its samples."""
CHOICES, DIGITS = ("3+4", "7*5", "100"), "[0-9]{3,12}"
"""The choices and the regular expression of structured outputs."""
INVALID: Sequence[Mapping[str, Any]] = (
    {"method": "unknown"},
    {"method": 7},
    {"method": "esamp", "beta": -1},
    {"method": "esamp", "beta": "much"},
    {"method": "esamp", "beta": float("nan")},
    {"method": "esamp", "unheard_of": 1},
    {"method": "esamp", "group": "short"},
    {"method": "esamp", "telemetry": "perhaps"},
    {"method": "esamp", "waves": 0},
    {"method": "vanilla", "beta": 1.0},
)
"""Parameters of decode methods that admission refuses."""


def seeds(*usual: int) -> Sequence[int]:
    """The seeds of a test, or the one to replay."""
    return [int(os.environ[REPLAY])] if REPLAY in os.environ else usual


@dataclass(frozen=True)
class Arrival:
    """A request that arrives."""

    name: str
    prompt: tuple[int, ...]
    params: Mapping[str, Any]
    """arguments of ``SamplingParams``"""
    extra: Mapping[str, Any] | None = None
    """``extra_args`` of ``SamplingParams``: the decode method and its options"""
    bypasses_admission: bool = False
    """whether it skips admission, so that the engine gets unchecked parameters"""
    refused: bool = False
    """whether admission must refuse it"""
    side: int = 0
    """requests of different sides share no group and no prefix"""

    @property
    def n(self) -> int:
        """The number of samples."""
        return int(self.params.get("n", 1))

    @property
    def has_method(self) -> bool:
        """Whether the request names a decode method, with valid parameters or not."""
        return self.extra is not None and (self.bypasses_admission or self.extra["method"] == "esamp")

    @property
    def steers(self) -> bool:
        """Whether the request's method may change its samples."""
        if self.extra is None or self.extra in INVALID or self.extra["method"] != "esamp":
            return False
        return bool(self.extra.get("beta", 1)) or self.extra.get("signal", "state") != "state"

    @property
    def group(self) -> str | None:
        """The name of the group that the request joins, None for its own group."""
        return None if self.extra is None or self.extra in INVALID else self.extra.get("group")


@dataclass(frozen=True)
class Abort:
    """Aborts one sample of a request, or all samples if `sample` is None."""

    name: str
    sample: int | None = None


@dataclass(frozen=True)
class Flush:
    """Resets the prefix cache, for which vLLM preempts all running requests."""


@dataclass(frozen=True)
class Profile:
    """The load of a schedule: how many requests, of what lengths, with which methods and at what pace."""

    requests: int = 40
    steered_fixed: bool = False
    """whether the lengths of steered requests are fixed, so that batches are the same without steering"""
    all_fixed: bool = False
    """whether the lengths of all requests are fixed"""
    seeded: float = 0.6
    """share of requests with a seed of their own"""
    budget: int | None = 40
    """tokens per step, so that prompts are split into chunks; None: no prompt is split"""
    lengths: Sequence[int] = (1, 3, 10, 30, 60)
    """lengths of prompts without their shared prefixes"""
    prefixes: Sequence[int] = (BLOCK - 1, BLOCK, 2 * BLOCK + 5, 7)
    """lengths of shared prefixes"""
    longest: int = 40
    """largest token limit of a sample"""
    pace: Sequence[int] = (0, 0, 0, 1, 1, 2, 6)
    """steps from one request to the next"""
    methods: float = 0.6
    """share of requests with a method"""
    unusual: float = 0.5
    """share of the methods with options that differ from the defaults"""
    waves: bool = True
    """whether groups may run in several waves"""
    invalid: float = 0.08
    """share of requests with invalid parameters"""
    shared: float = 0.15
    """share of the methods whose requests join a named group"""


@dataclass(frozen=True)
class Schedule:
    """The events before each step of the engine."""

    seed: int
    profile: Profile
    events: Mapping[int, Sequence[Arrival | Abort | Flush]]

    @property
    def arrivals(self) -> list[Arrival]:
        """All requests in the order of their arrival."""
        return [event for step in sorted(self.events) for event in self.events[step] if isinstance(event, Arrival)]

    def with_other_prompts(self, side: int) -> "Schedule":
        """The same schedule, where the requests of one side have other prompts of the same lengths."""
        events = {
            step: [
                replace(event, prompt=tuple(_other_token(token) for token in event.prompt))
                if isinstance(event, Arrival) and event.side == side
                else event
                for event in these
            ]
            for step, these in self.events.items()
        }
        return replace(self, events=events)


def _other_token(token: int) -> int:
    """Map each number token to another one, one to one."""
    return token if token not in NUMBERS else NUMBERS[(token - NUMBERS.start + 37) % len(NUMBERS)]
