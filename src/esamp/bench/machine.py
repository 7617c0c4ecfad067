"""The cost of one launch and one byte on a device."""

import time
from collections.abc import Callable

import torch

LAUNCHES, PASSES = 2000, 5
"""Launches that are timed together, and repetitions, of which the fastest counts."""
COPIED = 64 << 20
"""Bytes copied: more than fit into a CPU's cache."""


def launch_seconds(device: str) -> float:
    """Seconds from the start of one small operation to the start of the next, called from Python."""
    number = torch.zeros(16, device=device)

    def add() -> None:
        for _ in range(LAUNCHES):
            number.add_(1)

    return _fastest(add, device) / LAUNCHES


def bytes_per_second(device: str) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(PASSES):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def wait(device: str) -> None:
    """Wait until the device has finished all work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
