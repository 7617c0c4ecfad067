"""The contrast signal and the limits of a change in float64 and plain loops; shares no code with the package."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from support.esamp_reference import Vector, kl, softmax


class Loops:
    """One group, token by token: every sample keeps the list of its states."""

    def __init__(self, size: int, samples: int, forgetting: float) -> None:
        self.size, self.samples, self.forgetting = size, samples, forgetting
        self.seen: dict[int, list[list[Vector]]] = {}  # by mean: for each step, the states that were added

    def _sum(self, mean: int) -> tuple[Vector, float]:
        total, weight = np.zeros(self.size), 0.0
        for age, states in enumerate(reversed(self.seen.get(mean, []))):
            for state in states:
                total = total + self.forgetting**age * state
                weight += self.forgetting**age
        return total, weight

    def contrast(self, sample: int) -> tuple[Vector, float]:
        mean = sample % self.samples
        own, n = self._sum(mean)
        others = [self._sum(other) for other in self.seen if other != mean]
        total, count = sum((s for s, _ in others), np.zeros(self.size)), sum(w for _, w in others)
        if n == 0 or count == 0:
            return np.zeros(self.size), 0.0
        return own / n - total / count, n / (n + 8) * count / (count + 8)

    def learn(self, rows: Sequence[tuple[int, Vector]]) -> None:
        for mean in {sample % self.samples for sample, _ in rows}:
            self.seen.setdefault(mean, []).append([state for sample, state in rows if sample % self.samples == mean])


def capped(own: Vector, fused: Vector, cap: float) -> Vector:
    """Every change relative to the mean change goes through ``cap tanh(x / cap)``."""
    mean = float(np.mean(fused - own))
    return np.array([r + cap * math.tanh((f - r - mean) / cap) for r, f in zip(own, fused, strict=True)])


def limited(own: Vector, fused: Vector, budget: float) -> Vector:
    """The point between `own` and `fused` whose KL from `own` is `budget`, or `fused` where that is closer."""
    if kl(fused, own) <= budget:
        return fused
    share = brentq(lambda t: kl(own + t * (fused - own), own) - budget, 0.0, 1.0, xtol=1e-12)
    return own + share * (fused - own)


def entropy(logits: Vector) -> float:
    """In nats."""
    return -sum(p * math.log(p) for p in softmax(logits) if p > 0)


def softened(own: Vector, fused: Vector) -> Vector:
    """`fused`, with its differences from the largest logit made smaller until its entropy is that of `own`."""
    if entropy(fused) >= entropy(own):
        return fused
    share = brentq(lambda t: entropy(t * fused) - entropy(own), 0.0, 1.0, xtol=1e-12)
    return max(fused) + share * (fused - max(fused))


def with_ends_kept(own: Vector, fused: Vector, stops: Sequence[int]) -> Vector:
    """The stops' logits as under `own`, the others in proportion to `fused` with what probability is left."""
    old, new = softmax(own), softmax(fused)
    total = math.log(sum(math.exp(x - max(own)) for x in own)) + max(own)
    left_old, left_new = (1 - sum(p[z] for z in set(stops)) for p in (old, new))
    return np.array([total + math.log(old[z] if z in stops else new[z] * left_old / left_new) for z in range(len(own))])
