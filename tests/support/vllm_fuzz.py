"""Random schedules of requests: drawn from a seed, run on a vLLM engine step by step, and checked for invariants.

A schedule says at which step which request arrives or is aborted. It is independent of engines: the same schedule can
run on two engines, or twice on one.
"""

import contextlib
import gc
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch
from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from support.esamp_options import applicable

EOS, OPERATORS, NUMBERS = 2, range(16, 22), range(22, 123)
"""Tokens of the embedded model."""
REPLAY = "ESAMP_FUZZ_SEED"
"""Environment variable: a seed to use instead of the tests' own."""
MODEL_LENGTH, BLOCK, ROWS = 192, 32, 12
ENGINE: Mapping[str, Any] = dict(
    max_model_len=MODEL_LENGTH,
    max_num_seqs=ROWS,
    max_num_batched_tokens=2 * MODEL_LENGTH,
    block_size=BLOCK,
    num_gpu_blocks_override=22,  # enough for 3.5 requests of full length; further ones are preempted
    enable_prefix_caching=True,
    enable_chunked_prefill=True,
    max_logprobs=20,
)
"""An engine with few rows, tokens and blocks."""
SIDES = 0, 1
Sample = tuple[str, int]
"""The name of a request, and the index of a sample."""
CHOICES, DIGITS = ("3+4", "7*5", "100"), "[0-9]{3,12}"
BAD: Sequence[Mapping[str, Any]] = (
    {"method": "unknown"},
    {"method": 7},
    {"method": "esamp", "beta": -1},
    {"method": "esamp", "beta": "much"},
    {"method": "esamp", "beta": float("nan")},
    {"method": "esamp", "unheard_of": 1},
    {"method": "esamp", "group": "short"},
    {"method": "esamp", "telemetry": "perhaps"},
    {"method": "esamp", "waves": 0},
    {"method": "vanilla", "beta": 1.0},
)


def seeds(*usual: int) -> Sequence[int]:
    """The seeds of a test, or the one to replay."""
    return [int(os.environ[REPLAY])] if REPLAY in os.environ else usual


# ---- schedules


@dataclass(frozen=True)
class Arrival:
    """A request that arrives."""

    name: str
    prompt: tuple[int, ...]
    params: Mapping[str, Any]
    """arguments of ``SamplingParams``"""
    extra: Mapping[str, Any] | None = None
    """its ``extra_args``"""
    smuggled: bool = False
    """whether it bypasses admission, so that the engine gets unchecked parameters"""
    refused: bool = False
    """whether admission must refuse it"""
    side: int = 0
    """requests of different sides share no group and no prefix"""

    @property
    def n(self) -> int:
        """Samples."""
        return int(self.params.get("n", 1))

    @property
    def has_method(self) -> bool:
        """Whether it names a decode method, with valid parameters or not."""
        return self.extra is not None and (self.smuggled or self.extra["method"] == "esamp")

    @property
    def steers(self) -> bool:
        """Whether its method may change its samples."""
        if self.extra is None or self.extra in BAD or self.extra["method"] != "esamp":
            return False
        return bool(self.extra.get("beta", 1)) or self.extra.get("signal", "state") != "state"

    @property
    def group(self) -> str | None:
        """The name of the group that it shares."""
        return None if self.extra is None or self.extra in BAD else self.extra.get("group")


@dataclass(frozen=True)
class Abort:
    """One sample of a request is aborted, or all of them."""

    name: str
    sample: int | None = None


@dataclass(frozen=True)
class Flush:
    """The prefix cache is reset, for which vLLM preempts all running requests."""


@dataclass(frozen=True)
class Kind:
    """What kind of requests a schedule has."""

    requests: int = 40
    steered_fixed: bool = False
    """whether the lengths of steered requests are fixed, so that batches are the same without steering"""
    all_fixed: bool = False
    """whether the lengths of all requests are fixed"""
    seeded: float = 0.6
    """share of requests with a seed of their own"""
    budget: int | None = 40
    """tokens per step, so that prompts are split into chunks; None: no prompt is split"""
    lengths: Sequence[int] = (1, 3, 10, 30, 60)
    """of prompts, without their shared prefixes"""
    prefixes: Sequence[int] = (BLOCK - 1, BLOCK, 2 * BLOCK + 5, 7)
    """lengths of shared prefixes"""
    longest: int = 40
    """most tokens of a sample"""
    pace: Sequence[int] = (0, 0, 0, 1, 1, 2, 6)
    """steps from one request to the next"""
    methods: float = 0.6
    """share of requests with a method"""
    unusual: float = 0.5
    """share of those with options that differ from the defaults"""
    waves: bool = True
    bad: float = 0.08
    shared: float = 0.15
    """share of requests in named groups, of those with a method"""


