"""`StepRecord`: predictions and decisions of one decode step, from `Explorer.propose` to `Explorer.learn`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.logits import divergence
from esamp.explorer.distiller import Past, Prediction

MEASURED = ("kl", "kl_rows", "cos_token", "cos_rows")
"""Telemetry that is measured on logits and tokens, as far as it is measured at all."""


class StepInputs(NamedTuple):
    """The arguments of `Explorer.propose`, which says what they are."""

    source: Tensor
    target: Tensor
    final: Tensor
    layout: RowLayout
    live: Tensor
    direction: "Callable[[StepRecord], Tensor] | None"
    sample: Tensor | None


class StepPredictions(NamedTuple):
    """All predictions of one step. Shapes as in `StepRecord`."""

    target: Tensor
    """`[G, C, d]` what the distiller is to predict, as the engine gave it"""
    sample: Tensor | None
    """`[G, C]` int64: the index of each row's sample in its group, where the signal needs it"""
    past: Past
    """of each group, before this step"""
    seen: Tensor
    """`[G, 1]` bool: groups that have learned from a row already"""
    prediction: Prediction
    """y, the sample's own mean with the contrast signal, and c"""
    memory: Prediction | None
    """the predicted action a, with the action signal"""
    residual: Tensor
    """`[G, C, d]` target - y"""
    signal: Tensor
    """`[G, C, d]` what c beta scales: the residual, or the contrast"""
    strength: Tensor | None
    """`[G, C, 1]` c, times the ratio of the lengths of hL and target where the target is an inner layer; None
    where that is 1"""


