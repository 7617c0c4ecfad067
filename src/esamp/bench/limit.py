"""What an arm's cost consists of: launches, bytes, and what is left."""

from dataclasses import dataclass

from esamp.bench.launches import Counts
from esamp.bench.throughput import Throughput


@dataclass(frozen=True)
class Limit:
    """What a method adds to a step, and estimates of its parts. All in milliseconds a step unless named otherwise."""

    label: str
    step: float
    """with the method"""
    added: float
    noise: bool
    """whether the 95 % interval of the ratio holds 1"""
    counts: Counts | None = None
    """what the method adds; None if it was not counted"""
    launching: float = 0.0
    """launches times what a small one takes on this device"""
    moving: float = 0.0
    """bytes over the rate of a large copy"""

    @property
    def rest(self) -> float:
        """What neither explains: Python between the launches, and arithmetic."""
        return max(0.0, self.added - self.launching - self.moving)

    @property
    def largest(self) -> str:
        """Which part is the largest."""
        parts = {"launches": self.launching, "bytes": self.moving, "Python and arithmetic": self.rest}
        return max(parts, key=lambda name: parts[name])

    def sentence(self) -> str:
        """For people."""
        if self.noise or self.added <= 0:
            return f"{self.label}: its cost, {self.added:+.2f} ms in a step of {self.step:.2f} ms, is within the noise"
        said = f"{self.label} adds {self.added:.2f} ms to a step, {100 * self.added / self.step:.0f} % of it"
        if self.counts is None:
            return said
        return (
            f"{said}: {self.counts.launches:.0f} more launches take about {self.launching:.2f} ms, "
            f"{self.counts.bytes / 1e6:.1f} MB more about {self.moving:.2f} ms, Python and arithmetic the remaining "
            f"{self.rest:.2f} ms; {self.largest} limit it most"
        )


def limit(
    result: Throughput, label: str, counts: Counts | None = None, *, launch: float = 0.0, rate: float = 1.0
) -> Limit:
    """Take an arm's cost apart.

    Args:
        result: what was timed.
        label: the arm.
        counts: what it adds to a step's counts.
        launch: seconds of one launch.
        rate: bytes that the device moves in a second.
    """
    ratio = result.ratio(label)
    parts = (
        (1000 * counts.launches * launch, 1000 * max(0.0, counts.bytes) / rate) if counts is not None else (0.0, 0.0)
    )
    noise = ratio.low <= 1 <= ratio.high
    return Limit(label, result.step(label), result.added(label), noise, counts, *parts)
