"""`LogitContrast`: the base of contrastive decoding and DoLa, a difference of logits on the plausible tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from esamp.decoding.logits import kl_divergence
from esamp.decoding.slots import FreeSlots
from esamp.decoding.step import Combined, DecodeStep
from esamp.decoding.telemetry import Telemetry
from esamp.methods.base import Detail, called_out_of_order
from esamp.methods.slotted import MeasuredMethod

COUNTED = ("rows", "rows_steered", "rows_turned", "rows_failed")
"""Telemetry reported as counts of rows."""
AVERAGED = ("plausible", "kl")
"""Telemetry reported as means over the live rows."""


def plausible_tokens(logits: Tensor, share: float) -> Tensor:
    """`[R, V]` bool: tokens at least `share` times as likely as the best, ``l_v >= max_u l_u + ln share``.

    `logits` `[R, V]` float32; the probabilities are those at temperature 1.
    """
    return logits >= logits.amax(-1, keepdim=True) + math.log(share)


class LogitContrast(MeasuredMethod):
    """Replaces a row's logits by a contrast of two sets of logits, and drops the tokens that are not plausible.

    The only state per group is telemetry. The method acts on every token, the first one included. A row whose contrast
    is not finite on a plausible token keeps the model's logits and is counted in ``rows_failed``.
    """

    first_token = True
    choice: ClassVar[str] = ""
    """a noun for the alternatives that each row chooses one of, whose shares are reported as ``{choice}_{number}``"""

    def __init__(self, slots: int, device: torch.device, choices: Sequence[int] = ()) -> None:
        """Telemetry for `slots` groups, with one more field for each of `choices`."""
        self._fields = (*COUNTED, *AVERAGED, *(f"{self.choice}_{number}" for number in choices))
        super().__init__(FreeSlots(slots), Telemetry(slots, device, self._fields))
        self._reference: Tensor | None = None
        self._values: Mapping[str, Tensor] = {}  # `[R]` of the latest step, by field

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Add the step to the telemetry; the method learns nothing."""
        if self._reference is None:
            return
        self._telemetry.add(step.layout.slots, **self._sums(step, live, self._values))
        self._reference = None

    def detail(self) -> Detail:
        """KL(contrasted || model) and the model's logits; there is no novelty."""
        if self._reference is None:
            raise called_out_of_order("detail()")
        kl = self._values["kl"]
        missing = torch.full_like(kl, float("nan"))
        return Detail(missing, torch.where(self._values["rows"], kl, missing), self._reference)

    def measurements(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """Counts of rows, and means over the live rows.

        ``rows_steered``: rows whose distribution changed; ``rows_turned``: rows whose most likely token changed;
        ``rows_failed``: rows that kept the model's logits because their contrast was not finite. ``plausible``: mean
        number of plausible tokens; ``kl``: mean KL(contrasted || model) in nats, at temperature 1 and before filters.
        """
        rows = sums["rows"] or float("nan")
        return {name: total if name in COUNTED else total / rows for name, total in sums.items()}

    def _contrasted(
        self, step: DecodeStep, reference: Tensor, contrast: Tensor, plausible: Tensor, chosen: Tensor | None = None
    ) -> Combined:
        """`contrast` on the plausible tokens of live rows, minus infinity on the others, in float32.

        Args:
            step: the step.
            reference: `[R, V]`, the model's logits.
            contrast: `[R, V]` float32.
            plausible: `[R, V]` bool.
            chosen: `[R, C]` bool, the choice of each row.
        """
        exact = reference.float()
        new = contrast.masked_fill(~plausible, float("-inf"))
        sound = (new.isfinite() == plausible).all(-1) & plausible.any(-1)
        acts = step.live & sound
        new = torch.where(acts.unsqueeze(-1), new, exact)
        kl = kl_divergence(new.log_softmax(-1), exact.log_softmax(-1))
        columns = [
            step.live,
            acts & (new != exact).any(-1),
            acts & (new.argmax(-1) != exact.argmax(-1)),
            step.live & ~sound,
            plausible.sum(-1),
            torch.where(acts, kl, 0.0),
            *(() if chosen is None else chosen.unbind(-1)),
        ]
        self._values = dict(zip(self._fields, columns, strict=True))
        self._reference = reference
        return Combined(new)
