"""`Exploration`: what happens to a batch between its hidden states and its tokens. The same for every runner of vLLM.

begin     which rows of the coming step decode, and for which method
steer     before the LM head: ask the methods, and put the states of theirs that need no comparison into the batch
combine   behind the LM head: project what else they asked for, and combine it with the batch's own logits
learn     after sampling
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esamp.decoding.layout import RowLayout, on_device
from esamp.decoding.logits import rescore_survivors
from esamp.decoding.step import DecodeStep, Head, Rows, Steering
from esamp.engines.vllm.clock import Clock
from esamp.engines.vllm.groups import Groups, Member
from esamp.engines.vllm.installed import Installed

BEGINS, DECODES = 1, 2
"""A row that gets its first token in a step, and one that gets a later one."""
GREEDY = 1e-5
"""vLLM takes the most likely token below this temperature."""

Project = Callable[[Sequence[tuple[Tensor, Tensor]]], Sequence[Tensor]]
"""Logits `[r, V]` of each pair of rows `[r]` of the batch and the states `[r, d]` that stand in for them."""


@dataclass
class Part:
    """The rows of one method within a step."""

    installed: Installed
    members: list[Member]
    rows: Tensor
    """`[r]` int64: places in the batch"""
    layout: RowLayout
    known: Rows
    """what does not change from step to step"""
    whole: bool
    """whether these are all rows of the batch, in order"""
    step: DecodeStep | None = None
    steering: Steering | None = None
    extra: tuple[Tensor, ...] = ()
    """states beside those in the batch"""

    def of(self, batch: Tensor) -> Tensor:
        """The part `[r, ...]` of a tensor `[R, ...]` that belongs to these rows."""
        return batch if self.whole else batch.index_select(0, self.rows)


@dataclass(frozen=True)
class Change:
    """Logits that a method wants in place of the model's own."""

    rows: Tensor
    """`[r]` int64: places in the batch"""
    logits: Tensor
    """`[r, V]`"""
    rescore: Tensor | None = None
    """`[r, V]`, see `esamp.decoding.step.Combined`"""
    late: Callable[[Tensor], Tensor] | None = None
    """see `esamp.decoding.step.Combined`"""
    whole: bool = False
    """whether these are all rows of the batch, in order"""

    @property
    def finishes(self) -> bool:
        """Whether something is left to be done behind the filters."""
        return self.rescore is not None or self.late is not None


@dataclass
class _Plan:
    ids: list[str]
    taking_part: bytes
    version: int
    parts: list[Part] = field(default_factory=list)


