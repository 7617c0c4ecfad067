"""How the cost of one decode step of a method grows: with groups and samples, with the states' size, with slots.

No model runs: a method is built for random states and a small random LM head, and takes part in decode steps as it
would in an engine. What is measured is therefore the method alone.
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
from esamp.bench.throughput import Arm
from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep, Rows
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.methods.base import DecodeMethod, ModelShape

Series: TypeAlias = Literal["groups", "size", "slots"]
GROUPS, SAMPLES = (1, 8, 32), (1, 4, 16)
SIZES = (576, 896, 2048, 4096, 8192)
SLOTS = (1, 4, 16, 64, 256)
SIZE, ROWS = 1024, 16
"""d, and samples of the one group, where they are not what varies."""
DEPTH, VOCABULARY = 32, 1024
"""Layers that the method is told of, and rows of the random LM head."""
LARGEST = 512 << 20
"""Bytes of a bank up to which a point is measured: a step may need several times as much."""
WARM, LEAST, MOST, SECONDS = 2, 5, 200, 0.3
"""Uncounted steps of a point, counted ones at least and at most, and the time after which they end."""


@dataclass(frozen=True)
class Place:
    """What is measured at one point."""

    series: Series
    """which of the three grids it belongs to"""
    groups: int
    samples: int
    """of each group"""
    size: int
    """d of source and deep states"""
    slots: int
    """of the bank; only those of the groups take part"""

    @property
    def rows(self) -> int:
        """All groups' samples."""
        return self.groups * self.samples


@dataclass(frozen=True)
class Point:
    """What one step costs at a place."""

    place: Place
    predict: float
    """median milliseconds before and behind the LM head, without its projections"""
    learn: float
    """median milliseconds after sampling"""
    low: float
    """milliseconds of both together, first quartile over steps"""
    high: float
    """third quartile"""
    counts: Counts
    minimum: float | None
    """least bytes (`esamp.bench.minimum`), where there is a formula"""
    bank_bytes: int

    @property
    def total(self) -> float:
        """Milliseconds of both."""
        return self.predict + self.learn

    def as_dict(self) -> dict[str, Any]:
        """One flat record, for JSON and CSV."""
        return {
            **vars(self.place),
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
class LeftOut:
    """A point that would take too much memory."""

    place: Place
    bank_bytes: int


def places() -> list[Place]:
    """The three grids."""
    found = [Place("groups", groups, samples, SIZE, groups) for groups in GROUPS for samples in SAMPLES]
    found += [Place("size", 1, ROWS, size, 1) for size in SIZES]
    return found + [Place("slots", 1, ROWS, SIZE, slots) for slots in SLOTS]


def measure(
    arm: Arm, wanted: Sequence[Place], *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Iterator[Point | LeftOut]:
    """Measure the method at each place.

    Args:
        arm: the method; it may read states, logits and the rows of the LM head, but no tokens of a prompt.
        wanted: where.
        device: where states and bank live.
        dtype: of the states.

    Raises:
        OptionError: the method needs more than random states.
    """
    method = arm.decoding
    if method.needs:
        raise OptionError(f"method {arm.method!r} needs {min(method.needs)}, and scaling has random states alone")
    for place in wanted:
        layers = method.layers(arm.options, DEPTH)
        shape = ModelShape(
            place.size,
            dict.fromkeys(layers, place.size),
            DEPTH,
            torch.device(device),
            vocabulary=VOCABULARY,
            line_breaks=tuple,
        )
        size = method.size(arm.options, shape, slots=place.slots)
        if size > LARGEST:
            yield LeftOut(place, size)
            continue
        built = method.build(arm.options, shape, slots=place.slots, full=False)
        steps = _Steps(built, place, layers, device, dtype)
        timed = steps.timed()
        with Recorder(host_reads=device == "cpu") as recorder:
            steps.take(lambda: None)
        least = None
        if arm.method == "esamp" and isinstance(arm.options, ESampConfig):
            least = minimum(arm.options, rows=place.rows, groups=place.groups, size=place.size, number=dtype.itemsize)
        predict, learn = np.median(timed, 0).tolist()
        low, high = np.quantile(timed.sum(1), (0.25, 0.75)).tolist()
        known = None if least is None else least.total
        yield Point(place, predict, learn, low, high, recorder.counts, known, built.nbytes)


class _RandomHead:
    """A linear LM head with few random rows."""

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
    """Decode steps with random states, which repeat after `KINDS`."""

    KINDS = 4

    def __init__(
        self, method: DecodeMethod, place: Place, layers: Sequence[int], device: str, dtype: torch.dtype
    ) -> None:
        self._method, self._device, self._taken = method, device, 0
        torch.manual_seed(0)
        slots = [method.admit() for _ in range(place.groups)]
        layout = RowLayout.build([slot for slot in slots for _ in range(place.samples)], device)
        self._head = _RandomHead(place.size, device)
        self._live = torch.ones(place.rows, dtype=torch.bool, device=device)
        self._tokens = torch.randint(VOCABULARY, (place.rows,), device=device)
        index = torch.arange(place.rows, device=device) % place.samples
        same = torch.ones_like(index)
        known = Rows(
            index, same * place.samples, same, same << 40, same, same.unsqueeze(1) * -1, same.to(torch.float32)
        )

        def states() -> Tensor:
            return torch.randn(place.rows, place.size, device=device).to(dtype)

        self._steps = [
            DecodeStep(states(), {layer: states() for layer in layers}, layout, self._live, self._head, known)
            for _ in range(self.KINDS)
        ]

    def take(self, mark: Callable[[], object]) -> None:
        """One step; `mark` is called before it, behind the head and after learning, the projection left out."""
        step = self._steps[self._taken % self.KINDS]
        self._taken += 1
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

    def timed(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        """Milliseconds `[steps, 2]` of predicting and learning."""
        found: list[tuple[float, float]] = []
        marks: list[float] = []

        def mark() -> None:
            wait(self._device)
            marks.append(time.perf_counter())

        ends = time.perf_counter() + SECONDS
        while len(found) < WARM + LEAST or (time.perf_counter() < ends and len(found) < MOST):
            marks.clear()
            self.take(mark)
            steer, _, combine, learn = np.diff(marks).tolist()
            found.append((steer + combine, learn))
        return 1000 * np.array(found[WARM:])
