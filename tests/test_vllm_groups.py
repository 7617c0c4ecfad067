"""Groups and slots of the vLLM engine: host bookkeeping with real methods, without an engine."""

import random
from typing import Any

import pytest
import torch

from esamp.engines.vllm.params import SAMPLES
from esamp.engines.vllm.settings import VLLMSettings
from esamp.engines.vllm.workers.groups import RequestGroups
from esamp.errors import OptionError
from esamp.methods.base import ModelShape
from support.esamp_options import without_unused

SHAPE = ModelShape(hidden_size=8, layer_sizes={1: 8}, layers=4, device=torch.device("cpu"))
ESAMP = {"method": "esamp", "features": 4}
NAME = "a-name-nobody-can-guess"


def make(**settings) -> RequestGroups:
    return RequestGroups(VLLMSettings(**settings), SHAPE)


def ids(parent: str, n: int) -> list[str]:
    return [f"{index}_{parent}-1a2b3c4d" for index in range(n)]


def enter(groups: RequestGroups, parent: str, n: int, **parameters) -> list[str]:
    """All n samples of a request that passed our admission."""
    names = ids(parent, n)
    for name in names:
        groups.add(name, without_unused(ESAMP | parameters) | {SAMPLES: n})
    return names


def slot_of(groups: RequestGroups, request_id: str) -> object:
    group = groups.samples[request_id].group
    return (id(group.built), group.slot) if group.slot is not None else None


def test_samples_of_a_request_share_a_slot_and_requests_do_not():
    groups = make()
    a, b = enter(groups, "a", 3), enter(groups, "b", 2)
    assert len({slot_of(groups, name) for name in a}) == 1
    assert slot_of(groups, a[0]) != slot_of(groups, b[0])
    assert [groups.samples[name].index for name in a] == [0, 1, 2]
    assert groups.slots_in_use == 2


def test_ordinary_requests_join_no_group():
    groups = make()
    before = groups.version
    groups.add("x", None)
    groups.add("y", {"method": "vanilla"})
    assert not groups.samples
    assert groups.version == before


def test_a_slot_is_released_when_the_last_sample_ends():
    groups = make(slots=1)
    a = enter(groups, "a", 3)
    groups.finish(a[:2])
    assert groups.slots_in_use == 1
    groups.finish(a[2:])
    assert (groups.slots_in_use, groups.slots_idle) == (0, 0)


def test_a_group_keeps_its_slot_between_waves():
    """Samples 0 and 1 end before 2 and 3 arrive, which must find what was learned."""
    groups = make(slots=1)
    names = ids("a", 4)
    for name in names[:2]:
        groups.add(name, ESAMP | {SAMPLES: 4})
    slot = slot_of(groups, names[0])
    groups.finish(names[:2])
    assert (groups.slots_in_use, groups.slots_idle) == (0, 1)
    groups.add(names[2], ESAMP | {SAMPLES: 4})
    assert slot_of(groups, names[2]) == slot
    assert groups.counts["groups_admitted"] == 1
    groups.add(names[3], ESAMP | {SAMPLES: 4})
    groups.finish(names[2:])
    assert (groups.slots_in_use, groups.slots_idle) == (0, 0)


def test_a_sample_that_was_aborted_before_it_arrived_is_no_longer_expected():
    groups = make(slots=1)
    names = ids("a", 3)
    groups.add(names[0], ESAMP | {SAMPLES: 3})
    groups.finish([names[2], names[0], names[1]])
    assert (groups.slots_in_use, groups.slots_idle) == (0, 0)


def test_a_group_that_expects_samples_is_evicted_last():
    groups = make(slots=2)
    waiting, named = ids("a", 2)[0], enter(groups, "b", 2, group=NAME)
    groups.add(waiting, ESAMP | {SAMPLES: 2})
    groups.finish([waiting])
    groups.finish(named)
    enter(groups, "c", 1)
    assert groups.find("a").slot is not None
    assert groups.find("b").slot is None


def test_an_idle_group_is_evicted_for_a_new_one():
    groups = make(slots=1)
    first, second = ids("a", 2)
    groups.add(first, ESAMP | {SAMPLES: 2})
    groups.finish([first])
    b = enter(groups, "b", 1)
    assert slot_of(groups, b[0]) is not None
    groups.add(second, ESAMP | {SAMPLES: 2})  # sample 1 of "a" finds no slot
    assert groups.samples[second].group.refused is not None