class Exploration:
    """All methods of one runner, with their groups, applied to one step after the other."""

    def __init__(self, groups: Groups, head: Head, device: torch.device, clock: Clock) -> None:
        """Nothing is active before the first `begin`."""
        self.groups, self.head, self.clock = groups, head, clock
        self._device = device
        self._plan: _Plan | None = None
        self._position = torch.empty(0, dtype=torch.int64)
        self._may_begin = False  # whether a row of the step may be at the end of its prompt
        self._one_each = False  # whether the pass has one token of each row and no other
        self._parts: list[Part] = []

    @property
    def active(self) -> bool:
        """Whether any row of the step under way is a method's."""
        return bool(self._parts)

    def begin(
        self,
        ids: list[str],
        sampling: NDArray[np.bool_],
        position: NDArray[np.integer[Any]],
        *,
        one_each: bool = False,
    ) -> None:
        """The coming step's rows.

        Args:
            ids: the engine's request ids.
            sampling: `[R]`: which of them get a token; others are in the middle of their prompts.
            position: `[R]`: how many tokens each has; those with none yet are at the end of their prompts.
            one_each: whether the pass has one token of each row and no other, which spares looking for them.
        """
        if not self.groups.members:
            self._parts = []
            return
        phase = np.where(sampling, np.where(position > 0, DECODES, BEGINS), 0).astype(np.int8)
        mask, version, plan = phase.tobytes(), self.groups.version, self._plan
        if plan is None or (plan.version, plan.taking_part, plan.ids) != (version, mask, ids):
            plan = _Plan(list(ids), mask, version, self._plan_parts(ids, phase))
            self._plan = plan
        self._parts = plan.parts
        if self._parts:
            self._position = on_device(position.tolist(), self._device)
            self._may_begin, self._one_each = bool((position <= 0).any()), one_each

    def steer(
        self,
        hidden: Tensor,
        index: Tensor,
        inner: Mapping[int, Tensor],
        fed: Tensor | None,
        *,
        keep_reference: bool,
        sees_logits: bool = True,
    ) -> None:
        """Let the methods say what to project; what replaces a row outright is written into `hidden`.

        Args:
            hidden: `[T, d]`, what the head projects, for all tokens of the pass. Changed in place.
            index: `[R]`: the token of each row of the batch.
            inner: `[T, s]` by depth.
            fed: `[T]` input tokens, if rows may have ended without the engine knowing yet.
            keep_reference: the engine wants the model's own logits of every row, for log-probabilities.
            sees_logits: whether `combine` will be given the batch's logits; all states are projected anew if not.
        """
        with self.clock("predict"):
            for part in self._parts:
                at = part.of(index)
                deep = hidden.index_select(0, at)
                first_rows = part.whole and self._one_each
                states = {
                    layer: state[: len(at)] if first_rows else state.index_select(0, at)
                    for layer, state in inner.items()
                }
                rows = replace(part.known, position=part.of(self._position))
                live = part.layout.placed
                if fed is not None:
                    live = live & self._going_on(fed.index_select(0, at), rows)
                part.step = DecodeStep(deep, states, part.layout, live, self.head, rows)
                part.steering = part.installed.method.steer(part.step)
                first, *others = part.steering.states
                in_batch = first is deep or not keep_reference
                if not sees_logits:
                    in_batch = part.steering.plain and not keep_reference
                part.extra = tuple(others) if in_batch else part.steering.states
                if in_batch and first is not deep:
                    hidden.index_copy_(0, at.long(), first.to(hidden.dtype))

    def combine(self, logits: Tensor | None, project: Project) -> list[Change]:
        """The methods' logits, for those that are not in `logits` `[R, V]` already. Nothing in `logits` is changed."""
        changes = []
        with self.clock("mix"):
            wanted = [(part.rows, state) for part in self._parts for state in part.extra]
            projected = list(project(wanted)) if wanted else []
            for part in self._parts:
                if part.steering is None or (part.steering.plain and not part.extra):
                    continue
                own = [projected.pop(0) for _ in part.extra]
                if len(own) < len(part.steering.states) and logits is not None:
                    own.insert(0, part.of(logits))
                combined = part.steering.combine(*own)
                changes.append(Change(part.rows, combined.logits, combined.rescore, combined.late, part.whole))
        return changes

    def learn(self, tokens: Tensor) -> None:
        """Learn from the sampled `tokens` `[R]`; ends the step."""
        with self.clock("learn"):
            for part in self._parts:
                if part.step is not None:
                    own = part.of(tokens)
                    self._keep_trace(part, own)
                    part.installed.method.observe(part.step, own, part.step.live)
                part.step = part.steering = None
                part.extra = ()
        self._parts = []

    def _going_on(self, fed: Tensor, rows: Rows) -> Tensor:
        """`[r]` bool: rows whose newest token `fed` `[r]` did not end them; a token of the prompt ends nothing."""
        going_on = (fed.unsqueeze(1) != rows.stops).all(1)
        return going_on | (rows.position == 0) if self._may_begin else going_on

    def _plan_parts(self, ids: Sequence[str], phase: NDArray[np.int8]) -> list[Part]:
        members = self.groups.members
        by_method: dict[int, tuple[Installed, list[tuple[int, Member]]]] = {}
        for row in np.flatnonzero(phase).tolist():
            member = members.get(ids[row])
            if member is None or member.group.installed is None or member.group.slot is None:
                continue
            installed = member.group.installed
            if phase[row] == DECODES or installed.method.first_token:
                by_method.setdefault(id(installed), (installed, []))[1].append((row, member))
        return [self._part(installed, found, len(ids)) for installed, found in by_method.values()]

    def _part(self, installed: Installed, found: Sequence[tuple[int, Member]], batch: int) -> Part:
        members = [member for _, member in found]
        longest = max(1, *(len(member.facts.stops) for member in members))
        stops = [[*member.facts.stops, *[-1] * (longest - len(member.facts.stops))] for member in members]
        facts = [[member.index, member.count, member.facts.limit, member.seed] for member in members]
        index, count, limit, seed = on_device(facts, self._device).unbind(1)
        heat = on_device([member.facts.temperature for member in members], self._device, torch.float32)
        known = Rows(index, count, torch.zeros_like(index), limit, seed, on_device(stops, self._device), heat)
        return Part(
            installed,
            members,
            on_device([row for row, _ in found], self._device),
            RowLayout.build([member.group.slot for member in members], self._device),
            known,
            whole=[row for row, _ in found] == list(range(batch)),
        )

    def _keep_trace(self, part: Part, tokens: Tensor) -> None:
        """Measurements of requests that asked for them, left on the device."""
        if not any(member.group.trace for member in part.members) or part.step is None:
            return
        detail = part.installed.method.detail()
        surprisal = torch.full_like(detail.novelty, float("nan"))
        if detail.reference is not None:
            logp = detail.reference.float().log_softmax(-1)
            surprisal = -logp.gather(1, tokens.long().unsqueeze(1)).squeeze(1)
        measured = torch.stack([detail.novelty, detail.kl, surprisal]).masked_fill(~part.step.live, float("nan"))
        for place, member in enumerate(part.members):
            member.measured.append(measured[:, place])


