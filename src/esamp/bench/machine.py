"""The cost of one launch and one byte on a device."""

import statistics
import time
from collections.abc import Callable

import torch

OPERATIONS = 12
"""Small operations of different kinds that are timed together."""
PASSES = 20
"""Times that the small operations are timed; the median counts."""
COPIES = 5
"""Copies that are timed; the fastest counts."""
LEAST_SWEPT, MOST_SWEPT = 8 << 20, 512 << 20
"""Bounds of the bytes that are overwritten before each pass."""
COPIED = 64 << 20
"""Bytes copied: more than fit into a CPU's cache."""


def launch_seconds(device: str, step_bytes: float) -> float:
    """Seconds that a launch takes, called from Python as in a decode step of a model which moves `step_bytes`.

    That is the mean over a dozen small operations of different kinds. The forward pass of a model replaces their code
    and their data in the CPU's caches by its own, so as many bytes as the model moves are overwritten before each pass.
    A launch then takes several times as long as in a loop of its own.
    """
    swept = torch.zeros(int(min(max(step_bytes, LEAST_SWEPT), MOST_SWEPT)) // 8)  # each number is read and written
    rows, flags = torch.ones(1, 16, 64, device=device), torch.ones(1, 16, dtype=torch.bool, device=device)
    wide, total = rows.double(), torch.zeros(1, 64, 64, device=device)
    seconds = []
    for _ in range(PASSES):
        swept.add_(1)
        wait(device)
        started = time.perf_counter()
        torch.sub(rows, rows[:, :1])
        torch.mul(rows, 2.0)
        torch.bmm(rows, rows.mT)
        torch.cat([rows, rows], dim=-1)
        torch.where(flags.unsqueeze(-1), rows, total[:, :16])
        torch.linalg.vector_norm(rows, dim=-1)
        flags.any(1)
        torch.gt(rows, 0.5)
        total.baddbmm_(rows.mT, rows)
        torch.addcmul(rows, rows, rows)
        wide.to(torch.float32)
        torch.bmm(wide, wide.mT)
        wait(device)
        seconds.append((time.perf_counter() - started) / OPERATIONS)
    return statistics.median(seconds)


def bytes_per_second(device: str) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(COPIES):
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
