"""What one launch and one byte cost on a device, to say what a measured step consists of."""

import time
from collections.abc import Callable

import torch

LAUNCHES, PASSES = 2000, 5
COPIED = 64 << 20
"""Bytes that are copied: more than a CPU's cache holds."""


def launch_seconds(device: str) -> float:
    """Seconds from the start of one small operation to the start of the next, called from Python."""
    number = torch.zeros(16, device=device)

    def add() -> None:
        for _ in range(LAUNCHES):
            number.add_(1)

    return _fastest(add, device) / LAUNCHES


def bytes_per_second(device: str) -> float:
    """Bytes that a copy reads and writes in a second."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: str) -> float:
    found = []
    for _ in range(PASSES):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - started)
    return min(found)


def wait(device: str) -> None:
    """Until the device has nothing more to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