def project(
    compute_logits: Callable[[Tensor], Tensor],
    batch: Tensor,
    wanted: Sequence[tuple[Tensor, Tensor]],
    *,
    by_place: bool,
) -> Sequence[Tensor]:
    """`Project` by vLLM's own head.

    Args:
        compute_logits: of the model.
        batch: `[R, d]`, the states that the head was or will be given.
        wanted: see `Project`.
        by_place: LoRA adapters go by a row's place, so each set of states is projected within a whole batch.
    """
    if not by_place:
        states = wanted[0][1] if len(wanted) == 1 else torch.cat([state for _, state in wanted])
        return compute_logits(states.to(batch.dtype)).split([len(rows) for rows, _ in wanted])
    full = [batch.index_copy(0, rows, state.to(batch.dtype)) for rows, state in wanted]
    return [compute_logits(states).index_select(0, rows) for states, (rows, _) in zip(full, wanted, strict=True)]


def swapped(logits: Tensor, changes: Sequence[Change]) -> Tensor:
    """`logits` `[R, V]` with the changes, in place of the rows; what is forbidden (-inf) stays so."""
    for change in changes:
        old = logits if change.whole else logits.index_select(0, change.rows)
        new = change.logits.to(logits.dtype).masked_fill(old.isneginf(), float("-inf"))
        logits = new if change.whole else logits.index_copy(0, change.rows, new)
    return logits


def finished(logits: Tensor, changes: Sequence[Change], temperature: Tensor) -> Tensor:
    """Filtered `logits` `[R, V]` at `temperature` `[R]` (0: greedy) as the methods want them to be drawn from.

    Survivors of the filters get ``rescore / T`` added; then comes what a method has to say last.
    """
    for change in changes:
        if change.rescore is not None:
            kept = logits.index_select(0, change.rows)
            divisor = temperature.index_select(0, change.rows)
            divisor = torch.where(divisor < GREEDY, 1.0, divisor).unsqueeze(1)
            logits = logits.index_copy(0, change.rows, rescore_survivors(kept, change.rescore, divisor))
        if change.late is not None:
            last = change.late(logits.index_select(0, change.rows).float())
            logits = logits.index_copy(0, change.rows, last.to(logits.dtype))
    return logits
