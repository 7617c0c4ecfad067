"""OverRIDE as a decoding method: samples are decoded against a head that learned from the samples before them."""

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from esamp.decoding.logits import sound_rows
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.decoding.telemetry import Telemetry
from esamp.errors import OptionError
from esamp.methods.base import DecodeMethod, Detail, ModelShape
from esamp.methods.override.heads import Heads, Turn
from esamp.methods.override.options import OverRIDEOptions, head_bytes
from esamp.methods.override.rounds import OwnHeads, SharedHeads, sizes_of_rounds
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


class OverRIDE(DecodeMethod):
    """Reweighting by low-rank output heads that learn, token by token, what the round before drew.

    Samples come in rounds 0, 1, ...; with h `[d]` the state that the LM head projects, l(h) `[V]` the model's logits
    and head t of rank k, a token of round t is drawn from ``softmax(l')`` (with the engine's own sampler behind it)::

        l' = l(h) - lambda W_B^t W_A^t h        which is softmax(l) (softmax(l) / q_t)^lambda, normalised
        q_t = softmax(l(h) + W_B^t W_A^t h)     head t, trained on round t - 1 by L = -mean log q_t(token drawn)

    Round 0 has no head and is the model's own. The head of round t + 1 takes one Adam step on the tokens that round t
    draws at a decode step, their first ones included (see `esamp.methods.override_heads.Heads`).

    Source: Shi et al., ICLR 2026, https://openreview.net/forum?id=2Xd5RlypLx, and its public code
    https://github.com/shi-rq/OverRIDE, whose heads are shared by all prompts and never reset (``heads = "published"``).
    The paper describes heads of the prompts' own histories (``heads = "prompt"``). ``heads_shared`` in the report says
    which they were.
    """

    name = "override"
    summary = "OverRIDE: subtract what low-rank heads learned of the tokens that earlier samples drew"
    citation = "Shi et al. 2026, Diverse Text Decoding via Iterative Reweighting, ICLR 2026"
    options = OverRIDEOptions
    first_token = True
    one_request = True

    def __init__(self, config: OverRIDEOptions, heads: Heads, telemetry: Telemetry, *, full: bool) -> None:
        """Use `build`."""
        self.config, self.heads, self.full = config, heads, full
        self._telemetry = telemetry
        self._turn: Turn | None = None
        self._reference = torch.empty(0)
        self._sound = self._steered = self._broken = torch.empty(0, dtype=torch.bool)
        self._kl = self._novelty = torch.empty(0)

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """None but the head's input."""
        return ()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate the heads.

        Raises:
            OptionError: nobody knows how many logits the model has.
        """
        config, sizes = narrowed(options, OverRIDEOptions), _sizes(shape)
        kind = OwnHeads if config.heads == "prompt" else SharedHeads
        telemetry = Telemetry(slots, shape.device, FIELDS)
        return cls(config, kind(config, sizes, shape.device, slots), telemetry, full=full)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """The heads, their moments, and what they begin with."""
        return head_bytes(narrowed(options, OverRIDEOptions), *_sizes(shape), slots)

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """One wave a round; all samples at once with published heads."""
        config = narrowed(options, OverRIDEOptions)
        return sizes_of_rounds(n, config.rounds) if config.heads == "prompt" else (n,)

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at strength 0. A request for one sample is of one round, so that nothing changes it either."""
        return narrowed(options, OverRIDEOptions).head_strength > 0

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """With published heads."""
        return narrowed(options, OverRIDEOptions).heads == "published"

    def admit(self) -> int | None:
        """A slot for a group's heads, or only for its counters."""
        slot = self.heads.claim()
        if slot is not None:
            self._telemetry.clear(slot)
        return slot

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        self.heads.grow(slots)
        self._telemetry.grow(slots)

    def release(self, slot: int) -> None:
        """Free a group's slot."""
        self.heads.release(slot)

    @property
    def nbytes(self) -> int:
        """Bytes of heads and moments."""
        return self.heads.bank.nbytes

    def steer(self, step: DecodeStep) -> Steering:
        """The model's own states; all that changes are their logits."""
        self._turn = self.heads.begin(step.layout, step.rows, step.live & step.layout.placed)
        return Steering((step.final,), lambda logits: self._combine(step, logits))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """One learning step on the rows that were live."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        live, tokens = live & step.live & step.layout.placed, tokens.long()
        reference = self._reference
        possible = reference.gather(1, tokens.unsqueeze(1)).squeeze(1).isfinite()
        broken = self._broken & live
        lesson = self.heads.learn(turn, step.final, reference, tokens, live & self._sound & ~broken & possible, broken)
        self._record(step, live, lesson.loss, updates=lesson.learned, resets=lesson.reset)

    def detail(self) -> Detail:
        """Norm of what was subtracted from the logits, and KL, of the latest step."""
        if self._turn is None:
            raise OptionError("detail() belongs between steer() and observe()")
        return Detail(self._novelty, self._kl, self._reference)

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """What happened, as counts, and two means.

        ``rows`` were decoded, ``rows_steered`` of them against a head; ``rows_failed`` were left alone, as some number
        of theirs was not finite. ``updates``: steps in which a head learned from the group, on ``rows_taught`` rows
        with a mean ``loss`` in nats. ``resets``: steps in which a head of the group's was wiped. ``kl``: mean
        KL(reweighted || reference) of the rows in nats, at temperature 1 and before filters; NaN if it was not
        measured. ``heads_shared``: 1 for heads as published, 0 for heads of the prompt's own.
        """
        sums = self._telemetry.total(None if slot is None else [slot])
        shared = float(self.config.heads == "published")

        def read() -> Mapping[str, float]:
            found = dict(zip(FIELDS, sums.tolist(), strict=True))
            for total, count in (("loss", found["rows_taught"]), ("kl", found.pop("kl_rows"))):
                found[total] = found[total] / count if count else float("nan")
            return found | {"heads_shared": shared}

        return read

    def _combine(self, step: DecodeStep, reference: Tensor) -> Combined:
        turn = self._turn
        if turn is None:
            raise OptionError("combine() belongs between steer() and observe()")
        if reference.shape[1] != self.heads.sizes[1]:
            raise OptionError(
                f"the heads are for {self.heads.sizes[1]} logits, and the model gave {reference.shape[1]}"
            )
        live = step.live & step.layout.placed
        self._reference = reference
        self._sound = live & step.final.isfinite().all(-1) & sound_rows(reference)
        self._steered = self._broken = torch.zeros_like(live)
        self._kl = self._novelty = torch.full_like(step.final[:, 0], float("nan"), dtype=torch.float32)
        if not self.steers(self.config):
            return Combined(reference)
        change = -self.config.head_strength * self.heads.residual(turn, step.final, self._sound)
        wanted = self._sound & turn.guided.any(1)
        keep = ~wanted.unsqueeze(1) | reference.isneginf()
        moved = torch.where(keep, reference, (reference.to(change.dtype) + change).to(reference.dtype))
        self._steered = wanted & sound_rows(moved)
        self._broken = wanted & ~self._steered
        new = torch.where(self._steered.unsqueeze(1), moved, reference)
        if self.full:
            self._measure(reference, new, change)
        return Combined(new)

    def _measure(self, reference: Tensor, new: Tensor, change: Tensor) -> None:
        nan = float("nan")
        log_new, log_old = new.float().log_softmax(-1), reference.float().log_softmax(-1)
        gap = torch.where(log_new.isneginf(), 0.0, log_new - log_old)
        self._kl = (log_new.exp() * gap).sum(-1).masked_fill(~self._sound, nan)
        size = torch.where(self._steered, change.norm(dim=-1).float(), 0.0)
        self._novelty = size.masked_fill(~self._sound, nan)

    def _record(self, step: DecodeStep, live: Tensor, loss: Tensor, *, updates: Tensor, resets: Tensor) -> None:
        measured = live & self._kl.isfinite()
        per_row = dict(
            rows=live,
            rows_steered=live & self._steered,
            rows_failed=live & (~self._sound | self._broken),
            rows_taught=updates,
            loss=loss,
            kl=torch.where(measured, self._kl, 0.0),
            kl_rows=measured,
        )
        table = torch.stack([value.to(torch.float32) for value in per_row.values()], -1)
        sums = step.layout.to_grid(table, live).sum(1).unbind(-1)
        once = step.layout.to_grid(torch.stack([updates, resets], -1), live).any(1).unbind(-1)
        self._telemetry.add(step.layout.slots, **dict(zip(per_row, sums, strict=True)), updates=once[0], resets=once[1])


def _sizes(shape: ModelShape) -> tuple[int, int]:
    if not shape.vocabulary:
        raise OptionError(
            "override must know how many logits the model has before its first step: this engine does not"
        )
    return shape.hidden_size, shape.vocabulary
