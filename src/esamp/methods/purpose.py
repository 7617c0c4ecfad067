"""`RandomPurpose`: the keys that keep the random numbers of different methods independent of each other."""

from enum import IntEnum


class RandomPurpose(IntEnum):
    """One key for each use of `esamp.decoding.randomness` in this package. The values determine samples: keep them."""

    XTC = 1
    ARITHMETIC = 2
    WITHOUT_REPLACEMENT = 3
    NOISE = 4
    BEAM_ROOT = 0x5B0
    BEAM_CHILD = 0x5B1
