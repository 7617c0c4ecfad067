"""`VLLMExploration`: the decode step of all methods, between hidden states and tokens, for every model runner of vLLM.

begin     find the rows of the coming step that a method acts on
steer     before the LM head: which states to project; one that replaces its row's final state is written into the batch
combine   after the LM head: project the other states, and combine their logits with the batch's
learn     after sampling: the methods observe the tokens
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esamp.decoding.layout import RowLayout, copied_to, on_device
from esamp.decoding.logits import surprisal
from esamp.decoding.step import DecodeStep, Head, Rows, Steering
from esamp.engines.vllm.workers.changes import Change, Project
from esamp.engines.vllm.workers.clock import Clock
from esamp.engines.vllm.workers.group import LiveSample
from esamp.engines.vllm.workers.groups import RequestGroups
from esamp.engines.vllm.workers.method_pool import BuiltMethod

FIRST_TOKEN, LATER_TOKEN = 1, 2
"""Phases of a row in a step: it gets its first token, or a later one. Phase 0: it gets none, within its prompt."""


@dataclass
class MethodRows:
    """The rows of a step that one method acts on."""

    built: BuiltMethod
    samples: list[LiveSample]
    index: Tensor
    """`[r]` int64: positions in the batch"""
    layout: RowLayout
    fixed: Rows
    """the rows' properties; all but `position` stay the same from step to step"""
    all_rows: bool
    """whether these are all rows of the batch, in order"""
    step: DecodeStep | None = None
    steering: Steering | None = None
    extra: tuple[Tensor, ...] = ()
    """states to project in addition to those in the batch"""

    def of(self, batch: Tensor) -> Tensor:
        """These rows `[r, ...]` of a tensor `[R, ...]` of the batch."""
        return batch if self.all_rows else batch.index_select(0, self.index)


@dataclass
class _Assignment:
    """The methods' rows, reused while neither the batch nor the groups change."""

    ids: list[str]
    phase: bytes
    version: int
    methods: list[MethodRows] = field(default_factory=list)


