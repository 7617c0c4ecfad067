"""Runs a schedule of requests on a vLLM engine step by step, and logs what the engine returned and output."""

import contextlib
import gc
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from support.vllm_group_invariants import check_consistency
from support.vllm_schedules import Abort, Arrival, Flush, Profile, Sample, Schedule


@dataclass
class Received:
    """The output of one sample."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    text: str = ""
    reason: str | None = None
    """vLLM's finish reason, or ``aborted``"""


@dataclass
class Log:
    """The outputs of an engine for a schedule, and the decisions of its scheduler."""

    schedule: Schedule
    received: dict[Sample, Received] = field(default_factory=dict)
    ends: Counter[Sample] = field(default_factory=Counter)
    prompts: dict[str, Any] = field(default_factory=dict)
    """log-probabilities of prompts"""
    batches: list[tuple[tuple[Sample, int], ...]] = field(default_factory=list)
    """for each step the scheduled samples with their numbers of tokens"""
    arrived: set[Sample] = field(default_factory=set)
    """samples that have reached the worker"""
    preempted: int = 0
    prompt_chunks: int = 0
    """number of prompt chunks that were not the last of their prompts"""
    telemetry: dict[str, Mapping[str, float] | None] = field(default_factory=dict)
    traces: dict[str, dict[int, torch.Tensor] | None] = field(default_factory=dict)
    refusals: dict[str, str | None] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    """how much each counter of the worker increased"""


