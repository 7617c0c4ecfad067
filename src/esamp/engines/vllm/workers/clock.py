"""`Clock`: measures how long the phases of exploring take, without synchronising with the device."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds per phase. On a GPU they are measured by pairs of CUDA events, which are read once they are complete."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._open: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._spare: list[torch.cuda.Event] = []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of the block to `phase`."""
        if not self._cuda:
            started = time.perf_counter()
            try:
                yield
            finally:
                self._add(phase, time.perf_counter() - started)
            return
        begin, end = self._event(), self._event()
        begin.record()
        try:
            yield
        finally:
            end.record()
            self._open.append((phase, begin, end))
            self._collect()

    def seconds(self) -> dict[str, float]:
        """Seconds per phase so far; on a GPU only of blocks that the device has completed."""
        self._collect()
        return dict(self._seconds)

    def _add(self, phase: str, seconds: float) -> None:
        self._seconds[phase] += seconds

    def _event(self) -> torch.cuda.Event:
        return self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)

    def _collect(self) -> None:
        while self._open and self._open[0][2].query():
            phase, begin, end = self._open.popleft()
            self._add(phase, begin.elapsed_time(end) / 1000)
            self._spare += [begin, end]