@dataclass(frozen=True)
class Schedule:
    """What happens before each step."""

    seed: int
    kind: Kind
    events: Mapping[int, Sequence[Arrival | Abort | Flush]]

    @property
    def arrivals(self) -> list[Arrival]:
        """All requests."""
        return [event for step in sorted(self.events) for event in self.events[step] if isinstance(event, Arrival)]

    def with_other_prompts(self, side: int) -> "Schedule":
        """The same schedule, where the requests of one side have other prompts of the same lengths."""
        events = {
            step: [
                replace(event, prompt=tuple(_another(token) for token in event.prompt))
                if isinstance(event, Arrival) and event.side == side
                else event
                for event in these
            ]
            for step, these in self.events.items()
        }
        return replace(self, events=events)


def draw(seed: int, kind: Kind) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    prefixes = [[_numbers(rng, length) for length in kind.prefixes] for _ in SIDES]
    events: defaultdict[int, list[Arrival | Abort | Flush]] = defaultdict(list)
    now = 0
    for number in range(kind.requests):
        arrival = _arrival(rng, kind, f"r{number} of {seed}", prefixes)
        events[now].append(arrival)
        if rng.random() < 0.2:
            for _ in range(rng.choice((1, 1, 3))):  # some at the same step, so that they never run
                sample = rng.randrange(arrival.n) if rng.random() < 0.5 else None
                events[now + rng.choice((0, 1, 2, 5, 20))].append(Abort(arrival.name, sample))
        if rng.random() < 2 / kind.requests:
            events[now + rng.randrange(20)].append(Flush())
        now += rng.choice(kind.pace)
    return Schedule(seed, kind, dict(events))


def _arrival(rng: random.Random, kind: Kind, name: str, prefixes: Sequence[Sequence[tuple[int, ...]]]) -> Arrival:
    side = rng.choice(SIDES)
    shared = rng.choice(prefixes[side]) if rng.random() < 0.4 else ()
    prompt = (1, *shared, *_numbers(rng, rng.choice(kind.lengths)))
    extra: Mapping[str, Any] | None = None
    smuggled = refused = False
    if rng.random() < kind.bad:
        extra = rng.choice(BAD)
        smuggled = rng.random() < 0.6
        refused = not smuggled
    elif rng.random() < kind.methods:
        extra = _options(rng, kind, side)
        smuggled = kind.waves and rng.random() < 0.1
    arrival = Arrival(name, prompt, {"n": _samples(rng)}, extra, smuggled, refused, side)
    fixed = kind.all_fixed or (kind.steered_fixed and arrival.steers)
    if fixed:  # prompts end within a block, so that equal samples do not share one by chance
        prompt = prompt[: len(prompt) // BLOCK * BLOCK + 12]
    params = _sampling(rng, kind, arrival.n, fixed=fixed)
    return replace(arrival, prompt=prompt, params=params)


def _samples(rng: random.Random) -> int:
    return rng.choices((1, 2, 3, 4, 8, 16, 64), (50, 12, 8, 12, 6, 2, 1))[0]


def _options(rng: random.Random, kind: Kind, side: int) -> dict[str, Any]:
    """Valid options, some of which the engine refuses: a layer that is not kept, or a scope that is not allowed."""
    options: dict[str, Any] = {"method": "esamp", "features": rng.choice((8, 16, 16))}
    if rng.random() < kind.unusual:
        options |= _unusual(rng)
    if rng.random() < 0.25:
        options |= {"beta": 0.0, "signal": "state"}
    if kind.waves and rng.random() < 0.3:
        options["waves"] = rng.choice((1, 2, 3, 5))
    if not kind.waves:
        options["waves"] = 1
    if rng.random() < kind.shared:
        options["group"] = f"a group of side {side}, number {rng.randrange(3)}"
    options |= {flag: rng.choice((1, True, "true")) for flag in ("telemetry", "trace") if rng.random() < 0.3}
    return applicable(options)


def _unusual(rng: random.Random) -> dict[str, Any]:
    pool: dict[str, Sequence[Any]] = {
        "signal": ("state", "action", "both"),
        "beta": (0.1, 0.25, 1, 4.0),
        "gain": (0.5, 3.0),
        "gate": (True, False, 0),
        "candidates": ("fused", "reference"),
        "ridge": (0.1, 10.0),
        "forgetting": (1.0, 0.9),
        "centre": (True, False),
        "update_every": (1, 3),
        "warmup": (0, 2),
        "seed": (0, 5),
        "target_layer": (2, 3),
        "source_layer": (0, 1),
        "scope": ("prompt", "prompt", "batch"),
        "dtype": ("float32", "float64"),
        "features": (0, 4, 32),
    }
    options = {name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), rng.randrange(1, 5))}
    match rng.randrange(6):
        case 0:
            options |= {
                "distiller": "mlp",
                "width": 8,
                "depth": rng.choice((1, 2)),
                "loss": rng.choice(("sum", "mean")),
            }
        case 1:
            options |= {"distiller": "mean"}
        case 2:
            options |= {"preset": "paper", "width": 8}
    return options