def test_the_least_recently_used_idle_group_is_evicted_first():
    groups = make(slots=2)
    for parent in ("a", "b"):
        name = ids(parent, 2)[0]
        groups.add(name, ESAMP | {SAMPLES: 3})
        groups.finish([name])
    groups.add(ids("a", 2)[1], ESAMP | {SAMPLES: 3})  # "a" is used again
    groups.finish([ids("a", 2)[1]])
    enter(groups, "c", 1)
    assert groups.find("a") is not None
    assert groups.find("a").slot is not None
    assert groups.find("b").slot is None


def test_a_group_without_a_slot_reports_that_it_was_refused():
    groups = make(slots=1)
    enter(groups, "a", 2)
    b = enter(groups, "b", 2)
    assert slot_of(groups, b[0]) is None
    assert "slots" in str(groups.samples[b[0]].group.refused)
    assert groups.samples[b[0]].group.telemetry() == {"groups_refused": 1.0}
    assert (groups.counts["groups_admitted"], groups.counts["groups_refused"]) == (1, 1)
    groups.finish(b)
    assert groups.find("b").telemetry() == {"groups_refused": 1.0}


def test_a_refused_group_stays_refused_for_all_its_samples():
    """The method must act on all samples of a group or on none."""
    groups = make(slots=1)
    a = enter(groups, "a", 1)
    names = ids("b", 2)
    groups.add(names[0], ESAMP | {SAMPLES: 2})
    groups.finish(a)
    groups.add(names[1], ESAMP | {SAMPLES: 2})
    assert groups.samples[names[1]].group is groups.samples[names[0]].group
    assert slot_of(groups, names[1]) is None


def test_only_requests_with_the_same_name_share_a_group():
    groups = make()
    a, b = enter(groups, "a", 2, group=NAME), enter(groups, "b", 2, group=NAME)
    c, d = enter(groups, "c", 2, group=NAME + "x"), enter(groups, "d", 2)
    assert slot_of(groups, a[0]) == slot_of(groups, b[1])
    assert len({slot_of(groups, names[0]) for names in (a, c, d)}) == 3


def test_a_request_id_that_equals_a_group_name_does_not_join_the_group():
    """Clients choose their ids, and names of groups are secrets, so an id must never be taken for a name."""
    groups = make()
    a = enter(groups, "a", 1, group=NAME)
    for guess in (NAME, f"('group', '{NAME}')", "group"):
        groups.add(guess, ESAMP | {SAMPLES: 1})
        assert slot_of(groups, guess) != slot_of(groups, a[0])


def test_a_named_group_keeps_its_slot_after_its_requests_have_ended():
    groups = make(slots=1)
    a = enter(groups, "a", 2, group=NAME)
    slot = slot_of(groups, a[0])
    groups.finish(a)
    assert groups.slots_idle == 1
    b = enter(groups, "b", 2, group=NAME)
    assert slot_of(groups, b[0]) == slot
    assert groups.counts["groups_admitted"] == 1


def test_the_same_name_with_other_options_is_another_group():
    groups = make()
    a, b = enter(groups, "a", 1, group=NAME), enter(groups, "b", 1, group=NAME, beta=2)
    assert slot_of(groups, a[0]) != slot_of(groups, b[0])


def test_scope_batch_needs_the_setting_shared():
    groups = make()
    a = enter(groups, "a", 1, scope="batch")
    assert "shared" in str(groups.samples[a[0]].group.refused)
    allowed = make(shared=True)
    a, b = enter(allowed, "a", 1, scope="batch"), enter(allowed, "b", 1, scope="batch")
    assert slot_of(allowed, a[0]) == slot_of(allowed, b[0])


def test_layers_that_are_not_kept_are_refused():
    groups = make()
    a = enter(groups, "a", 1, source_layer=2)
    assert "layer 2" in str(groups.samples[a[0]].group.refused)


def test_bad_parameters_that_bypassed_admission_are_refused_without_an_exception():
    groups = make()
    groups.add("x", {"method": "esamp", "beta": 99})
    assert "beta" in str(groups.samples["x"].group.refused)
    groups.finish(["x"])
    assert not groups.samples


