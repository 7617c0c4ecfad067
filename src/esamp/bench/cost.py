"""An arm's cost, split into launches, bytes and the rest."""

from dataclasses import dataclass

from esamp.bench.launches import Counts
from esamp.bench.throughput import Throughput


@dataclass(frozen=True)
class CostBreakdown:
    """What a method adds to a decode step, with estimates of its parts; in milliseconds per step."""

    label: str
    step: float
    """time of a step with the method"""
    added: float
    """time that the method adds to a step"""
    noise: bool
    """whether the 95 % interval of the throughput ratio contains 1"""
    counts: Counts | None = None
    """counts that the method adds to a step; None if they were not taken"""
    launching: float = 0.0
    """the added launches, times the duration of a small launch on this device"""
    moving: float = 0.0
    """the added bytes, divided by the rate of a large copy"""

    @property
    def rest(self) -> float:
        """The time that neither explains: Python between the launches, and arithmetic."""
        return max(0.0, self.added - self.launching - self.moving)

    @property
    def largest(self) -> str:
        parts = {"launches": self.launching, "bytes": self.moving, "Python and arithmetic": self.rest}
        return max(parts, key=lambda name: parts[name])

    def sentence(self) -> str:
        """The breakdown in words."""
        if self.noise or self.added <= 0:
            return f"{self.label}: its cost, {self.added:+.2f} ms in a step of {self.step:.2f} ms, is within the noise"
        total = f"{self.label} adds {self.added:.2f} ms to a step, {100 * self.added / self.step:.0f} % of it"
        if self.counts is None:
            return total
        return (
            f"{total}: {self.counts.launches:.0f} more launches take about {self.launching:.2f} ms, "
            f"{self.counts.bytes / 1e6:.1f} MB more about {self.moving:.2f} ms, Python and arithmetic the remaining "
            f"{self.rest:.2f} ms; {self.largest} limit it most"
        )


def cost_breakdown(
    result: Throughput, label: str, counts: Counts | None = None, *, launch: float = 0.0, rate: float = 1.0
) -> CostBreakdown:
    """Split the cost of an arm.

    Args:
        result: the timed runs.
        label: label of the arm.
        counts: counts that the arm adds to a step; None if they were not taken.
        launch: seconds per launch.
        rate: bytes per second that the device moves.
    """
    ratio = result.ratio(label)
    parts = (
        (1000 * counts.launches * launch, 1000 * max(0.0, counts.bytes) / rate) if counts is not None else (0.0, 0.0)
    )
    noise = ratio.low <= 1 <= ratio.high
    return CostBreakdown(label, result.step(label), result.added(label), noise, counts, *parts)