def _sampling(rng: random.Random, kind: Kind, n: int, *, fixed: bool) -> dict[str, Any]:
    params: dict[str, Any] = {"n": n, "max_tokens": rng.randrange(1, min(6, kind.longest) if n > 8 else kind.longest)}
    if rng.random() < kind.seeded:
        params["seed"] = rng.randrange(1000)
    params["temperature"] = rng.choice((0.0 if n == 1 else 1.0, 0.7, 1.0, 1.0, 1.5))
    if rng.random() < 0.3:
        params["logprobs"] = rng.choice((0, 2, 20))
    if rng.random() < 0.1:
        params["prompt_logprobs"] = rng.choice((0, 3))
    if fixed:
        return params | {"ignore_eos": True} | (_filters(rng) if rng.random() < 0.3 else {})
    match rng.randrange(4):
        case 0:
            return params | _filters(rng)
        case 1:
            return params | _stops(rng)
        case 2 if rng.random() < 0.4:
            return params | {"structured_outputs": rng.choice(({"choice": CHOICES}, {"regex": DIGITS}))}
        case _:
            return params


def _filters(rng: random.Random) -> dict[str, Any]:
    pool: dict[str, Sequence[Any]] = {
        "top_k": (1, 10, 40),
        "top_p": (0.5, 0.9),
        "min_p": (0.02, 0.2),
        "presence_penalty": (0.5, -0.5),
        "frequency_penalty": (0.5, -0.5),
        "repetition_penalty": (0.8, 1.3),
        "logit_bias": ({30: 3.0, 31: -100.0}, {EOS: 5.0}),
        "allowed_token_ids": ([30, 31, 32, 33, 34, EOS],),
        "bad_words": (["7"], ["3 5"]),
    }
    return {name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), rng.randrange(1, 4))}


def _stops(rng: random.Random) -> dict[str, Any]:
    pool: dict[str, Sequence[Any]] = {
        "stop": (["="], [" 7", "not"], ["1 "]),
        "stop_token_ids": (list(range(22, 40)), [16, 17]),
        "ignore_eos": (True,),
        "min_tokens": (1,),
        "include_stop_str_in_output": (True,),
    }
    return {name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), rng.randrange(1, 4))}


def _numbers(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.choice(NUMBERS) for _ in range(length))


def _another(token: int) -> int:
    """Map number tokens to others, one to one."""
    return token if token not in NUMBERS else NUMBERS[(token - NUMBERS.start + 37) % len(NUMBERS)]


# ---- running a schedule


@dataclass
class Received:
    """The output of one sample."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    text: str = ""
    reason: str | None = None
    """vLLM's finish reason, or ``dropped`` if it was aborted"""


