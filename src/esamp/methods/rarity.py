"""Rarity reweighting: prefer tokens that the group has drawn rarely so far, whatever the hidden states are."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.layout import RowLayout
from esamp.decoding.logits import divergence, sound_rows
from esamp.decoding.slots import Bank
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.decoding.telemetry import Telemetry, summarise
from esamp.errors import OptionError
from esamp.methods.base import Detail, ModelShape, called_out_of_order
from esamp.methods.options import RarityOptions
from esamp.methods.slotted import MeasuredMethod
from esamp.options import Options, narrowed

COUNT_BYTES = 4
"""Bytes of the count of one token."""


class Rarity(MeasuredMethod):
    """``l_v - s log((n_v + a) / (N + a V))``, up to a constant ``l_v - s log(1 + n_v / a)``.

    n_v counts how often the group's samples have drawn token v so far, N = sum_v n_v, and a is the smoothing. The
    second form is the one computed: tokens not drawn yet keep their logits, and until a token is drawn, so does the
    whole row, bit for bit. All sampled tokens are counted and all are reweighted, each sample's first one included;
    prompts are not counted. The method reads no hidden states, so that its effect is due to token frequency alone.

    State: `[S, V]` int32 counts.
    """

    name = "rarity"
    summary = "prefer tokens that the group has drawn rarely: the control for token frequency"
    citation = "a control of ours for Exploratory Sampling, arXiv 2604.24927"
    options = RarityOptions
    first_token = True

    def __init__(self, own: RarityOptions, bank: Bank, telemetry: Telemetry, *, full: bool) -> None:
        super().__init__(bank, telemetry)
        self.own, self.bank, self.full = own, bank, full
        self._reference: Tensor | None = None
        self._kl: Tensor | None = None
        self._broken: Tensor | None = None
        self._steered: Tensor | None = None

    @classmethod
    @override
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        return ()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate counts `[S, V]`.

        Raises:
            OptionError: the engine does not report the size of the vocabulary.
        """
        if shape.vocabulary < 1:
            raise OptionError("rarity counts every token, so the engine must know the size of the vocabulary")
        template = {"counts": torch.zeros(shape.vocabulary, dtype=torch.int32, device=shape.device)}
        own = narrowed(options, RarityOptions)
        return cls(own, Bank(template, slots), Telemetry(slots, shape.device), full=full)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of the slots' counts and of the template, a row of zeros."""
        return (slots + 1) * COUNT_BYTES * shape.vocabulary

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at strength 0, where tokens are counted and nothing is changed."""
        return narrowed(options, RarityOptions).rarity_strength > 0

    @property
    @override
    def nbytes(self) -> int:
        return self.bank.nbytes

    def steer(self, step: DecodeStep) -> Steering:
        """Project the model's own states and reweight their logits."""
        return Steering((step.final,), lambda logits: self._reweighted(step, logits))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Count the tokens of live rows; a slot with logits that are not finite starts again from zero."""
        if self._broken is None or self._steered is None:
            return
        layout, broken = step.layout, self._broken
        counted = live & step.active & ~broken
        old = self.bank.read(layout.slots)["counts"]
        padded = torch.cat([old, old.new_zeros(1, old.shape[1])])
        place = _group(layout) * old.shape[1] + tokens.clamp(0, old.shape[1] - 1)
        padded.view(-1).index_add_(0, place, counted.to(old.dtype))
        reset = layout.to_grid(broken, broken).any(-1)
        self.bank.store(layout.slots, {"counts": padded[:-1]}, reset=reset)
        sums = self._sums(step, counted, {"rows": counted, "rows_steered": self._steered})
        present = sums["rows"] > 0
        self._telemetry.add(layout.slots, steps=present, updates=present & ~reset, resets=reset, **sums)
        self._reference = self._broken = None

    def detail(self) -> Detail:
        """KL of the latest step, with full telemetry; there is no steering error."""
        if self._reference is None:
            raise called_out_of_order("detail()")
        missing = torch.full_like(self._reference[:, 0], float("nan"), dtype=torch.float32)
        return Detail(missing, missing if self._kl is None else self._kl, self._reference)

    def measurements(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """`esamp.decoding.telemetry.Summary` as a mapping; NaN in the fields that need a distiller."""
        return summarise(sums).as_dict()

    def _reweighted(self, step: DecodeStep, logits: Tensor) -> Combined:
        counts = self.bank.read(step.layout.slots)["counts"]
        penalty = self.own.rarity_strength * (counts / self.own.rarity_smoothing).log1p()
        penalty = torch.cat([penalty, penalty.new_zeros(1, penalty.shape[1])]).index_select(0, _group(step.layout))
        fused = logits.float() - penalty
        self._broken = step.active & ~(sound_rows(logits) & sound_rows(fused))
        self._steered = step.active & ~self._broken & (penalty != 0).any(-1)
        self._reference = logits
        self._kl = self._measured(step, logits, fused) if self.full else None
        if not self.steers(self.own):
            return Combined(logits)
        return Combined(torch.where(self._steered.unsqueeze(-1), fused, logits))

    def _measured(self, step: DecodeStep, reference: Tensor, fused: Tensor) -> Tensor:
        """KL(fused || reference) `[R]` in nats, also added to the telemetry; NaN for rows that are not active."""
        kl = divergence(fused, reference)
        measured = step.active & kl.isfinite()
        self._telemetry.add(step.layout.slots, **self._sums(step, measured, {"kl": kl, "kl_rows": measured}))
        return kl.masked_fill(~measured, float("nan"))


def _group(layout: RowLayout) -> Tensor:
    """`[R]` int64: the group of each row; G for a row without a slot."""
    return layout.place // layout.lanes
