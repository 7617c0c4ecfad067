"""`Explorer`: one step of Exploratory Sampling on tensors, for any mix of groups."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from esamp.errors import OptionError
from esamp.explorer.bank import Bank, all_finite, choose
from esamp.explorer.build import build_distiller, build_memory
from esamp.explorer.config import ESampConfig
from esamp.explorer.contrast import SampleMeans
from esamp.explorer.distiller import Distiller, State
from esamp.explorer.fusion import divergence
from esamp.explorer.layout import RowLayout
from esamp.explorer.mlp import ResidualNetwork
from esamp.explorer.proposal import Proposal
from esamp.explorer.telemetry import Telemetry

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

Direction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""What beta scales, from the error ``e = c (target - y)`` and from ``c y``; all `[R, d]`. Usually it is e."""


class Explorer:
    """Distiller, action memory, bank and telemetry of one model's groups.

    At each decode step: `propose` (what to change), then `learn` (from what was then sampled). Slots come from `claim`.
    """

    def __init__(
        self,
        config: ESampConfig,
        source_size: int,
        deep_size: int,
        *,
        slots: int,
        device: torch.device | str,
        frozen: bool = False,
        head_scale: float = 1.0,
    ) -> None:
        """Allocate a bank of `slots` slots for source states of size s and deep states of size d on `device`.

        A `frozen` network is never trained. `head_scale` is the mean of ||w_v - mean w||^2 over the rows of the LM
        head, by which the gain is divided so that it is in nats.
        """
        self.config, self.gain = config, config.gain / head_scale
        dtype = DTYPES[config.dtype]
        self.distiller: Distiller | None = None
        self.means: SampleMeans | None = None
        if config.signal == "contrast":
            self.means = SampleMeans(
                deep_size, samples=config.samples, forgetting=config.forgetting_factor, dtype=dtype, device=device
            )
        elif config.predicts:
            self.distiller = build_distiller(config, source_size, deep_size, dtype, device, frozen=frozen)
        self.memory = build_memory(config, deep_size, dtype, device) if config.remembers_actions else None
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        own: State = {
            "clock": torch.zeros(2, dtype=torch.int64, device=device),  # steps seen, updates made
            "centre": torch.zeros(deep_size, dtype=exact, device=device),
            "count": torch.zeros(1, dtype=exact, device=device),
        }
        template = _prefixed("own", own)
        learner = self.distiller or self.means
        if learner is not None:
            template |= _prefixed("state", learner.template())
        if self.memory is not None:
            template |= _prefixed("action", self.memory.template())
        self.bank = Bank(template, slots)
        self.telemetry = Telemetry(slots, device)

    def claim(self) -> int | None:
        """A fresh slot for a new group, or None when the bank is full."""
        slot = self.bank.claim()
        if slot is not None:
            self.telemetry.clear(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a group's slot back."""
        self.bank.release(slot)

    def grow(self, slots: int) -> None:
        """Make room for at least `slots` groups."""
        self.bank.grow(slots)
        self.telemetry.grow(slots)

    @torch.no_grad()
    def propose(
        self,
        source: Tensor,
        target: Tensor,
        deep: Tensor,
        layout: RowLayout,
        live: Tensor,
        direction: Direction | None = None,
        *,
        sample: Tensor | None = None,
    ) -> Proposal:
        """Predict every row and say how its deep state should change.

        Args:
            source: h1 `[R, s]`, any float dtype.
            target: what is predicted, `[R, d]`; usually `deep` itself.
            deep: hL `[R, d]`.
            layout: the slot of each row.
            live: `[R]` bool; other rows are neither steered nor learned from.
            direction: what beta scales in place of the error.
            sample: `[R]` int64, the index of each row's sample in its group, which the contrast signal needs;
                rows of one sample without it.
        """
        exact, given = self.bank.template["own.count"].dtype, deep.dtype
        source, target, deep = source.to(exact), target.to(exact), deep.to(exact)
        taking_part = live & layout.placed
        state = self.bank.read(layout.slots)
        sample = torch.zeros_like(layout.place) if sample is None else sample
        value, signal, confidence = self._signal(state, source, sample, target, layout, taking_part)
        residual = target - value
        error = confidence.unsqueeze(-1) * signal * _scale_to(target, deep, self.config)
        pushed = error if direction is None else direction(error, confidence.unsqueeze(-1) * value)
        delta = self.config.beta * pushed if self.config.steers_state else torch.zeros_like(deep)
        if self.memory is not None:
            action = self.memory.predict(_part("action", state), layout.to_grid(deep, taking_part)).value
            delta = delta - self.gain * layout.to_rows(action)
        finite = (residual.isfinite() & delta.isfinite()).all(-1) & source.isfinite().all(-1)
        in_range = (deep + delta).to(given).isfinite().all(-1)  # float16 ends at 65504
        ready = layout.spread(state["own.clock"][:, 1]) >= self.config.warmup
        moved = (delta != 0).any(-1)
        return Proposal(
            layout=layout,
            source=source,
            sample=sample,
            target=target,
            deep=deep,
            residual=residual,
            error=error,
            delta=delta,
            live=taking_part & finite,
            broken=taking_part & ~finite,
            steered=taking_part & finite & in_range & ready & moved,
        )

    @torch.no_grad()
    def learn(self, proposal: Proposal, action: Tensor | None, live: Tensor, slope: Tensor | None = None) -> None:
        """Learn from the rows that were live and still count, and reset the slots of rows that were not finite.

        Args:
            proposal: of this step.
            action: w_z - sum_v p_v w_v of the sampled tokens, `[R, d]`; needed with the action signal.
            live: `[R]` bool; rows to learn from, further restricted to those of the proposal.
            slope: gradient `[R, d]` of the loss in y, if that is another than the squared error.
        """
        layout = proposal.layout
        rows, broken = proposal.live & live, proposal.broken
        for lesson in (action, slope):
            if lesson is not None:
                sound = lesson.isfinite().all(-1)
                rows, broken = rows & sound, broken | (rows & ~sound)
        old = self.bank.read(layout.slots)
        taught = layout.to_grid(rows, rows)
        target = layout.to_grid(proposal.target, rows)
        new = self._updated(old, proposal, target, action, slope, rows, taught)
        present = taught.any(-1)
        due = present & (old["own.clock"][:, 0] % self.config.update_every == 0)
        if self.distiller is not None and not self.distiller.learns:
            due = torch.zeros_like(due)
        own = self._bookkeeping(old, target, taught, torch.stack([present, due], dim=-1))
        reset = layout.to_grid(broken, broken).any(-1) | (due & ~all_finite(new | own))
        learned = {name: choose(due, tensor, old[name]) for name, tensor in new.items()}
        self.bank.store(layout.slots, old | learned | own, reset=reset)
        self._record(proposal, rows, old, steps=present, updates=due & ~reset, resets=reset)

    @torch.no_grad()
    def measure(self, proposal: Proposal, reference: Tensor, fused: Tensor) -> Tensor:
        """KL(fused || reference) of each row `[R]` in nats, from logits `[R, V]`; added to the telemetry."""
        kl = divergence(fused, reference)
        measured = proposal.live & kl.isfinite()
        grid = proposal.layout.to_grid(torch.stack([kl, torch.ones_like(kl)], -1), measured).sum(1)
        self.telemetry.add(proposal.layout.slots, kl=grid[:, 0], kl_rows=grid[:, 1])
        return kl

    @torch.no_grad()
    def measure_tokens(self, proposal: Proposal, token_rows: Tensor, live: Tensor) -> None:
        """Add cos(e, w_z) of the rows in `live` to the telemetry, w_z `[R, d]` being those of the sampled tokens."""
        cosine = torch.cosine_similarity(proposal.error, token_rows.to(proposal.error.dtype), dim=-1)
        measured = proposal.live & live & (proposal.error != 0).any(-1)
        grid = proposal.layout.to_grid(torch.stack([cosine, torch.ones_like(cosine)], -1), measured).sum(1)
        self.telemetry.add(proposal.layout.slots, cos_token=grid[:, 0], cos_rows=grid[:, 1])

    @torch.no_grad()
    def explained(self, proposal: Proposal) -> Tensor:
        """1 - ||target - y||^2 / ||target - running mean||^2 of each row `[R]`, before `learn`; NaN in a first step."""
        slots, tensors = proposal.layout.slots, self.bank.tensors
        old = {name: tensors[name].index_select(0, slots) for name in ("own.centre", "own.count")}
        missed, varied = _squares(proposal, old)
        return torch.where(varied > 0, 1 - missed / varied, torch.nan)

    def _signal(
        self, state: State, source: Tensor, sample: Tensor, target: Tensor, layout: RowLayout, live: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row: the prediction y `[R, d]`, what beta scales before the gate `[R, d]`, and confidence `[R]`."""
        own = _part("state", state)
        if self.means is not None:
            found = self.means.compare(own, layout.to_grid(sample, live))
            value, signal = layout.to_rows(found.own), layout.to_rows(found.difference)
            confidence = found.confidence
        elif self.distiller is not None:
            predicted = self.distiller.predict(own, layout.to_grid(source, live))
            value, confidence = layout.to_rows(predicted.value), predicted.confidence
            signal = target - value
        else:  # the action signal alone: nothing is predicted but the group's running mean, and no error is used
            value, signal = layout.spread(state["own.centre"]), torch.zeros_like(target)
            return value, signal, torch.ones_like(source[:, 0])
        trusted = layout.to_rows(confidence) if self.config.gate else torch.ones_like(source[:, 0])
        return value, signal, trusted

    def _updated(
        self,
        old: State,
        proposal: Proposal,
        target: Tensor,
        action: Tensor | None,
        slope: Tensor | None,
        rows: Tensor,
        live: Tensor,
    ) -> State:
        layout = proposal.layout
        source, state = layout.to_grid(proposal.source, rows), _part("state", old)
        new: State = {}
        if self.means is not None:
            sample = layout.to_grid(proposal.sample, rows)
            new = _prefixed("state", self.means.update(state, sample, target, live))
        elif self.distiller is not None and slope is None:
            new = _prefixed("state", self.distiller.update(state, source, target, live))
        elif isinstance(self.distiller, ResidualNetwork) and slope is not None:
            new = _prefixed("state", self.distiller.descend(state, source, layout.to_grid(slope, rows), live))
        elif self.distiller is not None:
            raise OptionError("only distiller = 'mlp' learns by the gradient of any loss")
        if self.memory is not None and action is not None:
            deep, taken = layout.to_grid(proposal.deep, rows), layout.to_grid(action, rows)
            new |= _prefixed("action", self.memory.update(_part("action", old), deep, taken, live))
        return new

    def _bookkeeping(self, old: State, target: Tensor, live: Tensor, ticks: Tensor) -> State:
        """The clocks, and the running mean of the targets against which explained variance is measured."""
        count = old["own.count"] + live.sum(-1, keepdim=True)
        distance = target - old["own.centre"].unsqueeze(1)
        centre = old["own.centre"] + (distance * live.unsqueeze(-1)).sum(1) / count.clamp_min(1)
        return _prefixed("own", {"clock": old["own.clock"] + ticks, "centre": centre, "count": count})

    def _record(self, proposal: Proposal, rows: Tensor, old: State, **counts: Tensor) -> None:
        layout = proposal.layout
        missed, varied = _squares(proposal, old)
        per_row = torch.stack(
            [
                rows.to(proposal.deep.dtype),
                (rows & proposal.steered).to(proposal.deep.dtype),
                missed,
                varied,
                proposal.error.norm(dim=-1),
            ],
            dim=-1,
        )
        sums = layout.to_grid(per_row, rows).sum(1)
        self.telemetry.add(
            layout.slots,
            **counts,
            **dict(zip(("rows", "rows_steered", "residual", "variance", "error_norm"), sums.unbind(-1), strict=True)),
        )


def _squares(proposal: Proposal, old: State) -> tuple[Tensor, Tensor]:
    """||target - y||^2 and ||target - running mean||^2 of each row `[R]`; zeros in a group's first step."""
    layout = proposal.layout
    centre, seen = layout.spread(old["own.centre"]), layout.spread(old["own.count"]).squeeze(-1) > 0
    return proposal.residual.square().sum(-1) * seen, (proposal.target - centre).square().sum(-1) * seen


def _scale_to(target: Tensor, deep: Tensor, config: ESampConfig) -> Tensor | float:
    """Brings an error measured at an inner layer to the length scale of the deep state, row by row."""
    if config.target_layer is None:
        return 1.0
    squares = deep.square().sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True).clamp_min(1e-24)
    return squares.sqrt()


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def _part(prefix: str, state: State) -> State:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")}