@dataclass
class Log:
    """What an engine did with a schedule."""

    schedule: Schedule
    received: dict[Sample, Received] = field(default_factory=dict)
    ends: Counter[Sample] = field(default_factory=Counter)
    prompts: dict[str, Any] = field(default_factory=dict)
    """log-probabilities of prompts"""
    batches: list[tuple[tuple[Sample, int], ...]] = field(default_factory=list)
    """by step: samples and their numbers of tokens in it"""
    arrived: set[Sample] = field(default_factory=set)
    """samples that have reached the worker"""
    preempted: int = 0
    parts: int = 0
    """number of prompt chunks that did not end their prompts"""
    telemetry: dict[str, Mapping[str, float] | None] = field(default_factory=dict)
    traces: dict[str, dict[int, torch.Tensor] | None] = field(default_factory=dict)
    refusals: dict[str, str | None] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    """the increase of the counters"""


class Drive:
    """Runs a schedule on an engine within this process."""

    def __init__(self, llm: LLM, schedule: Schedule, *, plain: bool = False, salt: str = "") -> None:
        """Prepare a run.

        Args:
            llm: the engine.
            schedule: what happens at which step.
            plain: whether the engine is without our worker, so that requests are added without their methods.
            salt: appended to names of groups, so that they differ from those of earlier runs.
        """
        self.llm, self.engine, self.plain, self.salt = llm, llm.llm_engine, plain, salt
        self.core = llm.llm_engine.engine_core.engine_core
        self.core.structured_output_manager._use_async_grammar_compilation = False  # its time would make runs differ
        self.log = Log(schedule)
        self._ids: dict[str, Sample] = {}
        self._parents: dict[str, str] = {}
        self._arrivals: dict[str, Arrival] = {}
        self._open: defaultdict[str, set[int]] = defaultdict(set)

    @property
    def groups(self) -> Any:
        """The worker's `Groups`."""
        return self.core.model_executor.driver_worker.worker.model_runner.esamp.groups

    def run(self, limit: int = 5000) -> Log:
        """Run the schedule, and one more ordinary request: the worker is informed of ended samples at the next step."""
        schedule = self.log.schedule
        torch.manual_seed(schedule.seed)
        before = self._counters()
        with self._recorded(), self._scarce(schedule.kind):
            last = max(schedule.events)
            for step in range(limit):
                for event in schedule.events.get(step, ()):
                    self._do(event)
                if step > last and not self.engine.has_unfinished_requests():
                    break
                self.step()
            assert not self.engine.has_unfinished_requests(), f"after {limit} steps: {dict(self._open)}"
            self.run_one_more()
        after = self._counters()
        self.log.counters = {name: after[name] - before.get(name, 0.0) for name in after}
        return self.log

    def run_one_more(self) -> None:
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
            check_books(self.groups)

    def add(self, arrival: Arrival) -> None:
        """Add a request to the engine."""
        extra = None if self.plain or arrival.extra is None else dict(arrival.extra)
        if extra is not None and arrival.group is not None:
            extra["group"] += self.salt
        params = dict(arrival.params)
        if "structured_outputs" in params:
            params["structured_outputs"] = StructuredOutputsParams(**params["structured_outputs"])
        sampling = SamplingParams(**params, output_kind=RequestOutputKind.DELTA)
        prompt = {"prompt_token_ids": list(arrival.prompt)}
        if arrival.smuggled:
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
            self.log.received[name, index].reason = "dropped"
            self._end((name, index))
        if not self._open[name] and name not in self.log.telemetry:
            self._read_telemetry(name)

    def _do(self, event: Arrival | Abort | Flush) -> None:
        match event:
            case Arrival(refused=True):
                if not self.plain:
                    self._refused(event)
            case Arrival():
                self.add(event)
            case Abort(name, sample):
                self.abort(name, sample)
            case Flush():
                self.engine.reset_prefix_cache(reset_running_requests=True)

    def _refused(self, arrival: Arrival) -> None:
        try:
            self.add(arrival)
        except (ValueError, VLLMValidationError):
            return
        raise AssertionError(f"admission let {arrival.extra} in")

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
    def _scarce(self, kind: Kind) -> Iterator[None]:
        """Limit the tokens per step, if prompts may be split into chunks; else disable chunked prefill.

        Without our runner a seeded request must not be split: on a CPU vLLM raises an error.
        """
        scheduler = self.core.scheduler
        usual = scheduler.max_num_scheduled_tokens, scheduler.scheduler_config.enable_chunked_prefill
        scheduler.max_num_scheduled_tokens = kind.budget or usual[0]
        scheduler.scheduler_config.enable_chunked_prefill = kind.budget is not None
        yield
        scheduler.max_num_scheduled_tokens, scheduler.scheduler_config.enable_chunked_prefill = usual

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Record the scheduler's decisions."""
        scheduler, log = self.core.scheduler, self.log
        decide = scheduler.schedule

        def schedule(*args: Any, **kwargs: Any) -> Any:
            decided = decide(*args, **kwargs)
            log.preempted += len(decided.preempted_req_ids or ())
            log.arrived |= {self._ids[new.req_id] for new in decided.scheduled_new_reqs}
            log.batches.append(tuple((self._ids[name], n) for name, n in decided.num_scheduled_tokens.items()))
            log.parts += sum(
                scheduler.requests[name].num_computed_tokens < scheduler.requests[name].num_prompt_tokens
                for name in decided.num_scheduled_tokens
            )
            return decided

        scheduler.schedule = schedule
        yield
        del scheduler.schedule


