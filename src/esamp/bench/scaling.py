"""The cost of one decode step of a method over groups and samples, over the size of the states, and over slots.

No model runs. The method is built for random states and a small random LM head, and takes part in decode steps as in an
engine. The measured cost is therefore that of the method alone.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from esamp.bench.launches import Counts, Recorder
from esamp.bench.machine import wait
from esamp.bench.minimum import minimum
from esamp.bench.throughput import BenchArm
from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep, Rows
from esamp.errors import OptionError
from esamp.explorer.captured import STEADY_STEPS
from esamp.explorer.config import ESampConfig
from esamp.methods.base import DecodeMethod, ModelShape

Series: TypeAlias = Literal["groups", "size", "slots"]
GROUPS, SAMPLES = (1, 8, 32), (1, 4, 16)
SIZES = (576, 896, 2048, 4096, 8192)
SLOTS = (1, 4, 16, 64, 256)
SIZE, ROWS = 1024, 16
"""d, and samples of the single group, in series that do not vary them."""
DEPTH, VOCABULARY = 32, 1024
"""Number of layers of the pretended model, and rows of its random LM head."""
LARGEST = 512 << 20
"""Most bytes of a bank that is measured: a step may need several times as much memory."""
WARM, LEAST, MOST, SECONDS = 2, 5, 200, 0.3
"""Warm-up steps of a case, least and most counted steps, and the seconds after which counting ends."""


@dataclass(frozen=True)
class ScalingCase:
    """The sizes of one measurement."""

    series: Series
    """the grid that it belongs to"""
    groups: int
    samples: int
    """samples of each group"""
    size: int
    """d, of the source states and the final hidden states"""
    slots: int
    """slots of the bank; only those of the groups take part in the step"""

    @property
    def rows(self) -> int:
        """Samples of all groups."""
        return self.groups * self.samples


@dataclass(frozen=True)
class ScalingPoint:
    """The cost of one step in a case."""

    case: ScalingCase
    predict: float
    """median milliseconds before and after the LM head, without its projections"""
    learn: float
    """median milliseconds after sampling"""
    low: float
    """first quartile over steps of the sum of both, in milliseconds"""
    high: float
    """third quartile of the same"""
    counts: Counts
    minimum: float | None
    """least bytes (`esamp.bench.minimum`); None if there is no formula"""
    bank_bytes: int

    @property
    def total(self) -> float:
        """Sum of both medians, in milliseconds."""
        return self.predict + self.learn

    def as_dict(self) -> dict[str, Any]:
        """One flat record, for JSON and CSV."""
        return {
            **vars(self.case),
            "ms_predict": self.predict,
            "ms_learn": self.learn,
            "ms_low": self.low,
            "ms_high": self.high,
            "launches": self.counts.launches,
            "bytes": self.counts.bytes,
            "minimum_bytes": self.minimum,
            "waits": self.counts.waits,
            "allocations": self.counts.allocations,
            "bank_bytes": self.bank_bytes,
        }


@dataclass(frozen=True)
class SkippedCase:
    """A case that was not measured because it would take too much memory."""

    case: ScalingCase
    bank_bytes: int


def cases() -> list[ScalingCase]:
    """The cases of all three grids."""
    all_cases = [ScalingCase("groups", groups, samples, SIZE, groups) for groups in GROUPS for samples in SAMPLES]
    all_cases += [ScalingCase("size", 1, ROWS, size, 1) for size in SIZES]
    return all_cases + [ScalingCase("slots", 1, ROWS, SIZE, slots) for slots in SLOTS]


def measure(
    arm: BenchArm,
    cases: Sequence[ScalingCase],
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    capture: bool = False,
) -> Iterator[ScalingPoint | SkippedCase]:
    """Measure the method in each case.

    Args:
        arm: the method; it may read states, logits and rows of the LM head, but no tokens of a prompt.
        cases: the cases.
        device: device of the states and of the bank.
        dtype: number format of the states.
        capture: replay the method's kernels as CUDA graphs, in which launches are not counted.

    Raises:
        OptionError: the method needs something else, or `device` has no CUDA graphs.
    """
    method = arm.decoding
    if method.needs:
        raise OptionError(f"method {arm.method!r} needs {min(method.needs)}, but scaling has only random states")
    for case in cases:
        layers = method.layers(arm.options, DEPTH)
        shape = ModelShape(
            case.size,
            dict.fromkeys(layers, case.size),
            DEPTH,
            torch.device(device),
            vocabulary=VOCABULARY,
            line_breaks=tuple,
            captures=capture,
        )
        size = method.size(arm.options, shape, slots=case.slots)
        if size > LARGEST:
            yield SkippedCase(case, size)
            continue
        built = method.build(arm.options, shape, slots=case.slots, full=False)
        steps = _Steps(built, case, layers, device, dtype)
        timed = steps.timed(WARM + (STEADY_STEPS if capture else 0))
        with Recorder(host_reads=device == "cpu") as recorder:
            steps.take(lambda: None)
        least = None
        if arm.method == "esamp" and isinstance(arm.options, ESampConfig):
            least = minimum(arm.options, rows=case.rows, groups=case.groups, size=case.size, number=dtype.itemsize)
        predict, learn = np.median(timed, 0).tolist()
        low, high = np.quantile(timed.sum(1), (0.25, 0.75)).tolist()
        known = None if least is None else least.total
        yield ScalingPoint(case, predict, learn, low, high, recorder.counts, known, built.nbytes)


class _RandomHead:
    """A linear LM head with `VOCABULARY` random rows."""

    is_linear = has_rows = True

    def __init__(self, size: int, device: str) -> None:
        self.weight = torch.randn(VOCABULARY, size, device=device) / size**0.5

    def rows(self, tokens: Tensor) -> Tensor:
        rows: Tensor = self.weight.index_select(0, tokens)
        return rows

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        rows: Tensor = probabilities.float() @ self.weight
        return rows


class _Steps:
    """Decode steps with random states; the states repeat every `DISTINCT` steps."""

    DISTINCT = 4

    def __init__(
        self, method: DecodeMethod, case: ScalingCase, layers: Sequence[int], device: str, dtype: torch.dtype
    ) -> None:
        self._method, self._device, self._count = method, device, 0
        torch.manual_seed(0)
        slots = [method.admit() for _ in range(case.groups)]
        layout = RowLayout.build([slot for slot in slots for _ in range(case.samples)], device)
        self._head = _RandomHead(case.size, device)
        self._live = torch.ones(case.rows, dtype=torch.bool, device=device)
        self._tokens = torch.randint(VOCABULARY, (case.rows,), device=device)
        index = torch.arange(case.rows, device=device) % case.samples
        same = torch.ones_like(index)
        rows = Rows(index, same * case.samples, same, same << 40, same, same.unsqueeze(1) * -1, same.to(torch.float32))

        def states() -> Tensor:
            return torch.randn(case.rows, case.size, device=device).to(dtype)

        self._steps = [
            DecodeStep(states(), {layer: states() for layer in layers}, layout, self._live, self._head, rows)
            for _ in range(self.DISTINCT)
        ]

    def take(self, mark: Callable[[], object]) -> None:
        """Take one step; `mark` is called before it and after steering, projection, combining and learning."""
        step = self._steps[self._count % self.DISTINCT]
        self._count += 1
        mark()
        steering = self._method.steer(step)
        mark()
        logits = [] if steering.plain else [state.float() @ self._head.weight.mT for state in steering.states]
        mark()
        if logits:
            combined = steering.combine(*logits)
            if combined.late is not None:
                combined.late(combined.logits.float())
        mark()
        self._method.observe(step, self._tokens, self._live)
        mark()

    def timed(self, warm: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        """Milliseconds `[steps, 2]` of prediction and of learning, after `warm` steps that are not counted."""
        rows: list[tuple[float, float]] = []
        marks: list[float] = []

        def mark() -> None:
            wait(self._device)
            marks.append(time.perf_counter())

        ends = time.perf_counter() + SECONDS
        while len(rows) < warm + LEAST or (time.perf_counter() < ends and len(rows) < MOST):
            marks.clear()
            self.take(mark)
            steer, _, combine, learn = np.diff(marks).tolist()
            rows.append((steer + combine, learn))
        return 1000 * np.array(rows[warm:])
