"""`OverRIDE`: reweight the logits of each sample by a head that was trained on the samples before it."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.logits import divergence, sound_rows
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.decoding.telemetry import Telemetry
from esamp.errors import OptionError
from esamp.methods.base import Detail, ModelShape, called_out_of_order
from esamp.methods.override.heads import Assignment, Heads, TrainingResult
from esamp.methods.override.options import OverRIDEOptions, head_bytes
from esamp.methods.override.rounds import OwnHeads, SharedHeads
from esamp.methods.slotted import MeasuredMethod
from esamp.methods.waves import even_waves
from esamp.options import Options, narrowed

FIELDS = (
    "rows",
    "rows_steered",
    "rows_failed",
    "rows_taught",
    "updates",
    "resets",
    "loss",
    "kl",
    "kl_rows",
)


class OverRIDE(MeasuredMethod):
    """Reweighting by low-rank output heads that learn, token by token, what the previous round drew.

    Samples are divided into rounds 0, 1, ...; with h `[d]` the state that the LM head projects, l(h) `[V]` the model's
    logits and head t of rank k, a token of round t is drawn from ``softmax(l')``, after the engine's own filters::

        l' = l(h) - lambda W_B^t W_A^t h        which is softmax(l) (softmax(l) / q_t)^lambda, normalised
        q_t = softmax(l(h) + W_B^t W_A^t h)     head t, trained on round t - 1 by L = -mean log q_t(token drawn)

    Round 0 has no head and draws from the model's own distribution. At each decode step, the head of round t + 1 takes
    one step of Adam on the tokens that round t draws, first tokens included (see `esamp.methods.override.heads.Heads`).

    Source: Shi et al., ICLR 2026, https://openreview.net/forum?id=2Xd5RlypLx, and its public code
    https://github.com/shi-rq/OverRIDE, where all prompts share the heads and never reset them
    (``heads = "published"``). The paper describes heads trained on each prompt's own history (``heads = "prompt"``).
    ``heads_shared`` in the report tells which of the two ran.
    """

    name = "override"
    summary = "OverRIDE: subtract what low-rank heads learned of the tokens that earlier samples drew"
    citation = "Shi et al. 2026, Diverse Text Decoding via Iterative Reweighting, ICLR 2026"
    options = OverRIDEOptions
    first_token = True
    one_request = True

    def __init__(self, config: OverRIDEOptions, heads: Heads, telemetry: Telemetry, *, full: bool) -> None:
        super().__init__(heads.slots, telemetry)
        self.config, self.heads, self.full = config, heads, full
        self._assigned: Assignment | None = None
        self._reference = torch.empty(0)
        self._sound = self._steered = self._broken = torch.empty(0, dtype=torch.bool)
        self._kl = self._novelty = torch.empty(0)

    @classmethod
    @override
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        return ()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate the heads.

        Raises:
            OptionError: the engine does not report how many logits the model has.
        """
        config, sizes = narrowed(options, OverRIDEOptions), _sizes(shape)
        kind = OwnHeads if config.heads == "prompt" else SharedHeads
        telemetry = Telemetry(slots, shape.device, FIELDS)
        return cls(config, kind(config, sizes, shape.device, slots), telemetry, full=full)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of the heads, their moments and their initial weights."""
        return head_bytes(narrowed(options, OverRIDEOptions), *_sizes(shape), slots)

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """One wave per round; a single wave with published heads."""
        config = narrowed(options, OverRIDEOptions)
        return even_waves(n, config.rounds) if config.heads == "prompt" else (n,)

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at strength 0. A request for one sample has one round and is therefore not changed either."""
        return narrowed(options, OverRIDEOptions).head_strength > 0

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """True with published heads, which all prompts share."""
        return narrowed(options, OverRIDEOptions).heads == "published"

    @property
    @override
    def nbytes(self) -> int:
        return self.heads.bank.nbytes

    def steer(self, step: DecodeStep) -> Steering:
        """Project the model's own states and reweight their logits."""
        self._assigned = self.heads.assign(step.layout, step.rows, step.active)
        return Steering((step.final,), lambda logits: self._combine(step, logits))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Take one training step on the rows in `live`."""
        assigned, self._assigned = self._assigned, None
        if assigned is None:
            return
        live, tokens = live & step.active, tokens.long()
        reference = self._reference
        possible = reference.gather(1, tokens.unsqueeze(1)).squeeze(1).isfinite()
        broken = self._broken & live
        rows = live & self._sound & ~broken & possible
        result = self.heads.learn(assigned, step.final, reference, tokens, rows, broken)
        self._record(step, live, result)

    def detail(self) -> Detail:
        """Norm of the change of the logits, as novelty, and KL of the latest step."""
        if self._assigned is None:
            raise called_out_of_order("detail()")
        return Detail(self._novelty, self._kl, self._reference)

    def measurements(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """Counts, and the means ``loss`` and ``kl``.

        ``rows``: decoded rows; ``rows_steered``: those reweighted by a head; ``rows_failed``: those not changed because
        a state, logit or result was not finite. ``updates``: steps in which a head was trained on the group, on
        ``rows_taught`` rows in total with a mean ``loss`` in nats. ``resets``: steps in which a head of the group was
        reset. ``kl``: mean KL(reweighted || reference) of the rows in nats, at temperature 1 and before filters; NaN if
        not measured. ``heads_shared``: 1 for heads as published, 0 for heads of the prompt's own.
        """
        report = {name: total for name, total in sums.items() if name != "kl_rows"}
        for name, count in (("loss", sums["rows_taught"]), ("kl", sums["kl_rows"])):
            report[name] = sums[name] / count if count else float("nan")
        return report | {"heads_shared": float(self.config.heads == "published")}

    def _combine(self, step: DecodeStep, reference: Tensor) -> Combined:
        assigned = self._assigned
        if assigned is None:
            raise called_out_of_order("combine()")
        if reference.shape[1] != self.heads.sizes[1]:
            raise OptionError(
                f"the heads were built for {self.heads.sizes[1]} logits, but the model has {reference.shape[1]}"
            )
        self._reference = reference
        self._sound = step.active & step.final.isfinite().all(-1) & sound_rows(reference)
        self._steered = self._broken = torch.zeros_like(step.live)
        self._kl = self._novelty = torch.full_like(step.final[:, 0], float("nan"), dtype=torch.float32)
        if not self.steers(self.config):
            return Combined(reference)
        change = -self.config.head_strength * self.heads.residual(assigned, step.final, self._sound)
        guided = self._sound & assigned.guided.any(1)
        keep = ~guided.unsqueeze(1) | reference.isneginf()
        moved = torch.where(keep, reference, (reference.to(change.dtype) + change).to(reference.dtype))
        self._steered = guided & sound_rows(moved)
        self._broken = guided & ~self._steered
        new = torch.where(self._steered.unsqueeze(1), moved, reference)
        if self.full:
            self._measure(reference, new, change)
        return Combined(new)

    def _measure(self, reference: Tensor, new: Tensor, change: Tensor) -> None:
        self._kl = divergence(new, reference).masked_fill(~self._sound, float("nan"))
        length = torch.where(self._steered, change.norm(dim=-1).float(), 0.0)
        self._novelty = length.masked_fill(~self._sound, float("nan"))

    def _record(self, step: DecodeStep, live: Tensor, result: TrainingResult) -> None:
        measured = live & self._kl.isfinite()
        values = dict(
            rows=live,
            rows_steered=live & self._steered,
            rows_failed=live & (~self._sound | self._broken),
            rows_taught=result.trained,
            loss=result.loss,
            kl=torch.where(measured, self._kl, 0.0),
            kl_rows=measured,
        )
        once = step.layout.to_grid(torch.stack([result.trained, result.reset], -1), live).any(1)
        sums = self._sums(step, live, values)
        self._telemetry.add(step.layout.slots, **sums, updates=once[:, 0], resets=once[:, 1])


def _sizes(shape: ModelShape) -> tuple[int, int]:
    if not shape.vocabulary:
        raise OptionError(
            "override must know how many logits the model has before its first step, which this engine does not report"
        )
    return shape.hidden_size, shape.vocabulary