def _bits(logprobs: Mapping[int, Any] | None) -> tuple[tuple[int, float], ...]:
    return tuple(sorted((token, each.logprob) for token, each in (logprobs or {}).items()))


def sizes(llm: LLM) -> dict[str, int]:
    """Sizes of an engine's state, which must not grow."""
    gc.collect()
    groups = Drive(llm, Schedule(0, Kind(), {})).groups
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


# ---- invariants


def check_books(groups: Any) -> None:
    """After every step: slots, banks and live samples are consistent, and nothing is kept beyond its limit."""
    settings = groups._settings
    every = list(groups._groups.values())
    assert groups.slots_in_use + groups.slots_idle <= settings.slots
    assert {name for group in every for name in group.live} == set(groups.samples)
    assert all(sample.group.live >= {name} for name, sample in groups.samples.items())
    assert all(group.live for group in every if group.slot is None), "a group without a slot or a live sample is kept"
    holders = [group for group in every if group.slot is not None]
    for built in {id(group.built): group.built for group in holders}.values():
        slots = [group.slot for group in holders if group.built is built]
        bank = built.method.explorer.slots
        assert bank.in_use == len(set(slots)), f"{bank.in_use} slots are claimed for {slots}"
        assert built.method.config.scope == "batch" or len(set(slots)) == len(slots)
        assert bank.size <= settings.slots
    kept = max(settings.kept, len(groups.samples))
    assert len(groups._known) <= kept
    assert set(groups._traces) <= set(groups._known)
    assert len(groups._parents) <= kept
    assert len(groups._pool._removed) <= 65
    assert sum(groups._live.values()) == len(groups.samples)


def check_empty(groups: Any) -> None:
    """After everything has ended: no sample is live, and only groups that expect samples have a slot."""
    assert not groups.samples
    assert groups.slots_in_use == 0
    assert all(group.slot is not None and not group.live for group in groups._groups.values())


def check_ends(log: Log) -> None:
    """Every sample ended once, with a finish reason and within its token limit."""
    for arrival in log.schedule.arrivals:
        for index in range(0 if arrival.refused else arrival.n):
            received = log.received[arrival.name, index]
            assert log.ends[arrival.name, index] == 1, (
                f"{arrival.name, index} ended {log.ends[arrival.name, index]} times"
            )
            assert received.reason in ("stop", "length", "dropped"), f"{arrival.name, index}: {received}, {arrival}"
            assert len(received.tokens) <= arrival.params["max_tokens"]
            _check_sample(arrival.params, received)


