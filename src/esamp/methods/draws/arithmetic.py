"""Arithmetic sampling: the samples of a prompt are read off evenly spaced codes."""

from typing import Self

import torch
from torch import Tensor

from esamp.decoding.randomness import per_group, per_token, uniform
from esamp.decoding.step import DecodeStep, Rows
from esamp.errors import OptionError
from esamp.methods.base import Draw, ModelShape
from esamp.methods.draws.inverse_cdf import at, locate
from esamp.methods.options import ArithmeticOptions
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

PURPOSE = 2
"""of the random numbers"""
GRID = 2.0**-53
"""What a code is known to."""
RARE = 2.0**-45
"""A token less likely than this leaves too little of a code to go on with."""


class Arithmetic(Draw):
    """Sample i of n starts from the code ``c_i = (i / n + u) mod 1`` with one random shift u per group.

    At each token the code is looked up in the cumulative distribution, tokens in the order of the vocabulary:
    ``v = min{v : F_v > c}``, and what is left of it is the code for the next token, ``c' = (c - F_{v-1}) / p_v``.
    A code is uniform on [0, 1) whatever came before, so each sample is an ordinary sample of the model. Together they
    are stratified: any prefix of probability P begins ``floor(n P)`` or ``ceil(n P)`` of the n samples.

    Where nobody told n, sample i has the code ``vdc(i) + u mod 1`` (van der Corput's sequence), any run of which is
    spread well. Samples with i >= n lie between the first n: ``((i mod n) + vdc(i div n)) / n + u mod 1``.

    A float64 code holds 53 bits, which some 50 bits of text use up. Therefore each re-scaling puts fresh random bits
    below the last known one, ``c' = (c - F_{v-1} + 2^-53 (r - 1/2)) / p_v`` with r uniform on (0, 1): a code has all
    its bits at every token of texts of any length.

    The token that a sample really gets may be another one (a grammar, a forced token). What is left of a code is
    independent of the token that it chose, hence right for whatever follows.

    State: `[S, codes_kept]` codes. Two samples whose indices are equal modulo `codes_kept` share a place: the one that
    comes later takes it, and the earlier one draws a fresh code at each token from there on.

    Source: Vilnis et al. 2023, arXiv 2210.15458.
    """

    name = "arithmetic"
    summary = "evenly spaced codes, one per sample: each is an ordinary sample, together they cover the distribution"
    citation = "Vilnis et al. 2023, Arithmetic Sampling: Parallel Diverse Decoding for LLMs, arXiv 2210.15458"
    options = ArithmeticOptions

    def __init__(self, kept: int, device: torch.device) -> None:
        """Use `build`."""
        self._kept, self._device = kept, device
        with torch.inference_mode(False):  # an inference tensor could never be written to outside of that mode
            self._codes = torch.zeros(0, kept + 1, dtype=torch.float64, device=device)  # the last column is for nobody
            self._keys = torch.zeros(0, kept + 1, dtype=torch.int64, device=device)  # whose code, and for which token
        self._next: Tensor | None = None

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """As it is.

        Raises:
            OptionError: at temperature 0 there is nothing to draw.
        """
        if sampling.temperature == 0:
            raise OptionError("arithmetic draws tokens, and temperature = 0 leaves no choice: set temperature above 0")
        return sampling

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int) -> Self:
        """Allocate for `slots` groups."""
        draw = cls(narrowed(options, ArithmeticOptions).codes_kept, shape.device)
        draw.grow(slots)
        return draw

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """16 bytes a code."""
        return 16 * slots * (narrowed(options, ArithmeticOptions).codes_kept + 1)

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        extra = slots - self._codes.shape[0]
        if extra > 0:
            with torch.inference_mode(False):
                self._codes = torch.cat([self._codes, self._codes.new_zeros(extra, self._kept + 1)])
                self._keys = torch.cat([self._keys, self._keys.new_full((extra, self._kept + 1), -1)])

    def clear(self, slot: int) -> None:
        """Forget the codes of the last group."""
        self._keys[slot] = -1

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of whose they are."""
        return self._codes.nbytes + self._keys.nbytes

    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        """Tokens `[R]` at the rows' codes."""
        probabilities = logits.double().softmax(-1)
        cumulative = probabilities.cumsum(-1)
        x = self._code(step) * cumulative[:, -1]
        tokens = locate(cumulative, x)
        chosen = at(probabilities, tokens)
        fresh = per_token(step.rows, PURPOSE)
        rest = x - (at(cumulative, tokens) - chosen) + GRID * (fresh - 0.5)
        self._next = torch.where(chosen > RARE, (rest / chosen).clamp(0, 1 - GRID), fresh)
        return tokens

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Keep what is left of the codes."""
        if self._next is None:
            return
        slot, place = self._places(step, live)
        key = _key(step.rows, ahead=1)
        self._keys[slot, place] = key
        place = torch.where(self._keys[slot, place] == key, place, self._kept)  # of two at one place, one had it
        self._codes[slot, place] = self._next
        self._next = None

    def _code(self, step: DecodeStep) -> Tensor:
        """`[R]` float64: the code of each row for its next token; a fresh one where it was not kept."""
        slot, place = self._places(step, step.live)
        kept = (self._keys[slot, place] == _key(step.rows)) & (place < self._kept)
        fresh = uniform(step.rows.seed, step.rows.index, step.rows.position, PURPOSE, 1)
        later = torch.where(kept, self._codes[slot, place], fresh)
        return torch.where(step.rows.position == 0, first_codes(step.rows), later)

    def _places(self, step: DecodeStep, live: Tensor) -> tuple[Tensor, Tensor]:
        """`[R]` slot and column of each row's code; the last column for rows that have none."""
        placed = live & step.layout.placed
        return step.layout.spread(step.layout.slots), torch.where(placed, step.rows.index % self._kept, self._kept)


def first_codes(rows: Rows) -> Tensor:
    """`[R]` float64 in [0, 1): the codes that samples start from."""
    count = rows.count.clamp_min(1)
    spaced = ((rows.index % count).double() + van_der_corput(rows.index // count)) / count.double()
    return ((spaced + per_group(rows, PURPOSE)) % 1.0).clamp_max(1 - GRID)


def van_der_corput(index: Tensor) -> Tensor:
    """The lowest 32 bits of int64 `index` mirrored at the binary point, float64 in [0, 1): 0, 1/2, 1/4, 3/4, 1/8..."""
    bits = index & 0xFFFFFFFF
    for width, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        bits = ((bits >> width) & mask) | ((bits & mask) << width)
    return bits.double() * 2.0**-32


def _key(rows: Rows, ahead: int = 0) -> Tensor:
    """`[R]` int64: which token of which sample."""
    return (rows.index << 32) + rows.position + ahead
