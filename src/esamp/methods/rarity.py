"""Rarity reweighting: prefer tokens that the group has used rarely so far, whatever the state."""

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from esamp.decoding import telemetry
from esamp.decoding.layout import RowLayout
from esamp.decoding.logits import divergence, sound_rows
from esamp.decoding.slots import Bank
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.decoding.telemetry import Telemetry
from esamp.errors import OptionError
from esamp.methods.base import DecodeMethod, Detail, ModelShape
from esamp.methods.options import RarityOptions
from esamp.options import Options, narrowed

BYTES = 4
"""of a token's count"""


class Rarity(DecodeMethod):
    """``l_v - s log((n_v + a) / (N + a V))``, up to a constant ``l_v - s log(1 + n_v / a)``.

    n_v counts how often the group's samples have drawn token v so far, N = sum_v n_v, a is the smoothing. The second
    form is what is computed: tokens that nobody drew stay where they are, and as long as nobody drew any, so does every
    bit. All sampled tokens count, a sample's first one too, and all of a sample's tokens are tilted; prompts do not
    count. It knows no states and learns no directions: what it can do is due to token frequency alone.
    """

    name = "rarity"
    summary = "prefer tokens that the group has drawn rarely: the control for token frequency"
    citation = "a control of ours for Exploratory Sampling, arXiv 2604.24927"
    options = RarityOptions
    first_token = True

    def __init__(self, own: RarityOptions, bank: Bank, record: Telemetry, *, full: bool) -> None:
        """Use `build`."""
        self.own, self.bank, self.full = own, bank, full
        self._telemetry = record
        self._reference: Tensor | None = None
        self._kl: Tensor | None = None
        self._broken: Tensor | None = None
        self._steered: Tensor | None = None

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """None."""
        return ()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate counts `[S, V]`.

        Raises:
            OptionError: nobody knows how many tokens there are.
        """
        if shape.vocabulary < 1:
            raise OptionError("rarity counts every token, so the engine must know the size of the vocabulary")
        template = {"counts": torch.zeros(shape.vocabulary, dtype=torch.int32, device=shape.device)}
        own = narrowed(options, RarityOptions)
        return cls(own, Bank(template, slots), Telemetry(slots, shape.device), full=full)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """The slots' counts and a row of zeros."""
        return (slots + 1) * BYTES * shape.vocabulary

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at strength 0: all is counted and nothing changed."""
        return narrowed(options, RarityOptions).rarity_strength > 0

    def admit(self) -> int | None:
        """A slot with all counts zero."""
        slot = self.bank.claim()
        if slot is not None:
            self._telemetry.clear(slot)
        return slot

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        self.bank.grow(slots)
        self._telemetry.grow(slots)

    def release(self, slot: int) -> None:
        """Free a group's slot."""
        self.bank.release(slot)

    @property
    def nbytes(self) -> int:
        """Bytes of the counts."""
        return self.bank.nbytes

    def steer(self, step: DecodeStep) -> Steering:
        """The logits as they are, tilted behind the head."""
        return Steering((step.final,), lambda logits: self._tilted(step, logits))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Count the tokens of live rows; a slot whose logits were no numbers starts again from zero."""
        if self._broken is None or self._steered is None:
            return
        layout, broken = step.layout, self._broken
        counted = live & _taking_part(step) & ~broken
        old = self.bank.read(layout.slots)["counts"]
        padded = torch.cat([old, old.new_zeros(1, old.shape[1])])
        place = _group(layout) * old.shape[1] + tokens.clamp(0, old.shape[1] - 1)
        padded.view(-1).index_add_(0, place, counted.to(old.dtype))
        reset = layout.to_grid(broken, broken).any(-1)
        self.bank.store(layout.slots, {"counts": padded[:-1]}, reset=reset)
        rows = layout.to_grid(torch.stack([counted, counted & self._steered], -1).double(), counted).sum(1)
        present = rows[:, 0] > 0
        counts = dict(rows=rows[:, 0], rows_steered=rows[:, 1])
        self._telemetry.add(layout.slots, steps=present, updates=present & ~reset, resets=reset, **counts)
        self._reference = self._broken = None

    def detail(self) -> Detail:
        """KL of the latest step, with full telemetry; there is no steering error."""
        if self._reference is None:
            raise OptionError("detail() belongs between steer() and observe()")
        missing = torch.full_like(self._reference[:, 0], float("nan"), dtype=torch.float32)
        return Detail(missing, missing if self._kl is None else self._kl, self._reference)

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """`esamp.decoding.telemetry.Summary` as a mapping; NaN for what only a distiller has."""
        total = self._telemetry.total(None if slot is None else [slot])
        return lambda: telemetry.read(total).as_dict()

    def _tilted(self, step: DecodeStep, logits: Tensor) -> Combined:
        counts = self.bank.read(step.layout.slots)["counts"]
        tilt = self.own.rarity_strength * (counts / self.own.rarity_smoothing).log1p()
        tilt = torch.cat([tilt, tilt.new_zeros(1, tilt.shape[1])]).index_select(0, _group(step.layout))
        fused = logits.float() - tilt
        taking_part = _taking_part(step)
        self._broken = taking_part & ~(sound_rows(logits) & sound_rows(fused))
        self._steered = taking_part & ~self._broken & (tilt != 0).any(-1)
        self._reference = logits
        self._kl = self._measured(step, logits, fused) if self.full else None
        if not self.steers(self.own):
            return Combined(logits)
        return Combined(torch.where(self._steered.unsqueeze(-1), fused, logits))

    def _measured(self, step: DecodeStep, reference: Tensor, fused: Tensor) -> Tensor:
        """KL(fused || reference) `[R]` in nats, added to the telemetry; NaN for rows that take no part."""
        kl = divergence(fused, reference)
        measured = _taking_part(step) & kl.isfinite()
        sums = step.layout.to_grid(torch.stack([kl, torch.ones_like(kl)], -1), measured).sum(1)
        self._telemetry.add(step.layout.slots, kl=sums[:, 0], kl_rows=sums[:, 1])
        return kl.masked_fill(~measured, float("nan"))


def _taking_part(step: DecodeStep) -> Tensor:
    return step.live & step.layout.placed


def _group(layout: RowLayout) -> Tensor:
    """`[R]` int64: the group of each row; G for a row without a slot."""
    return layout.place // layout.lanes
