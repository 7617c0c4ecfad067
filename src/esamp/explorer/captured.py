"""`CapturedExplorer`: replays the kernels of a step as CUDA graphs while the batch stays the same."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from esamp.decoding.gradients import without_gradients
from esamp.decoding.layout import RowLayout
from esamp.explorer.explorer import Explorer
from esamp.explorer.record import StepInputs, StepRecord

STEADY_STEPS = 32
"""Steps of the same batch before it is captured, so that batches that change often are not."""


class Capture(Protocol):
    """Records the operations of some work on tensors."""

    def __call__(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        """Do the work once. Returns its result and a function that does it again, on the same tensors.

        That reads what is then in the tensors that the work has read, and writes to those that it has written and
        returned. It runs no Python of the work.
        """


class CUDAGraphs:
    """A `Capture` by CUDA graphs, whose memory is shared: they must be replayed in the order of their capture."""

    def __init__(self) -> None:
        """Take memory only when something is captured."""
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads of the engine may copy tensors to the host meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = work()
        graph.replay()  # capturing runs nothing
        return result, graph.replay


class CapturedStep:
    """An explorer's proposal and its learning for one layout, captured when each is first called."""

    def __init__(
        self,
        propose: Callable[[StepInputs], StepRecord],
        learn: Callable[[StepRecord, Tensor | None, Tensor], None],
        capture: Capture,
        layout: RowLayout,
    ) -> None:
        """For an explorer that has run steps with this layout, so that whatever it keeps for a layout is there."""
        self._base_propose, self._base_learn = propose, learn
        self._capture, self._layout = capture, layout
        self._proposal: _Captured | None = None
        self._learning: dict[tuple[bool, bool], _Captured] = {}
        self._live: Tensor | None = None  # of the present step, as the engine gave it

    def propose(self, inputs: StepInputs) -> StepRecord:
        """As `Explorer.propose`; the record is overwritten by the next step."""
        source, target, final, _, live, _, sample = inputs
        self._live = live
        given = source, final, live, None if target is final else target, sample
        if self._proposal is None:
            self._proposal = self._captured(self._propose, given)
        else:
            self._proposal.again(given)
        record: StepRecord = copy(self._proposal.result)
        return record

    def made(self, record: StepRecord) -> bool:
        """Whether the record is that of the latest proposal and can be learned from here."""
        own = self._proposal
        return own is not None and record.missed is own.result.missed and record.slope is None

    def learn(self, record: StepRecord, action: Tensor | None, live: Tensor) -> None:
        """As `Explorer.learn`, from a record that was `made` here."""
        assert self._proposal is not None
        own: StepRecord = self._proposal.result
        for kept, now in ((own.live, record.live), (own.steered, record.steered)):
            if now is not kept:
                kept.copy_(now)
        same = live is self._live
        given = None if same else live, action
        known = self._learning.get((same, action is not None))
        if known is None:
            self._learning[same, action is not None] = self._captured(partial(self._learn, own), given)
        else:
            known.again(given)

    def _captured(self, work: Callable[..., Any], given: Sequence[Tensor | None]) -> "_Captured":
        with torch.inference_mode(False), torch.no_grad():  # so that steps in any mode may write to these tensors
            inputs = [None if each is None else each.clone() for each in given]
            return _Captured(inputs, *self._capture(partial(work, *inputs)))

    def _propose(
        self, source: Tensor, final: Tensor, live: Tensor, target: Tensor | None, sample: Tensor | None
    ) -> StepRecord:
        wanted = final if target is None else target
        return self._base_propose(StepInputs(source, wanted, final, self._layout, live, None, sample))

    def _learn(self, record: StepRecord, live: Tensor | None, action: Tensor | None) -> None:
        proposed = record.proposed if live is None else live
        assert proposed is not None
        self._base_learn(record, action, proposed)


@dataclass(frozen=True)
class _Captured:
    """Work that was captured."""

    inputs: Sequence[Tensor | None]
    """the tensors that it reads"""
    result: Any
    replay: Callable[[], object]

    def again(self, given: Sequence[Tensor | None]) -> None:
        """Do the work again for other inputs of the same shapes and types."""
        for own, each in zip(self.inputs, given, strict=True):
            if own is not None and each is not None:
                own.copy_(each)
        self.replay()


class CapturedExplorer(Explorer):
    """An `Explorer` that replays its kernels once `STEADY_STEPS` steps had the same layout.

    Steps with full telemetry, or with a direction of their own, are never captured, because the caller takes part in
    them; nor are steps of two fused launches, because copying their inputs takes more.
    """

    def __init__(self, *arguments: Any, capture: Capture | None = None, **settings: Any) -> None:
        """As `Explorer`; without `capture` it is one."""
        super().__init__(*arguments, **settings)
        few = self.fused is not None and self.fused.network is None
        self._capture = None if few or self.full else capture
        self._steady: tuple[RowLayout, int] | None = None
        """the layout of the latest step, and how many steps have had it"""
        self._captured: CapturedStep | None = None

    def _propose(self, inputs: StepInputs) -> StepRecord:
        if self._capture is not None and inputs.direction is None:
            step = self._step_of(self._capture, inputs.layout)
            if step is not None:
                return step.propose(inputs)
        return super()._propose(inputs)

    @without_gradients
    def learn(self, record: StepRecord, action: Tensor | None, live: Tensor) -> None:
        step = self._captured
        if step is not None and step.made(record):
            step.learn(record, action, live)
        else:
            super().learn(record, action, live)

    def grow(self, slots: int) -> None:
        self._steady = self._captured = None  # the slots move
        super().grow(slots)

    def _step_of(self, capture: Capture, layout: RowLayout) -> CapturedStep | None:
        """The captured step of this layout, once it has been the same for long enough."""
        if self._steady is None or self._steady[0] is not layout:
            self._steady, self._captured = (layout, 0), None
        steps = self._steady[1]
        if steps >= STEADY_STEPS and self._captured is None:
            self._captured = CapturedStep(super()._propose, super().learn, capture, layout)
        self._steady = layout, steps + 1
        return self._captured
