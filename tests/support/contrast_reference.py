"""An independent implementation of the contrast signal and of the limits on steered logits: float64, plain loops.

It shares no code with the package.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from support.esamp_reference import Vector, kl, softmax


class Loops:
    """The running means of one group, computed from the list of all its hidden states."""

    def __init__(self, size: int, samples: int, forgetting: float) -> None:
        self.size, self.samples, self.forgetting = size, samples, forgetting
        self.seen: dict[int, list[list[Vector]]] = {}  # for each mean the states added at each step

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
    """own + cap tanh((fused - own - mean) / cap), where mean is the mean of fused - own over the vocabulary."""
    mean = float(np.mean(fused - own))
    return np.array([r + cap * math.tanh((f - r - mean) / cap) for r, f in zip(own, fused, strict=True)])


def limited(own: Vector, fused: Vector, budget: float) -> Vector:
    """The logits on the line from `own` to `fused` with KL(new || own) = `budget`, or `fused` if its KL is smaller."""
    if kl(fused, own) <= budget:
        return fused
    share = brentq(lambda t: kl(own + t * (fused - own), own) - budget, 0.0, 1.0, xtol=1e-12)
    return own + share * (fused - own)


def entropy(logits: Vector) -> float:
    """Entropy of softmax(logits) in nats."""
    return -sum(p * math.log(p) for p in softmax(logits) if p > 0)


def softened(own: Vector, fused: Vector) -> Vector:
    """`fused` with all differences from its largest logit scaled down until its entropy equals that of `own`."""
    if entropy(fused) >= entropy(own):
        return fused
    share = brentq(lambda t: entropy(t * fused) - entropy(own), 0.0, 1.0, xtol=1e-12)
    return max(fused) + share * (fused - max(fused))


def with_ends_kept(own: Vector, fused: Vector, stops: Sequence[int]) -> Vector:
    """Log-probabilities: those of `own` for the end tokens `stops`; the others share the rest as under `fused`."""
    old, new = softmax(own), softmax(fused)
    total = math.log(sum(math.exp(x - max(own)) for x in own)) + max(own)
    left_old, left_new = (1 - sum(p[z] for z in set(stops)) for p in (old, new))
    return np.array([total + math.log(old[z] if z in stops else new[z] * left_old / left_new) for z in range(len(own))])