@dataclass
class StepRecord:
    """One step, made by `Explorer.propose` and consumed by `Explorer.learn`.

    Tensors are on the grid of G groups by C lanes unless they are said to have R rows; d is the hidden size,
    s that of the source state. Numbers are float32 or better.
    """

    layout: RowLayout
    final: Tensor
    """`[R, d]` hL, as the engine gave it"""
    find: Callable[[], StepPredictions] | StepPredictions
    """`predictions`, or what computes it; called at most once, and before `Explorer.learn`"""
    missed: Tensor
    """`[G, C]` ||target - y||^2; zero in a group's first step where y is the running mean and trusted"""
    varied: Tensor
    """`[G, C]` ||target - mean of the past targets||^2"""
    active: Tensor
    """`[G, C]` bool: rows that take part"""
    proposed: Tensor | None = None
    """`[R]` bool: the same by row, as the engine gave it"""
    live: Tensor = field(init=False)
    """`[G, C]` bool: those of them whose states and predictions are finite"""
    steered: Tensor = field(init=False)
    """`[G, C]` bool: rows whose distribution changes"""
    tilted: Tensor = field(init=False)
    """`[R, d]` hL and the change in the rows that are steered, hL in the others; in the type of hL"""
    delta: Tensor | None = None
    """`[R, d]` the change of hL, where it is not beta times strength times signal"""
    expected: Tensor | None = None
    """`[R, d]` sum_v p_v w_v under the reference logits, which the action memory learns from"""
    slope: Tensor | None = None
    """`[R, d]` gradient of the loss in y, if that is another than the squared error"""
    reference: Tensor | None = None
    """`[R, V]` reference logits, if the method had them formed"""
    kl: Tensor | None = None
    """`[R]` KL(steered || reference) in nats, if it was measured"""
    measured: dict[str, Tensor] = field(default_factory=dict)
    """`[R]` each, by telemetry field: what was measured on logits and tokens"""
    kept: tuple[Tensor, ...] | None = None
    """what the fused kernels need to learn from this step; None where they did not propose it"""

    @property
    def predictions(self) -> StepPredictions:
        """The predictions. The fused kernels keep none of them: there they are computed when they are asked for."""
        if not isinstance(self.find, StepPredictions):
            self.find = self.find()
        return self.find

    @property
    def residual(self) -> Tensor:
        """`[G, C, d]` target - y."""
        return self.predictions.residual

    @property
    def error(self) -> Tensor:
        """`[R, d]` e, the gated error (or contrast) in the space of the final hidden state."""
        signal, strength = self.predictions.signal, self.predictions.strength
        scaled = signal if strength is None else strength * signal
        if self.predictions.prediction.confidence is not None:  # before the first row it is zero but for rounding
            scaled = scaled.masked_fill(~self.predictions.seen.unsqueeze(-1), 0.0)
        return self.layout.to_rows(scaled)

    @property
    def expectation(self) -> Tensor:
        """`[R, d]` c y."""
        value, confidence = self.predictions.prediction.value, self.predictions.prediction.confidence
        scaled = value if confidence is None else confidence.unsqueeze(-1) * value
        return self.layout.to_rows(scaled.expand_as(self.residual))

    def change(self, beta: float) -> Tensor:
        """`[R, d]` the change of hL that the signals ask for, in all rows."""
        return beta * self.error if self.delta is None else self.delta

    @property
    def explained(self) -> Tensor:
        """`[R]` 1 - ||target - y||^2 / ||target - running mean||^2; NaN in a group's first step."""
        share = 1 - self.missed / self.varied
        return self.rows(share.masked_fill(~self.predictions.seen | (self.varied <= 0), torch.nan))

    def fields(self, *, full: bool) -> list[Tensor]:
        """What is added up by field of the tally `[G, C]`, but for the rows themselves, in its order.

        All are of one type: `torch.cat` of booleans and numbers takes more than twice as long.
        """
        columns = [self.steered.to(self.missed.dtype), self.missed, self.varied]
        if full:
            columns.append(self.layout.arrange(self.error).norm(dim=-1))
            nothing = torch.zeros_like(self.missed)
            measured = {name: self.layout.arrange(value) for name, value in self.measured.items()}
            columns += [measured.get(name, nothing) for name in MEASURED]
        return columns

    def rows(self, grid: Tensor) -> Tensor:
        """`[R, ...]` of a `grid` `[G, C, ...]`."""
        return self.layout.to_rows(grid)

    def leave_alone(self, groups: Tensor) -> None:
        """Steer no row of the `groups` `[G, 1]` bool after all."""
        self.steered = self.steered & ~groups
        self.tilted = torch.where(self.rows(self.steered).unsqueeze(-1), self.tilted, self.final)

    def fall_back(self, reference: Tensor, fused: Tensor, *, narrow: bool) -> None:
        """Leave rows alone after all whose logits cannot be sampled from: not those in `reference`, `fused` `[R]` bool.

        A row whose own logits are not finite is not learned from. Where only the fused ones are not, the prediction has
        diverged and nothing is learned from the row either, except in a `narrow` dtype (float16): there steering leaves
        the range of numbers although slot and row are in order.
        """
        sound = self.layout.mask(reference), self.layout.mask(reference & fused)
        self.live = self.live & sound[0 if narrow else 1]
        self.steered = self.steered & sound[1]

    def measure_logits(self, reference: Tensor, fused: Tensor) -> None:
        """KL(fused || reference) of each row `[R]` in nats, from logits `[R, V]`; kept for the telemetry."""
        self.kl = divergence(fused, reference)
        self.measured |= {"kl": self.kl.nan_to_num(0, 0, 0), "kl_rows": self.kl.isfinite()}

    def measure_tokens(self, token_rows: Tensor) -> None:
        """Keep cos(e, w_z) of each row for the telemetry, w_z `[R, d]` being those of the sampled tokens."""
        error = self.error
        cosine = torch.cosine_similarity(error, token_rows.to(error.dtype), dim=-1)
        self.measured |= {"cos_token": cosine, "cos_rows": (error != 0).any(-1)}


def strength(
    prediction: Prediction, target: Tensor, final: Tensor, layout: RowLayout, *, inner_target: bool
) -> Tensor | None:
    """`StepRecord.strength`: with an `inner_target`, errors are scaled to the length of hL row by row."""
    confidence = None if prediction.confidence is None else prediction.confidence.unsqueeze(-1)
    if not inner_target:
        return confidence
    exact = prediction.value.dtype
    own: Tensor = torch.linalg.vector_norm(layout.arrange(final), dim=-1, keepdim=True, dtype=exact)
    scale: Tensor = own / torch.linalg.vector_norm(target, dim=-1, keepdim=True, dtype=exact).clamp_min(1e-12)
    return scale if confidence is None else scale * confidence
