"""`LogitContrast`: what contrastive decoding and DoLa share, a difference of logits on the plausible tokens."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.slots import FreeSlots
from esamp.decoding.step import Combined, DecodeStep
from esamp.decoding.telemetry import Telemetry
from esamp.errors import OptionError
from esamp.methods.base import DecodeMethod, Detail

COUNTED = ("rows", "rows_steered", "rows_turned", "rows_failed")
MEASURED = ("plausible", "kl")


def plausible_tokens(logits: Tensor, share: float) -> Tensor:
    """`[R, V]` bool: tokens at least `share` times as likely as the best, ``l_v >= max_u l_u + ln share``.

    `logits` `[R, V]` float32; the probabilities are those at temperature 1.
    """
    return logits >= logits.amax(-1, keepdim=True) + math.log(share)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) `[R]` in nats of two rows of log-probabilities `[R, V]`; tokens that p does not have add nothing."""
    return torch.where(p.isneginf(), 0.0, p.exp() * (p - q)).sum(-1)


class LogitContrast(DecodeMethod):
    """Replaces a row's logits by a contrast of two sets of logits, and drops the tokens that are not plausible.

    Keeps no state of groups but counters. It acts on every token, the first one included. A row whose contrast is not
    finite on a plausible token keeps the model's logits and is counted in ``rows_failed``.
    """

    first_token = True
    shares: ClassVar[str] = ""
    """of what the report tells a share per choice"""

    def __init__(self, slots: int, device: torch.device, choices: Sequence[int] = ()) -> None:
        """Counters for `slots` groups, and one more for each of `choices`."""
        self._choices = tuple(f"{self.shares}_{choice}" for choice in choices)
        self._fields = (*COUNTED, *MEASURED, *self._choices)
        self._telemetry = Telemetry(slots, device, self._fields)
        self._slots = FreeSlots(slots)
        self._reference: Tensor | None = None
        self._values = torch.empty(0)  # [R, F] of the latest step

    def admit(self) -> int | None:
        """A slot, which is a place for counters."""
        slot = self._slots.claim()
        if slot is not None:
            self._telemetry.clear(slot)
        return slot

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        self._slots.grow(slots)
        self._telemetry.grow(slots)

    def release(self, slot: int) -> None:
        """Free a group's slot."""
        self._slots.release(slot)

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Count; nothing is learnt."""
        if self._reference is None:
            return
        sums = _per_group(step.layout, self._values, live)
        self._telemetry.add(step.layout.slots, **dict(zip(self._fields, sums.unbind(-1), strict=True)))
        self._reference = None

    def detail(self) -> Detail:
        """KL(contrasted || model) and the model's logits; there is no novelty."""
        if self._reference is None:
            raise OptionError("detail() belongs between steer() and observe()")
        live, kl = (self._values[:, self._fields.index(name)] for name in ("rows", "kl"))
        missing = torch.full_like(kl, float("nan"))
        return Detail(missing, torch.where(live > 0, kl, missing), self._reference)

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """Counts of rows, then means over the live rows.

        ``rows_steered`` had their distribution changed, in ``rows_turned`` another token became the most likely one,
        ``rows_failed`` kept the model's logits for want of a finite contrast. ``plausible`` is the mean number of
        plausible tokens, ``kl`` the mean KL(contrasted || model) in nats, at temperature 1 and before filters.
        """
        total = self._telemetry.total(None if slot is None else [slot])

        def read() -> Mapping[str, float]:
            sums = dict(zip(self._fields, total.tolist(), strict=True))
            rows = sums["rows"] or float("nan")
            return {name: value if name in COUNTED else value / rows for name, value in sums.items()}

        return read

    def _contrasted(
        self, step: DecodeStep, reference: Tensor, contrast: Tensor, plausible: Tensor, chosen: Tensor | None = None
    ) -> Combined:
        """`contrast` on the plausible tokens of live rows, minus infinity on the others; float32 all.

        Args:
            step: the step.
            reference: the model's logits `[R, V]`.
            contrast: `[R, V]` float32.
            plausible: `[R, V]` bool.
            chosen: `[R, C]`, which of the method's choices each row took.
        """
        exact = reference.float()
        new = contrast.masked_fill(~plausible, float("-inf"))
        sound = (new.isfinite() == plausible).all(-1) & plausible.any(-1)
        acts = step.live & sound
        new = torch.where(acts.unsqueeze(-1), new, exact)
        kl = divergence(new.log_softmax(-1), exact.log_softmax(-1))
        values = [
            step.live,
            acts & (new != exact).any(-1),
            acts & (new.argmax(-1) != exact.argmax(-1)),
            step.live & ~sound,
            plausible.sum(-1),
            torch.where(acts, kl, 0.0),
        ]
        columns = torch.stack([value.float() for value in values], -1)
        self._values = columns if chosen is None else torch.cat([columns, chosen.float()], -1)
        self._reference = reference
        return Combined(new)


def _per_group(layout: RowLayout, values: Tensor, live: Tensor) -> Tensor:
    """Sums `[G, F]` of `values` `[R, F]` over the rows of each group that are in `live` `[R]` bool."""
    return layout.to_grid(values, live & layout.placed).sum(1)
