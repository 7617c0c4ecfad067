"""`Explorer`: one step of Exploratory Sampling on tensors, for any mix of groups."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from esamp.decoding.gradients import without_gradients
from esamp.decoding.layout import RowLayout
from esamp.decoding.precision import exact_type
from esamp.decoding.slots import FreeSlots, GroupState
from esamp.explorer.actions import ActionMemory
from esamp.explorer.bank import WORKSPACE, PackedBank
from esamp.explorer.build import DTYPES, build_distiller
from esamp.explorer.config import ESampConfig
from esamp.explorer.contrast import SampleMeans
from esamp.explorer.decision import Direction, decide
from esamp.explorer.distiller import Distiller, Past, Prediction, TrainingBatch
from esamp.explorer.fused import FusedStep, wanted
from esamp.explorer.record import StepInputs, StepPredictions, StepRecord, strength
from esamp.explorer.rls import squares
from esamp.explorer.tally import Tally


class Explorer:
    """Distiller, action memory, their banks and the tally of the groups of one model.

    At each decode step: `propose` (what to change), then `learn` (from what was then sampled). Slots come from `claim`.
    """

    def __init__(
        self,
        config: ESampConfig,
        source_size: int,
        final_size: int,
        *,
        slots: int,
        device: torch.device | str,
        frozen: bool = False,
        full: bool = False,
        head_scale: float = 1.0,
        workspace: int = WORKSPACE,
        fused: bool | None = None,
    ) -> None:
        """Allocate `slots` slots for source states of size s and final hidden states of size d on `device`.

        A `frozen` network is never trained. `full` telemetry has the fields of `esamp.explorer.tally.FULL`.
        `head_scale` is the mean of ||w_v - mean w||^2 over the rows of the LM head, by which the gain is divided so
        that it is in nats. `workspace` is how many bytes a step may take beside the bank. On the device "meta" nothing
        is allocated, and `nbytes` is what would be.

        `fused` kernels do a step in two launches: None uses them on a CUDA GPU where they can be used (see
        `esamp.explorer.fused.obstacle`), False never. With True they must be usable; without a GPU that takes Triton's
        interpreter.

        Raises:
            OptionError: fused kernels were asked for and cannot be used.
        """
        self.config, self.full = config, full
        dtype = DTYPES[config.dtype]
        self.exact = exact_type(dtype)
        self.distiller: Distiller | None = None
        self.means: SampleMeans | None = None
        if config.signal == "contrast":
            self.means = SampleMeans(
                final_size, samples=config.samples, forgetting=config.forgetting_factor, exact=self.exact, device=device
            )
        elif config.predicts:
            self.distiller = build_distiller(config, source_size, final_size, dtype, device, frozen=frozen)
        self.memory: ActionMemory | None = None
        if config.remembers_actions:
            self.memory = ActionMemory(config, final_size, slots, dtype=dtype, device=device, head_scale=head_scale)
        learner = self.distiller or self.means
        state: GroupState = {} if learner is None else dict(learner.template())
        self._predicts_mean = learner is None or (self.distiller is not None and self.distiller.predicts_mean)
        self._trusts_mean = self._predicts_mean and config.gate  # once it has seen a row
        self._follows_errors = self.distiller is not None and self.distiller.learns and not self._predicts_mean
        # Sums of finite numbers stay finite; a slot that holds anything else may have to be reset.
        self._can_break = self.memory is not None or (self.distiller is not None and bool(state))
        self._keeps_time = config.update_every > 1 or config.warmup > 0
        if self._keeps_time:  # steps seen and updates made since the slot was claimed or reset
            state["clock"] = torch.zeros(2, dtype=self.exact, device=device)
        moments = {} if self.distiller is None else self.distiller.moments()
        self._read = () if self.distiller is None else self.distiller.predicts_from
        self._learned = tuple(name for name in (*state, *moments) if name != "clock")
        self.slots = FreeSlots(slots)
        self.bank = PackedBank(state, moments, slots, workspace=workspace)
        self.tally = Tally(slots, final_size, self.exact, device, full=full)
        self._zero = torch.zeros((), dtype=self.exact, device=device)
        self.fused: FusedStep | None = None
        if wanted(fused, config, source_size, torch.device(device), full=full, frozen=frozen):
            self.fused = FusedStep(config, self.distiller, self.bank, self.tally)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, of what they start from and of what they share."""
        shared = 0 if self.distiller is None else self.distiller.shared_bytes
        remembered = 0 if self.memory is None else self.memory.bank.nbytes + self.memory.regression.shared_bytes
        return self.bank.nbytes + self.tally.nbytes + shared + remembered

    def claim(self) -> int | None:
        """A fresh slot for a new group, or None when all are taken."""
        slot = self.slots.claim()
        if slot is not None:
            for bank in self._banks:
                bank.refresh(slot)
            self.tally.clear(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a group's slot back.

        Raises:
            ValueError: the slot is not in use.
        """
        self.slots.release(slot)

    def grow(self, slots: int) -> None:
        """Make room for at least `slots` groups."""
        self.slots.grow(slots)
        self.tally.grow(slots)
        for bank in self._banks:
            bank.grow(slots)

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """`esamp.decoding.telemetry.Summary` of one slot or of all groups, as `Tally.report`."""
        return self.tally.report(slot)

    @property
    def _banks(self) -> tuple[PackedBank, ...]:
        return (self.bank,) if self.memory is None else (self.bank, self.memory.bank)

    @without_gradients
    def propose(
        self,
        source: Tensor,
        target: Tensor,
        final: Tensor,
        layout: RowLayout,
        live: Tensor,
        direction: Direction | None = None,
        *,
        sample: Tensor | None = None,
    ) -> StepRecord:
        """Predict every row and say how its final hidden state should change.

        Args:
            source: h1 `[R, s]`, any float dtype.
            target: what is predicted, `[R, d]`; usually `final` itself.
            final: hL `[R, d]`.
            layout: the slot of each row.
            live: `[R]` bool; other rows are neither steered nor learned from.
            direction: what beta scales in place of the error.
            sample: `[R]` int64, each row's sample in its group, for the contrast signal; without it, all are one.
        """
        return self._propose(StepInputs(source, target, final, layout, live, direction, sample))

    def _propose(self, inputs: StepInputs) -> StepRecord:
        source, target, final, layout, live, direction, _ = inputs
        if self.fused is not None and direction is None and target is final and self.fused.takes(source, final, layout):
            return self.fused.propose(source, final, layout, live, partial(self._find, inputs))
        predictions = self._find(inputs)
        missed = squares(predictions.residual)
        if self._trusts_mean:
            missed = missed * predictions.seen
        varied = missed if self._predicts_mean else squares(predictions.target - predictions.past.mean)
        record = StepRecord(layout, final, predictions, missed, varied, layout.mask(live), live)
        decide(record, self.config, direction, gain=0.0 if self.memory is None else self.memory.gain)
        if self.config.warmup:
            made = self.bank.read(layout, "clock")["clock"][:, 1:]
            record.leave_alone(made < self.config.warmup)
        return record

    @without_gradients
    def learn(self, record: StepRecord, action: Tensor | None, live: Tensor) -> None:
        """Learn from the rows that were live and still count, and reset the slots whose numbers are not finite.

        Args:
            record: of this step.
            action: w_z - sum_v p_v w_v of the sampled tokens, `[R, d]`; needed with the action signal.
            live: `[R]` bool; rows to learn from, further restricted to those of the record.
        """
        layout = record.layout
        if self.fused is not None and record.kept is not None and action is None and record.slope is None:
            self.fused.learn(record, live)
            return
        predictions = record.predictions
        rows = record.live if live is record.proposed else record.live & layout.mask(live)
        if action is not None:
            action = layout.arrange(action).to(self.exact)
            rows = rows & (squares(action) < torch.inf)
        if record.slope is not None:
            rows = rows & layout.mask(record.slope.isfinite().all(-1))
        size, columns = predictions.residual.shape[-1], [predictions.target, self.tally.ones(layout)]
        columns += [column.unsqueeze(-1) for column in record.fields(full=self.full)]
        if self._follows_errors:
            columns.append(predictions.residual)
        table = torch.cat(columns, dim=-1)
        if not self._trusts_mean:  # in a group's first step there is no mean to compare with
            table.narrow(-1, size + 2, 2).mul_(predictions.seen.unsqueeze(-1))
        table = torch.where(rows.unsqueeze(-1), table, self._zero)
        sums = table.narrow(-1, 0, size + len(self.tally.fields))
        target, residual = table.narrow(-1, 0, size), table.narrow(-1, table.shape[-1] - size, size)
        groups_live = record.live.any(1)
        present = groups_live if rows is record.live else rows.any(1)
        due = self._due(layout, present)
        if due is not present:
            rows = rows & due.unsqueeze(1)
            residual, target = (torch.where(rows.unsqueeze(-1), each, self._zero) for each in (residual, target))
        self._train(record, TrainingBatch(predictions.prediction, target, residual, rows, due))
        if self.memory is not None and action is not None:
            self.memory.learn(record, action, rows, due)
        self._finish(record, groups_live, sums, present, due)

    @without_gradients
    def _find(self, inputs: StepInputs) -> StepPredictions:
        source, target, final, layout, live, _, sample = inputs
        if target.dtype.itemsize > self.exact.itemsize:
            target = target.to(self.exact)
        past, wanted = self.tally.past(layout), layout.arrange(target)
        lanes = None
        if self.means is not None:
            lanes = layout.arrange(torch.zeros_like(layout.place) if sample is None else sample)
        prediction, signal = self._predict(layout, layout.arrange(source), past, layout.mask(live), lanes)
        residual = wanted - prediction.value
        return StepPredictions(
            target=wanted,
            sample=lanes,
            past=past,
            seen=past.number > 0.5,
            prediction=prediction,
            memory=None if self.memory is None else self.memory.predict(layout, final, past),
            residual=residual,
            signal=residual if signal is None else signal,
            strength=strength(prediction, wanted, final, layout, inner_target=self.config.target_layer is not None),
        )

    def _predict(
        self, layout: RowLayout, source: Tensor, past: Past, active: Tensor, sample: Tensor | None
    ) -> tuple[Prediction, Tensor | None]:
        """The prediction and what beta scales before the gate `[G, C, d]`; None where that is target - prediction."""
        if self.means is not None and sample is not None:
            comparison = self.means.compare(self.bank.read(layout, *self._learned), sample)
            confidence = comparison.confidence if self.config.gate else None
            return Prediction(comparison.own, confidence), comparison.difference
        distiller = self.distiller
        if distiller is None:  # the action signal alone: the group's mean stands in for a prediction
            return Prediction(past.mean, None), self._zero.expand(*source.shape[:2], past.mean.shape[-1])
        if distiller.mixes_rows:
            source = torch.where(active.unsqueeze(-1), source.to(self.exact), self._zero)
        pieces = self.bank.pieces(layout, *self._read)
        prediction = Prediction.joined([distiller.predict(p.state, p.of(source), past.of(p)) for p in pieces])
        return (prediction if self.config.gate else prediction._replace(confidence=None)), None

    def _due(self, layout: RowLayout, present: Tensor) -> Tensor:
        """`[G]` bool: groups that learn at this step."""
        if self.distiller is not None and not self.distiller.learns:
            return torch.zeros_like(present)
        if self.config.update_every == 1:
            return present
        steps = self.bank.read(layout, "clock")["clock"][:, 0]
        return present & (steps % self.config.update_every == 0)

    def _train(self, record: StepRecord, batch: TrainingBatch) -> None:
        """One step of the distiller, or of the samples' means."""
        if self.means is not None and record.predictions.sample is not None:
            for piece in self.bank.pieces(record.layout, *self._learned, write=True):
                sample, target, live = (
                    piece.of(each) for each in (record.predictions.sample, batch.target, batch.live)
                )
                self.means.learn(piece.state, sample, target, live)
        distiller = self.distiller
        if distiller is None or not distiller.learns or not self._learned:
            return
        if record.slope is not None:
            batch = batch._replace(slope=record.layout.to_grid(record.slope, record.rows(batch.live)))
        for piece in self.bank.pieces(record.layout, *self._learned, scratch=distiller.scratch, write=True):
            distiller.learn(piece.state, batch.of(piece))

    def _finish(self, record: StepRecord, groups_live: Tensor, rows: Tensor, present: Tensor, due: Tensor) -> None:
        """Count, and reset the slots of groups that took part and of which no row was finite.

        A network may leave the range of numbers in some rows first, so one row is enough to reset it.
        """
        layout = record.layout
        if self._keeps_time:
            ticks = torch.stack([present, due], dim=-1)
            for piece in self.bank.pieces(layout, "clock", write=True):
                piece.state["clock"].add_(piece.of(ticks))
        if not self._can_break:
            self.tally.add(layout, rows, present, due, None)
            return
        if self.distiller is not None and self.distiller.mixes_rows:
            broken = (record.active > record.live).any(1)
        else:
            broken = record.active.any(1) > groups_live
        for bank in self._banks:
            bank.reset(layout, broken)
        self.tally.add(layout, rows, present, due, broken)
