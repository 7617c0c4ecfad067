"""``scheduler_cls="esamp.engines.vllm.scheduler.Scheduler"``: vLLM's scheduler, starting samples wave by wave.

Samples that are held back are known to vLLM but are in none of its queues, so they take up no row and no KV block.
Requests without a method go straight to vLLM.
"""

import time
from collections.abc import Hashable, Mapping
from typing import Any, Self

from typing_extensions import override
from vllm.config import VllmConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler as VLLMAsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler as VLLMScheduler
from vllm.v1.request import Request

from esamp.engines.vllm.params import SAMPLES, SampleId, parse, sample_id
from esamp.engines.vllm.settings import VLLMSettings
from esamp.engines.vllm.waves import Gate, Start, WavePlan
from esamp.errors import OptionError

PATIENCE = 1.0
"""Seconds without a new sample of a request after which its next wave starts incomplete."""


class Scheduler(VLLMScheduler):
    """Starts the samples of a request together, in the waves of their method, and groups when a slot is free.

    ``_enqueue_waiting_request`` and ``_free_request`` are private methods of vLLM: every request enters the queues
    through the one and leaves the scheduler through the other, and no public method does the same.

    For an engine with asynchronous scheduling an `AsyncScheduler` is created, so that one name serves both.
    """

    def __new__(cls, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> Self:
        """Create the scheduler that the engine's configuration asks for."""
        overlapped = cls is Scheduler and vllm_config.scheduler_config.async_scheduling
        return super().__new__(AsyncScheduler if overlapped else cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take vLLM's arguments.

        Raises:
            OptionError: a setting in ``additional_config`` is wrong.
        """
        super().__init__(*args, **kwargs)
        self._settings = VLLMSettings.read(self.vllm_config.additional_config)
        # vLLM sets this where one front end distributes requests, and even samples of one, over several engines.
        distributed = self.finished_req_ids_dict is not None
        places = self._settings.slots if self._settings.when_full == "wait" else None
        self._gate = Gate(places=places, patience=0.0 if distributed else PATIENCE)
        self._held: dict[str, Request] = {}
        self._scheduling = False

    @override
    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        self._start(self._gate.ready(time.monotonic()))
        self._scheduling = True
        try:
            return super().schedule(*args, **kwargs)
        finally:
            self._scheduling = False

    @override
    def _enqueue_waiting_request(self, request: Request) -> None:
        extra_args = None if request.sampling_params is None else request.sampling_params.extra_args
        sample = sample_id(request.request_id, (extra_args or {}).get(SAMPLES))
        known = sample.parent in self._gate  # a known request's plan is not read again
        plan = WavePlan(sample.parent) if known else self._plan(sample, extra_args)
        if plan is None:
            super()._enqueue_waiting_request(request)
        else:
            self._held[request.request_id] = request
            self._start(self._gate.arrive(request.request_id, sample.parent, sample.index, plan, time.monotonic()))

    @override
    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self._held.pop(request.request_id, None)
        self._gate.ended(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    @override
    def get_request_counts(self) -> tuple[int, int]:
        running, waiting = super().get_request_counts()
        return running, waiting if self._scheduling else waiting + len(self._held)

    @override
    def get_num_unfinished_requests(self) -> int:
        # A number above 0 keeps the engine stepping. A paused engine must be able to stop when nothing runs.
        held = len(self._held) if self.pause_state == PauseState.UNPAUSED else 0
        return super().get_num_unfinished_requests() or held

    @override
    def has_finished_requests(self) -> bool:
        # vLLM assumes that known requests in no queue have finished and wait for the transfer of their blocks.
        return super().has_finished_requests() and (
            bool(self.finished_req_ids) or len(self.requests) > sum(self.get_request_counts())
        )

    def _plan(self, sample: SampleId, extra_args: Mapping[str, Any] | None) -> WavePlan | None:
        """How the request's samples start; None if it has no method, or bad parameters, which the worker reports."""
        try:
            parsed = parse(extra_args, self._settings.defaults)
            if parsed is None:
                return None
            waves = () if parsed.samples is None else parsed.method.waves(parsed.options, parsed.samples)
        except OptionError:
            return None
        named_group = (parsed.group, parsed.method.name, parsed.options, parsed.trace)
        group: Hashable = sample.parent if parsed.group is None else named_group
        return WavePlan(group, waves)

    def _start(self, starts: list[Start]) -> None:
        """Append first-wave samples to the queue; prepend later waves, whose request has waited its turn already."""
        later = [self._held.pop(start.sample) for start in starts if start.later]
        for request in reversed(later):
            self.waiting.prepend_request(request)
        for start in starts:
            if not start.later:
                super()._enqueue_waiting_request(self._held.pop(start.sample))


class AsyncScheduler(Scheduler, VLLMAsyncScheduler):
    """`Scheduler` on top of vLLM's asynchronous scheduler; created by `Scheduler` where it is needed."""