class ScheduleRun:
    """Runs a schedule on an engine within this process."""

    def __init__(self, llm: LLM, schedule: Schedule, *, plain: bool = False, suffix: str = "") -> None:
        """Prepare a run without starting it.

        Args:
            llm: the engine.
            schedule: the events of each step.
            plain: the engine runs vLLM's own worker, so requests are added without their methods.
            suffix: appended to the names of groups, which then differ from those of earlier runs.
        """
        self.llm, self.engine, self.plain, self.suffix = llm, llm.llm_engine, plain, suffix
        self.core = llm.llm_engine.engine_core.engine_core
        self.core.structured_output_manager._use_async_grammar_compilation = (
            False  # it would make the order of steps depend on time
        )
        self.log = Log(schedule)
        self._ids: dict[str, Sample] = {}
        self._parents: dict[str, str] = {}
        self._arrivals: dict[str, Arrival] = {}
        self._open: defaultdict[str, set[int]] = defaultdict(set)

    @property
    def groups(self) -> Any:
        """The `Groups` of the worker."""
        return self.core.model_executor.driver_worker.worker.model_runner.esamp.groups

    def run(self, limit: int = 5000) -> Log:
        """Run the schedule and one more ordinary request, since the worker learns of ended samples one step later."""
        schedule = self.log.schedule
        torch.manual_seed(schedule.seed)
        before = self._counters()
        with self._recorded(), self._limited_tokens(schedule.profile):
            last = max(schedule.events)
            for step in range(limit):
                for event in schedule.events.get(step, ()):
                    self._apply(event)
                if step > last and not self.engine.has_unfinished_requests():
                    break
                self.step()
            assert not self.engine.has_unfinished_requests(), f"after {limit} steps: {dict(self._open)}"
            self.run_ordinary_request()
        after = self._counters()
        self.log.counters = {name: after[name] - before.get(name, 0.0) for name in after}
        return self.log

    def run_ordinary_request(self) -> None:
        """Run one ordinary request."""
        self.add(Arrival("the last", (1, 30), {"max_tokens": 1}))
        while self.engine.has_unfinished_requests():
            self.step()

    def step(self) -> None:
        """Run one step of the engine, and check the invariants of a step."""
        ended: set[str] = set()
        for output in self.engine.step():
            for each in output.outputs:
                key = output.request_id, each.index
                received = self.log.received.setdefault(key, Received())
                assert received.reason is None, f"{key} got {each.token_ids} after its end ({received.reason})"
                self._receive(received, each)
                if output.prompt_logprobs:
                    self.log.prompts[output.request_id] = [_bits(each) for each in output.prompt_logprobs]
                if received.reason is not None:
                    self._end(key)
                    ended.add(output.request_id)
        for name in ended:
            if not self._open[name]:
                self._read_telemetry(name)
        if not self.plain:
            check_consistency(self.groups)

    def add(self, arrival: Arrival) -> None:
        """Add a request to the engine."""
        extra = None if self.plain or arrival.extra is None else dict(arrival.extra)
        if extra is not None and arrival.group is not None:
            extra["group"] += self.suffix
        params = dict(arrival.params)
        if "structured_outputs" in params:
            params["structured_outputs"] = StructuredOutputsParams(**params["structured_outputs"])
        sampling = SamplingParams(**params, output_kind=RequestOutputKind.DELTA)
        prompt = {"prompt_token_ids": list(arrival.prompt)}
        if arrival.bypasses_admission:
            request = self.engine.input_processor.process_inputs(
                arrival.name, prompt, sampling, supported_tasks=self.engine.get_supported_tasks()
            )
            request.sampling_params.extra_args = extra
            parent = self.engine.add_request(arrival.name, request, request.sampling_params)
        else:
            sampling.extra_args = extra
            parent = self.engine.add_request(arrival.name, prompt, sampling)
        self._arrivals[arrival.name], self._parents[arrival.name] = arrival, parent
        for index in range(arrival.n):
            self._ids[parent if arrival.n == 1 else f"{index}_{parent}"] = arrival.name, index
            self.log.received[arrival.name, index] = Received()
            self._open[arrival.name].add(index)

    def abort(self, name: str, sample: int | None) -> None:
        """Abort one sample or all samples of a request, if they are in the engine."""
        if name not in self._arrivals:
            return
        if sample is None:
            self.engine.abort_request([name])
        else:
            parent = self._parents[name]
            self.engine.abort_request([parent if self._arrivals[name].n == 1 else f"{sample}_{parent}"], internal=True)
        for index in self._open[name] & (set(range(self._arrivals[name].n)) if sample is None else {sample}):
            self.log.received[name, index].reason = "aborted"
            self._end((name, index))
        if not self._open[name] and name not in self.log.telemetry:
            self._read_telemetry(name)

    def _apply(self, event: Arrival | Abort | Flush) -> None:
        match event:
            case Arrival(refused=True):
                if not self.plain:
                    self._expect_refusal(event)
            case Arrival():
                self.add(event)
            case Abort(name, sample):
                self.abort(name, sample)
            case Flush():
                self.engine.reset_prefix_cache(reset_running_requests=True)

    def _expect_refusal(self, arrival: Arrival) -> None:
        try:
            self.add(arrival)
        except (ValueError, VLLMValidationError):
            return
        raise AssertionError(f"admission accepted {arrival.extra}")

    def _receive(self, received: Received, output: Any) -> None:
        received.tokens += output.token_ids
        received.logprobs += [_bits(each) for each in output.logprobs or ()]
        received.text += output.text
        received.reason = output.finish_reason

    def _end(self, key: Sample) -> None:
        self.log.ends[key] += 1
        self._open[key[0]].discard(key[1])

    def _read_telemetry(self, name: str) -> None:
        if self.plain or not self._arrivals[name].has_method:
            return
        self.log.telemetry[name] = self.llm.collective_rpc("esamp_telemetry", args=(name,))[0]
        self.log.traces[name] = self.llm.collective_rpc("esamp_trace", args=(name,))[0]
        group = self.groups.find(name)
        self.log.refusals[name] = None if group is None else group.refused

    def _counters(self) -> dict[str, float]:
        return {} if self.plain else dict(self.llm.collective_rpc("esamp_counters")[0])

    @contextlib.contextmanager
    def _limited_tokens(self, profile: Profile) -> Iterator[None]:
        """Set the profile's token budget per step, or disable chunked prefill if there is none.

        vLLM's own CPU runner raises an error if the prompt of a seeded request is split.
        """
        scheduler = self.core.scheduler
        usual = scheduler.max_num_scheduled_tokens, scheduler.scheduler_config.enable_chunked_prefill
        scheduler.max_num_scheduled_tokens = profile.budget or usual[0]
        scheduler.scheduler_config.enable_chunked_prefill = profile.budget is not None
        yield
        scheduler.max_num_scheduled_tokens, scheduler.scheduler_config.enable_chunked_prefill = usual

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Record the scheduler's decisions in the log."""
        scheduler, log = self.core.scheduler, self.log
        decide = scheduler.schedule

        def schedule(*args: Any, **kwargs: Any) -> Any:
            output = decide(*args, **kwargs)
            log.preempted += len(output.preempted_req_ids or ())
            log.arrived |= {self._ids[new.req_id] for new in output.scheduled_new_reqs}
            log.batches.append(tuple((self._ids[name], n) for name, n in output.num_scheduled_tokens.items()))
            log.prompt_chunks += sum(
                scheduler.requests[name].num_computed_tokens < scheduler.requests[name].num_prompt_tokens
                for name in output.num_scheduled_tokens
            )
            return output

        scheduler.schedule = schedule
        yield
        del scheduler.schedule


def _bits(logprobs: Mapping[int, Any] | None) -> tuple[tuple[int, float], ...]:
    return tuple(sorted((token, each.logprob) for token, each in (logprobs or {}).items()))


def state_sizes(llm: LLM) -> dict[str, int]:
    """Sizes of what an engine keeps, in entries and bytes. None of them may grow with the number of requests."""
    gc.collect()
    groups = ScheduleRun(llm, Schedule(0, Profile(), {})).groups
    storages = [each.untyped_storage() for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return {
        "groups": len(groups._groups),
        "requests": len(groups._known),
        "traces": len(groups._traces),
        "names": len(groups._parents),
        "methods": len(list(groups._pool)),
        "banks": groups.nbytes,
        "tensors": sum({each.data_ptr(): each.nbytes() for each in storages}.values()),
        "resident": psutil.Process().memory_info().rss,
    }