def test_a_preempted_sample_that_returns_is_not_added_again():
    groups = make()
    a = enter(groups, "a", 2)
    version = groups.version
    groups.add(a[0], ESAMP | {SAMPLES: 2})
    assert groups.version == version
    groups.finish(a)
    assert groups.slots_in_use == 0


def test_many_sets_of_options_stay_within_the_memory_limit():
    groups = make(slots=8, memory=1, defaults={"features": 4})
    kept = []
    for number in range(40):
        size = {"distiller": "mlp", "width": 384 + number} if number % 2 else {"features": 64 + number}
        kept += enter(groups, f"r{number}", 1, **size)
        if len(kept) > 3:
            groups.finish([kept.pop(0)])
        assert groups.nbytes < 2 * 2**20
    assert groups.counts["groups_admitted"] > 0


def test_without_memory_only_the_default_options_run():
    groups = make(memory=0, defaults={"features": 4})
    assert slot_of(groups, enter(groups, "a", 1)[0]) is not None
    b = enter(groups, "b", 1, beta=2)
    assert "memory" in str(groups.samples[b[0]].group.refused)


def test_options_beyond_the_memory_limit_are_refused_before_anything_is_allocated():
    """A single request must not exhaust the machine's memory: this one would need terabytes."""
    groups = make()
    before = groups.nbytes
    a = enter(groups, "a", 1, distiller="mlp", width=65536, depth=64)
    assert "memory" in str(groups.samples[a[0]].group.refused)
    assert groups.nbytes == before


def test_a_group_is_found_by_the_engines_ids_and_by_the_clients_id():
    groups = make()
    a = enter(groups, "cmpl-7-0", 2)
    group = groups.samples[a[0]].group
    for name in (*a, "cmpl-7-0-1a2b3c4d", "cmpl-7-0"):
        assert groups.find(name) is group
    groups.finish(a)
    for name in (*a, "cmpl-7-0-1a2b3c4d", "cmpl-7-0"):
        assert groups.find(name) is group
        assert group.telemetry()["steps"] == 0
    assert groups.find("cmpl-7") is None


def test_no_more_ended_requests_than_the_setting_kept_are_remembered():
    groups = make(kept=3)
    for number in range(10):
        groups.finish(enter(groups, f"r{number}", 2, trace=1))
    assert [groups.find(f"r{number}") is not None for number in range(10)] == [False] * 7 + [True] * 3
    assert len(groups._traces) == len(groups._parents) == 3


def test_wrong_default_parameters_raise_at_the_start():
    with pytest.raises(OptionError, match="beta"):
        make(defaults={"beta": 99})


@pytest.mark.parametrize("seed", range(20))
def test_random_schedules_leak_no_slot(seed):
    """Samples arrive, end, or are aborted before they arrive, in random order. In the end all slots are free."""
    dice = random.Random(seed)
    groups = make(slots=3, kept=5)
    live: list[str] = []
    for number in range(300):
        if dice.random() < 0.5:
            n = dice.choice([1, 2, 5])
            names = ids(f"r{number}", n)
            extra = dice.choice([{}, {"group": NAME}, {"beta": 2}, {"beta": 77}, {"trace": 1}])
            count = dice.choice([{SAMPLES: n}, {}])
            for name in names:
                if dice.random() < 0.9:  # the others are aborted before they arrive
                    groups.add(name, ESAMP | extra | count)
                    live.append(name)
        leaving = [name for name in live if dice.random() < 0.3]
        groups.finish([*leaving, "never-seen"])
        live = [name for name in live if name not in leaving]
        assert groups.slots_in_use + groups.slots_idle <= 3
    groups.finish(live)
    assert (groups.slots_in_use, len(groups.samples)) == (0, 0)
    claimed = sum(built.in_use for built in groups._pool)
    assert claimed == groups.slots_idle
    for number in range(3):  # all three slots can be claimed again
        assert slot_of(groups, enter(groups, f"last{number}", 1)[0]) is not None


@pytest.mark.parametrize("defaults", [{"method": "min_p"}, {"method": "esamp+penalties"}], ids=str)
def test_default_methods_that_set_the_sampler_are_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="--override-generation-config"):
        RequestGroups(VLLMSettings(defaults=defaults), SHAPE)
