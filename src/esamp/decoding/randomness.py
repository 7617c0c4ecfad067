"""Counter-based random numbers: a function of their keys alone, so the same on every engine, device, rank and batch."""

from torch import Tensor

from esamp.decoding.step import Rows

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST, SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014) on int64 `x`, which wraps around: a bijection that scatters."""
    x = (x ^ _shifted(x, 30)) * FIRST
    x = (x ^ _shifted(x, 27)) * SECOND
    return x ^ _shifted(x, 31)


def uniform(first: Tensor, *more: Tensor | int) -> Tensor:
    """Float64 numbers in (0, 1), one for each combination of int64 keys, which are broadcast against each other."""
    state = mix(first * GOLDEN + GOLDEN)
    for key in more:
        state = mix((state ^ key) * GOLDEN + GOLDEN)
    return (_shifted(state, 12).double() + 0.5) * 2.0**-52


def per_token(rows: Rows, purpose: int) -> Tensor:
    """`[R]` float64 in (0, 1): one number for each token of each sample of each group.

    `purpose` keeps the numbers of different uses apart.
    """
    return uniform(rows.seed, rows.index, rows.position, purpose)


def per_group(rows: Rows, purpose: int) -> Tensor:
    """`[R]` float64 in (0, 1): one number for each group, the same for all its samples and tokens."""
    return uniform(rows.seed, purpose)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