def _check_sample(params: Mapping[str, Any], received: Received) -> None:
    """A sample satisfies the constraints of its request, also when it is steered."""
    allowed = set(params.get("allowed_token_ids", received.tokens))
    assert allowed >= set(received.tokens)
    if params.get("logit_bias", {}).get(31):
        assert 31 not in received.tokens
    if params.get("bad_words") == ["7"]:
        assert 29 not in received.tokens
    if "min_tokens" in params and received.reason != "dropped":
        assert len(received.tokens) >= params["min_tokens"]
    if "structured_outputs" in params:
        text = received.text.replace(" ", "")
        if "choice" in params["structured_outputs"]:
            assert any(choice.startswith(text) for choice in CHOICES), text
        else:
            assert text == "" or (text.isdigit() and len(text) <= 13), text
    assert all(abs(value) < 1e4 for each in received.logprobs for _, value in each if value != float("-inf"))


def check_numbers(log: Log) -> None:
    """Groups with a slot learned once from every token but the first of each sample, and their traces agree."""
    expected = 0
    for arrival in log.schedule.arrivals:
        telemetry = log.telemetry.get(arrival.name)
        arrived_samples = [
            log.received[arrival.name, index] for index in range(arrival.n) if (arrival.name, index) in log.arrived
        ]
        if arrival.refused or not arrival.has_method or not arrived_samples:
            continue
        assert telemetry is not None, f"{arrival.name}: its group is forgotten"
        rows = sum(max(0, len(received.tokens) - 1) for received in arrived_samples)
        if "groups_refused" in telemetry:
            continue
        expected += rows
        if arrival.group is None:
            assert telemetry["rows"] == rows or telemetry["resets"], (
                f"{arrival.name}: {telemetry['rows']} rows, {rows} tokens to learn from"
            )
        _check_trace(log, arrival)
    assert log.counters["rows"] == expected or log.counters["resets"], f"{log.counters['rows']} rows of {expected}"
    assert log.counters["rows_steered"] > 0
    assert log.counters["updates"] > 0


def _check_trace(log: Log, arrival: Arrival) -> None:
    trace = log.traces[arrival.name]
    assert arrival.extra is not None
    if "trace" not in arrival.extra:
        assert trace is None
        return
    assert trace is not None
    for index, measured in trace.items():
        tokens = len(log.received[arrival.name, index].tokens)
        assert measured.shape == (3, max(1, tokens)), f"{arrival.name, index}: {measured.shape}, {tokens} tokens"
        assert measured[0].isnan().sum() == 1 or log.counters["resets"], f"{arrival.name, index}: {measured[0]}"


def check_groups(log: Log) -> None:
    """Every group was admitted or refused exactly once."""
    arrived = {name for name, _ in log.arrived}
    requests = [request for request in log.schedule.arrivals if request.has_method and request.name in arrived]
    own = sum(request.group is None for request in requests)
    named = [request for request in requests if request.group is not None]
    counted = log.counters["groups_admitted"] + log.counters["groups_refused"]
    assert own + bool(named) <= counted <= own + len(named), (
        f"{counted} groups, {own} requests and {len(named)} in others"
    )
    assert log.counters["groups_refused"] >= sum(request.extra in BAD for request in requests)


def check_same(log: Log, other: Log, names: set[str]) -> None:
    """Batches are the same, and the tokens and log-probabilities of these requests bitwise so.

    Their telemetry and traces are the same too, where both engines have them.
    """
    for step, (one, two) in enumerate(zip(log.batches, other.batches, strict=True)):
        assert one == two, f"step {step}: {one} and {two}"
    for key, received in log.received.items():
        if key[0] in names:
            assert received == other.received[key], f"{key}: {received} and {other.received[key]}"
    for name in names:
        assert log.prompts.get(name) == other.prompts.get(name)
    for name in names & log.telemetry.keys() & other.telemetry.keys():
        assert repr(log.telemetry[name]) == repr(other.telemetry[name]), (
            name
        )  # as text, because NaN differs from itself
        one, two = log.traces[name] or {}, other.traces[name] or {}
        assert one.keys() == two.keys()
        assert all(one[index].numpy().tobytes() == two[index].numpy().tobytes() for index in one), name


def check_first_tokens(log: Log, other: Log) -> None:
    """The first token of every sample is the model's own, and so are its and the prompt's log-probabilities."""
    for key, received in log.received.items():
        assert received.tokens[:1] == other.received[key].tokens[:1], f"{key}: {received} and {other.received[key]}"
        assert received.logprobs[:1] == other.received[key].logprobs[:1], f"{key}: {received} and {other.received[key]}"
    assert log.prompts == other.prompts
