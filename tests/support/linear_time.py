"""A check that a function's run time is linear in its input, independent of the machine's speed and load."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

FACTOR = 4
BOUND = 11.0
"""The largest accepted ratio of run times: 4 times the input takes linear work 4 times as long, quadratic work 16.

On a busy machine the larger input may take twice that, because it no longer fits into the share of the cache that is
left for it.
"""
REPETITIONS = 4
"""How often both texts are measured at most."""
SMALL = 0.02
"""Shorter measurements, in seconds, count as this long, because they are mostly noise."""


def _processor_time(work: Callable[[str], Any], text: str) -> float:
    """Processor seconds of this thread alone, so that other threads and processes do not count.

    Nor does garbage collection, which takes as long as the whole process has objects: a second after many tests.
    """
    gc.disable()
    try:
        started = time.thread_time()
        work(text)
        return time.thread_time() - started
    finally:
        gc.enable()


def assert_linear(work: Callable[[str], Any], make: Callable[[int], str], size: int) -> None:
    """Check that `work` on `make(4 * size)` takes about four times as long as on `make(size)`, not sixteen times.

    Both are measured up to `REPETITIONS` times, and the minima are compared, because interruptions only add time.
    """
    small, large = make(size), make(FACTOR * size)
    least = {small: float("inf"), large: float("inf")}
    for _ in range(REPETITIONS):
        for text in (small, large):
            least[text] = min(least[text], _processor_time(work, text))
        if least[large] <= BOUND * max(least[small], SMALL):
            return
    raise AssertionError(
        f"{FACTOR} times the input took {least[large] / least[small]:.1f} times as long "
        f"({least[small]:.3f} s, then {least[large]:.3f} s); linear work takes about {FACTOR} times as long"
    )
