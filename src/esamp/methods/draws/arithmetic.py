"""`Arithmetic`: arithmetic sampling, which decodes the samples of a prompt from evenly spaced codes."""

from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.randomness import per_group, per_token, uniform
from esamp.decoding.slots import enlarged, repeated
from esamp.decoding.step import DecodeStep, Rows
from esamp.errors import OptionError
from esamp.methods.base import Draw, ModelShape
from esamp.methods.draws.inverse_cdf import at, locate
from esamp.methods.options import ArithmeticOptions
from esamp.methods.purpose import RandomPurpose
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

GRID = 2.0**-53
"""The resolution of a code."""
RARE = 2.0**-45
"""After a token less likely than this, too few bits of the code are left, and a fresh code is drawn."""


class Arithmetic(Draw):
    """Sample i of n starts from the code ``c_i = (i / n + u) mod 1`` with one random shift u per group.

    At each token the code is looked up in the cumulative distribution F over the tokens in vocabulary order:
    ``v = min{v : F_v > c}``; the rescaled remainder is the code for the next token, ``c' = (c - F_{v-1}) / p_v``. Given
    the tokens so far, a code is uniform on [0, 1), so that each sample is an ordinary sample of the model. Together the
    samples are stratified: a prefix of probability P begins ``floor(n P)`` or ``ceil(n P)`` of the n samples.

    If n is unknown, sample i has the code ``vdc(i) + u mod 1`` (the van der Corput sequence), of which any contiguous
    part is evenly distributed. Samples with i >= n lie between the first n, at
    ``((i mod n) + vdc(i div n)) / n + u mod 1``.

    A float64 code has 53 bits, which a text of probability 2^-53 uses up. Each rescaling therefore adds random bits
    below the last one, ``c' = (c - F_{v-1} + 2^-53 (r - 1/2)) / p_v`` with r uniform on (0, 1), so that a code has its
    full precision in texts of any length.

    The token that a sample gets may differ from the chosen one, because of a grammar or a forced token. The remainder
    of a code is independent of the chosen token and therefore valid in either case.

    State: `[S, codes_kept]` codes. Samples whose indices are equal modulo `codes_kept` share a place. The later sample
    takes it over, and the earlier one draws a fresh code at each of its remaining tokens.

    Source: Vilnis et al. 2023, arXiv 2210.15458.
    """

    name = "arithmetic"
    summary = "evenly spaced codes, one per sample: each is an ordinary sample, together they cover the distribution"
    citation = "Vilnis et al. 2023, Arithmetic Sampling: Parallel Diverse Decoding for LLMs, arXiv 2210.15458"
    options = ArithmeticOptions

    def __init__(self, kept: int, device: torch.device) -> None:
        self._kept = kept
        # a group that has no codes; the last column takes the writes of rows without a place
        self._no_codes = torch.zeros(kept + 1, dtype=torch.float64, device=device)
        self._no_keys = torch.full((kept + 1,), -1, dtype=torch.int64, device=device)
        self._codes, self._keys = repeated(self._no_codes, 0), repeated(self._no_keys, 0)
        self._next: Tensor | None = None  # `[R]` the codes for the token after this one

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's own settings.

        Raises:
            OptionError: the temperature is 0, where tokens are not drawn.
        """
        if sampling.temperature == 0:
            raise OptionError("arithmetic draws tokens, and temperature = 0 leaves no choice: set temperature above 0")
        return sampling

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int) -> Self:
        """Allocate codes for `slots` groups."""
        draw = cls(narrowed(options, ArithmeticOptions).codes_kept, shape.device)
        draw.grow(slots)
        return draw

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """16 bytes for each code."""
        return 16 * slots * (narrowed(options, ArithmeticOptions).codes_kept + 1)

    @override
    def grow(self, slots: int) -> None:
        extra = max(0, slots - self._codes.shape[0])
        self._codes = enlarged(self._codes, repeated(self._no_codes, extra))
        self._keys = enlarged(self._keys, repeated(self._no_keys, extra))

    @override
    def clear(self, slot: int) -> None:
        self._keys[slot] = -1

    @property
    @override
    def nbytes(self) -> int:
        return self._codes.nbytes + self._keys.nbytes

    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        """The tokens `[R]` that the rows' codes select."""
        probabilities = logits.double().softmax(-1)
        cumulative = probabilities.cumsum(-1)
        x = self._code(step) * cumulative[:, -1]
        tokens = locate(cumulative, x)
        chosen = at(probabilities, tokens)
        fresh = per_token(step.rows, RandomPurpose.ARITHMETIC)
        rest = x - (at(cumulative, tokens) - chosen) + GRID * (fresh - 0.5)
        self._next = torch.where(chosen > RARE, (rest / chosen).clamp(0, 1 - GRID), fresh)
        return tokens

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Store the rows' codes for their next tokens."""
        if self._next is None:
            return
        slot, place = self._places(step, live)
        key = _key(step.rows, ahead=1)
        self._keys[slot, place] = key
        place = torch.where(self._keys[slot, place] == key, place, self._kept)  # one of two rows that share a place
        self._codes[slot, place] = self._next
        self._next = None

    def _code(self, step: DecodeStep) -> Tensor:
        """`[R]` float64: the code of each row for its next token; a fresh one if the row has lost its place."""
        slot, place = self._places(step, step.live)
        kept = (self._keys[slot, place] == _key(step.rows)) & (place < self._kept)
        fresh = uniform(step.rows.seed, step.rows.index, step.rows.position, RandomPurpose.ARITHMETIC, 1)
        later = torch.where(kept, self._codes[slot, place], fresh)
        return torch.where(step.rows.position == 0, first_codes(step.rows), later)

    def _places(self, step: DecodeStep, live: Tensor) -> tuple[Tensor, Tensor]:
        """`[R]` slot and column of each row's code; the last column for rows that have none."""
        placed = live & step.layout.placed
        return step.layout.spread(step.layout.slots), torch.where(placed, step.rows.index % self._kept, self._kept)


def first_codes(rows: Rows) -> Tensor:
    """`[R]` float64 in [0, 1): the initial code of each row's sample."""
    count = rows.count.clamp_min(1)
    spaced = ((rows.index % count).double() + van_der_corput(rows.index // count)) / count.double()
    return ((spaced + per_group(rows, RandomPurpose.ARITHMETIC)) % 1.0).clamp_max(1 - GRID)


def van_der_corput(index: Tensor) -> Tensor:
    """The lowest 32 bits of int64 `index` reversed behind the binary point, in [0, 1): 0, 1/2, 1/4, 3/4, 1/8, ..."""
    bits = index & 0xFFFFFFFF
    for width, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        bits = ((bits >> width) & mask) | ((bits & mask) << width)
    return bits.double() * 2.0**-32


def _key(rows: Rows, ahead: int = 0) -> Tensor:
    """`[R]` int64: identifies a token of a sample, `ahead` tokens after the present one."""
    return (rows.index << 32) + rows.position + ahead