class VLLMExploration:
    """All methods of one model runner and their groups, applied step by step."""

    def __init__(self, groups: RequestGroups, head: Head, device: torch.device, clock: Clock) -> None:
        self.groups, self.head, self.clock = groups, head, clock
        self._device = device
        self._assignment: _Assignment | None = None
        self._position = torch.empty(0, dtype=torch.int64)
        self._has_first_tokens = False  # whether a row of the step may get its first token
        self._one_token_each = False  # whether the pass has exactly one token of each row
        self._methods: list[MethodRows] = []

    @property
    def active(self) -> bool:
        """Whether a method acts on any row of the present step."""
        return bool(self._methods)

    def begin(
        self,
        ids: list[str],
        sampling: NDArray[np.bool_],
        position: NDArray[np.integer[Any]],
        *,
        one_token_each: bool = False,
    ) -> None:
        """Find the rows of the coming step that methods act on.

        Args:
            ids: the engine's request ids, one per row.
            sampling: `[R]`: rows that get a token; the others are in the middle of their prompts.
            position: `[R]`: generated tokens of each row; at most 0 where the step ends the prompt.
            one_token_each: whether the pass has exactly one token of each row, so that rows need not be gathered.
        """
        if not self.groups.samples:
            self._methods = []
            return
        phase = np.where(sampling, np.where(position > 0, LATER_TOKEN, FIRST_TOKEN), 0).astype(np.int8)
        key, version, known = phase.tobytes(), self.groups.version, self._assignment
        if known is None or (known.version, known.phase, known.ids) != (version, key, ids):
            known = _Assignment(list(ids), key, version, self._assign(ids, phase))
            self._assignment = known
        self._methods = known.methods
        if self._methods:
            self._position = copied_to(self._device, position)
            self._has_first_tokens, self._one_token_each = bool((position <= 0).any()), one_token_each

    def steer(
        self,
        hidden_states: Tensor,
        index: Tensor,
        residuals: Mapping[int, Tensor],
        input_ids: Tensor | None,
        *,
        keep_reference: bool,
        sees_logits: bool = True,
    ) -> Tensor:
        """Get the states that the methods project, and return `hidden_states` with those that replace their rows'.

        The result is `hidden_states` itself, changed in place where rows are gathered, or a new tensor.

        Args:
            hidden_states: `[T, d]`: final hidden states of all tokens of the pass.
            index: `[R]`: the newest token of each row of the batch.
            residuals: `[T, s]` by depth: the residual stream.
            input_ids: `[T]`, if rows may have ended that the engine still decodes (asynchronous scheduling).
            keep_reference: whether the engine needs the model's own logits of every row, for log-probabilities.
            sees_logits: whether `combine` will get the batch's logits; otherwise all states are projected once more.
        """
        with self.clock("predict"):
            for method in self._methods:
                tokens = method.of(index)
                leading = method.all_rows and self._one_token_each
                rows_of = partial(_rows, tokens=tokens, leading=leading)
                final = rows_of(hidden_states)
                at_rows = {layer: rows_of(state) for layer, state in residuals.items()}
                rows = method.fixed.at(method.of(self._position))
                live = method.layout.placed
                if input_ids is not None:
                    live = live & self._unfinished(input_ids.index_select(0, tokens), rows)
                method.step = DecodeStep(final, at_rows, method.layout, live, self.head, rows)
                method.steering = method.built.method.steer(method.step)
                first, *others = method.steering.states
                in_batch = first is final or not keep_reference
                if not sees_logits:
                    in_batch = method.steering.plain and not keep_reference
                method.extra = tuple(others) if in_batch else method.steering.states
                if not in_batch or first is final:
                    continue
                first = first.to(hidden_states.dtype)
                if leading:  # `final` is a view of `hidden_states`, which must therefore stay as they are
                    padding = hidden_states[len(tokens) :]
                    hidden_states = torch.cat([first, padding]) if len(padding) else first
                else:
                    hidden_states.index_copy_(0, tokens.long(), first)
        return hidden_states

    def combine(self, logits: Tensor | None, project: Project) -> list[Change]:
        """The methods' logits, as changes of the batch's.

        Args:
            logits: `[R, V]` of the batch, which stay unchanged; None if `steer` was told that there will be none. A
                method whose state was written into the batch and that changes no logits needs no change here.
            project: projects the states that are not in the batch.
        """
        changes = []
        with self.clock("mix"):
            states = [(method.index, state) for method in self._methods for state in method.extra]
            projected = list(project(states)) if states else []
            for method in self._methods:
                if method.steering is None or (method.steering.plain and not method.extra):
                    continue
                own = [projected.pop(0) for _ in method.extra]
                if len(own) < len(method.steering.states) and logits is not None:
                    own.insert(0, method.of(logits))
                combined = method.steering.combine(*own)
                changes.append(Change(method.index, combined.logits, combined.rescore, combined.late, method.all_rows))
        return changes

    def learn(self, tokens: Tensor) -> None:
        """Let the methods observe the sampled `tokens` `[R]`, and end the step."""
        with self.clock("learn"):
            for method in self._methods:
                if method.step is not None:
                    sampled = method.of(tokens)
                    self._record_trace(method, sampled)
                    method.built.method.observe(method.step, sampled, method.step.live)
                method.step = method.steering = None
                method.extra = ()
        self._methods = []

    def _unfinished(self, newest: Tensor, rows: Rows) -> Tensor:
        """`[r]` bool: rows that their `newest` token `[r]` did not end. A token of the prompt ends no row."""
        unfinished = (newest.unsqueeze(1) != rows.stops).all(1)
        return unfinished | (rows.position == 0) if self._has_first_tokens else unfinished

    def _assign(self, ids: Sequence[str], phase: NDArray[np.int8]) -> list[MethodRows]:
        by_method: dict[int, tuple[BuiltMethod, list[tuple[int, LiveSample]]]] = {}
        for row in np.flatnonzero(phase).tolist():
            sample = self.groups.samples.get(ids[row])
            if sample is None or sample.group.built is None or sample.group.slot is None:
                continue
            built = sample.group.built
            if phase[row] == LATER_TOKEN or built.method.first_token:
                by_method.setdefault(id(built), (built, []))[1].append((row, sample))
        return [self._method_rows(built, rows, len(ids)) for built, rows in by_method.values()]

    def _method_rows(self, built: BuiltMethod, rows: Sequence[tuple[int, LiveSample]], batch: int) -> MethodRows:
        samples = [sample for _, sample in rows]
        longest = max(1, *(len(sample.settings.stops) for sample in samples))
        stops = [[*sample.settings.stops, *[-1] * (longest - len(sample.settings.stops))] for sample in samples]
        table = [[sample.index, sample.count, sample.settings.limit, sample.seed] for sample in samples]
        index, count, limit, seed = on_device(table, self._device).unbind(1)
        temperature = on_device([sample.settings.temperature for sample in samples], self._device, torch.float32)
        return MethodRows(
            built,
            samples,
            on_device([row for row, _ in rows], self._device),
            RowLayout.build([sample.group.slot for sample in samples], self._device),
            Rows(index, count, torch.zeros_like(index), limit, seed, on_device(stops, self._device), temperature),
            all_rows=[row for row, _ in rows] == list(range(batch)),
        )

    def _record_trace(self, method: MethodRows, tokens: Tensor) -> None:
        """Append the step's measurements to the traces of requests that have one. They stay on the device."""
        if not any(sample.group.trace for sample in method.samples) or method.step is None:
            return
        detail = method.built.method.detail()
        nats = torch.full_like(detail.novelty, float("nan"))
        if detail.reference is not None:
            nats = surprisal(detail.reference.float().log_softmax(-1), tokens.long())
        measured = torch.stack([detail.novelty, detail.kl, nats]).masked_fill(~method.step.live, float("nan"))
        for row, sample in enumerate(method.samples):
            sample.trace.append(measured[:, row])


def _rows(states: Tensor, tokens: Tensor, *, leading: bool) -> Tensor:
    """The states `[r, d]` of `tokens` `[r]` among `states` `[T, d]`: a view where they are the `leading` ones."""
    return states[: len(tokens)] if leading else states.index_select(0, tokens)
