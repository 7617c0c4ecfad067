"""An independent implementation of the rival methods: row by row in float64, with plain loops, from their definitions.

It shares no code with the package. Logits are lists of numbers, minus infinity for dropped tokens.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TypeAlias

Row: TypeAlias = list[float]
DROPPED = -math.inf
MASK = 2**64 - 1


@dataclass(frozen=True)
class Place:
    """The place of a token to be drawn: its position, its sample, and the sample's settings."""

    position: int = 1
    index: int = 0
    seed: int = 0
    temperature: float = 1.0
    protected: frozenset[int] = frozenset()
    """tokens that break lines or end the sample, which XTC does not exclude"""


Change: TypeAlias = Callable[[Row, Place], Row]
"""A filter of logits."""


def softmax(logits: Iterable[float]) -> Row:
    row = list(logits)
    top = max(row)
    weights = [math.exp(x - top) for x in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def kept(logits: Iterable[float]) -> set[int]:
    return {token for token, x in enumerate(logits) if x > DROPPED}


def restricted(logits: Row, tokens: Iterable[int]) -> Row:
    keep = set(tokens)
    return [x if token in keep else DROPPED for token, x in enumerate(logits)]


def ranked(logits: Row) -> list[int]:
    """Tokens by decreasing logit; ties in the order of token ids."""
    return sorted(range(len(logits)), key=lambda token: (-logits[token], token))


# ---- the engine's sampler


def penalised(
    logits: Row, prompt: Sequence[int], generated: Sequence[int], presence: float, frequency: float, repetition: float
) -> Row:
    row = list(logits)
    for token in {*prompt, *generated}:
        row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
    for token in generated:
        row[token] -= frequency
    for token in set(generated):
        row[token] -= presence
    return row


def top_k(logits: Row, k: int) -> Row:
    if not k:
        return logits
    last = logits[ranked(logits)[min(k, len(logits)) - 1]]
    return restricted(logits, (token for token, x in enumerate(logits) if x >= last))


def top_p(logits: Row, p: float) -> Row:
    chosen: list[int] = []
    mass, shares = 0.0, softmax(logits)
    for token in ranked(logits):
        if chosen and mass >= p:
            break
        chosen.append(token)
        mass += shares[token]
    return restricted(logits, chosen)


def min_p(logits: Row, base: float) -> Row:
    shares = softmax(logits)
    best = max(shares)
    return restricted(logits, (token for token, share in enumerate(shares) if share >= base * best))


# ---- the rivals


def sigma_threshold(logits: Row, n: float) -> float:
    """max - n * (unbiased standard deviation)."""
    finite = [x for x in logits if math.isfinite(x)]
    mean = math.fsum(finite) / len(finite)
    spread = math.fsum((x - mean) ** 2 for x in finite) / max(len(finite) - 1, 1)
    return max(finite) - n * math.sqrt(spread)


def top_n_sigma(n: float) -> Change:
    def change(logits: Row, place: Place) -> Row:
        threshold = sigma_threshold(logits, n)
        return [x if x >= threshold else DROPPED for x in logits]

    return change


def fire(hot: float, k: int) -> Change:
    def change(logits: Row, place: Place) -> Row:
        if place.position > 0:
            return logits
        return [x * place.temperature / hot for x in top_k(logits, k)]

    return change


def coin(place: Place, purpose: int) -> float:
    """A pseudo-random number in (0, 1) for seed, index, position and purpose, by SplitMix64 in Python integers."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    golden, state = 0x9E3779B97F4A7C15, 0
    for number, key in enumerate((place.seed, place.index, place.position, purpose)):
        state = mix(((key if number == 0 else state ^ key) * golden + golden) & MASK)
    return ((state >> 12) + 0.5) / 2**52


def xtc(probability: float, threshold: float) -> Change:
    def change(logits: Row, place: Place) -> Row:
        shares = softmax(logits)
        top = [token for token, share in enumerate(shares) if share >= threshold]
        if len(top) < 2 or coin(place, 1) >= probability:
            return logits
        least_likely = min(top, key=lambda token: (shares[token], token))
        excluded = set(top) - {least_likely}
        if excluded & place.protected:
            return logits
        return restricted(logits, set(range(len(logits))) - excluded)

    return change


def contributions(logits: Row) -> Row:
    """H_{k-1} - H_k for k = 1 ... V, where H_k is the relative entropy if only the first k tokens are told apart."""
    size = len(logits)
    shares = sorted(softmax(logits), reverse=True)
    head_entropies = [0.0, *accumulate(-p * math.log(p) if p > 0 else 0.0 for p in shares)]

    def entropy(k: int) -> float:
        """H_k: the tokens behind the k most likely ones share their mass evenly."""
        rest = math.fsum(shares[k:])
        return (head_entropies[k] + (rest * math.log((size - k) / rest) if rest > 0 else 0.0)) / math.log(size)

    levels = [entropy(k) for k in range(size + 1)]
    return [before - after for before, after in pairwise(levels)]


def entropy_adaptive(gain: float) -> Change:
    def change(logits: Row, place: Place) -> Row:
        informative = [k for k, gain_k in enumerate(contributions(logits), start=1) if gain_k > gain]
        return restricted(logits, ranked(logits)[: max([1, *informative])])

    return change


# ---- sampler and filters together


@dataclass(frozen=True)
class Recipe:
    """The sampler settings of a request, and the filters before (`early`) and after (`late`) the sampler's own."""

    early: tuple[Change, ...] = ()
    late: tuple[Change, ...] = ()
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    prompt: Sequence[int] = field(default=())

    def distribution(
        self, logits: Sequence[float], generated: Sequence[int], place: Place, moved: Sequence[float] | None = None
    ) -> Row:
        """The distribution of the token after those `generated`, given the steered logits.

        With `moved`, the `logits` only select the tokens that survive the sampler; ``moved / T`` is then added to the
        logits of the survivors.
        """
        row = list(logits)
        for change in self.early:
            row = change(row, place)
        row = penalised(row, self.prompt, generated, self.presence, self.frequency, self.repetition)
        row = [x / self.temperature for x in row]
        row = top_p(top_k(min_p(row, self.min_p), self.top_k), self.top_p)
        if moved is not None:
            row = [x + by / self.temperature for x, by in zip(row, moved, strict=True)]
        for change in self.late:
            row = change(row, place)
        return softmax(row)
