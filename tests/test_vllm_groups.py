"""Groups and slots of the vLLM engine: host bookkeeping with real methods, without an engine."""

import random
from typing import Any

import pytest
import torch

from applicable import applicable
from esamp.engines.vllm.workers.groups import Groups
from esamp.engines.vllm.params import SAMPLES
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.methods.base import ModelShape

SHAPE = ModelShape(hidden_size=8, layer_sizes={1: 8}, layers=4, device=torch.device("cpu"))
ESAMP = {"method": "esamp", "features": 4}
NAME = "a-name-nobody-can-guess"


def make(**settings) -> Groups:
    return Groups(VLLMSettings(**settings), SHAPE)


def ids(parent: str, n: int) -> list[str]:
    return [f"{index}_{parent}-1a2b3c4d" for index in range(n)]


def enter(groups: Groups, parent: str, n: int, **parameters) -> list[str]:
    """All n samples of a request that passed our admission."""
    names = ids(parent, n)
    for name in names:
        groups.add(name, applicable(ESAMP | parameters) | {SAMPLES: n})
    return names


def slot_of(groups: Groups, request_id: str) -> object:
    group = groups.members[request_id].group
    return (id(group.installed), group.slot) if group.slot is not None else None


def test_samples_of_a_request_share_a_slot_and_requests_do_not():
    groups = make()
    a, b = enter(groups, "a", 3), enter(groups, "b", 2)
    assert len({slot_of(groups, name) for name in a}) == 1
    assert slot_of(groups, a[0]) != slot_of(groups, b[0])
    assert [groups.members[name].index for name in a] == [0, 1, 2]
    assert groups.slots_in_use == 2


def test_ordinary_requests_are_nobodys_members():
    groups = make()
    before = groups.version
    groups.add("x", None)
    groups.add("y", {"method": "vanilla"})
    assert not groups.members
    assert groups.version == before


def test_the_slot_goes_back_with_the_last_sample_and_not_before():
    groups = make(slots=1)
    a = enter(groups, "a", 3)
    groups.finish(a[:2])
    assert groups.slots_in_use == 1
    groups.finish(a[2:])
    assert (groups.slots_in_use, groups.slots_idle) == (0, 0)


def test_a_group_keeps_its_slot_between_waves():
    """Samples 0 and 1 end before 2 and 3 come: what was learnt must still be there."""
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


def test_samples_aborted_before_they_came_are_not_waited_for():
    groups = make(slots=1)
    names = ids("a", 3)
    groups.add(names[0], ESAMP | {SAMPLES: 3})
    groups.finish([names[2], names[0], names[1]])
    assert (groups.slots_in_use, groups.slots_idle) == (0, 0)


def test_a_group_between_its_waves_gives_way_last():
    groups = make(slots=2)
    waiting, named = ids("a", 2)[0], enter(groups, "b", 2, group=NAME)
    groups.add(waiting, ESAMP | {SAMPLES: 2})
    groups.finish([waiting])
    groups.finish(named)
    enter(groups, "c", 1)
    assert groups.find("a").slot is not None
    assert groups.find("b").slot is None


def test_an_idle_group_makes_room_for_a_new_one():
    groups = make(slots=1)
    first, second = ids("a", 2)
    groups.add(first, ESAMP | {SAMPLES: 2})
    groups.finish([first])
    b = enter(groups, "b", 1)
    assert slot_of(groups, b[0]) is not None
    groups.add(second, ESAMP | {SAMPLES: 2})  # the second sample of "a" comes back to find no slot
    assert groups.members[second].group.refused is not None


def test_of_idle_groups_the_one_unused_for_longest_goes_first():
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


def test_without_a_slot_a_group_is_plain_and_says_so():
    groups = make(slots=1)
    enter(groups, "a", 2)
    b = enter(groups, "b", 2)
    assert slot_of(groups, b[0]) is None
    assert "slots" in str(groups.members[b[0]].group.refused)
    assert groups.members[b[0]].group.telemetry() == {"groups_refused": 1.0}
    assert (groups.counts["groups_admitted"], groups.counts["groups_refused"]) == (1, 1)
    groups.finish(b)
    assert groups.find("b").telemetry() == {"groups_refused": 1.0}


def test_a_refused_group_stays_refused_for_all_its_samples():
    """Half a group with the method and half without would be neither."""
    groups = make(slots=1)
    a = enter(groups, "a", 1)
    names = ids("b", 2)
    groups.add(names[0], ESAMP | {SAMPLES: 2})
    groups.finish(a)
    groups.add(names[1], ESAMP | {SAMPLES: 2})
    assert groups.members[names[1]].group is groups.members[names[0]].group
    assert slot_of(groups, names[1]) is None


def test_a_name_joins_requests_and_only_requests_with_that_name():
    groups = make()
    a, b = enter(groups, "a", 2, group=NAME), enter(groups, "b", 2, group=NAME)
    c, d = enter(groups, "c", 2, group=NAME + "x"), enter(groups, "d", 2)
    assert slot_of(groups, a[0]) == slot_of(groups, b[1])
    assert len({slot_of(groups, names[0]) for names in (a, c, d)}) == 3


def test_no_request_id_reaches_a_named_group():
    """Ids are chosen by clients, names of groups are secrets: they live in different spaces."""
    groups = make()
    a = enter(groups, "a", 1, group=NAME)
    for guess in (NAME, f"('group', '{NAME}')", "group"):
        groups.add(guess, ESAMP | {SAMPLES: 1})
        assert slot_of(groups, guess) != slot_of(groups, a[0])


def test_a_named_group_outlives_its_requests_until_room_is_needed():
    groups = make(slots=1)
    a = enter(groups, "a", 2, group=NAME)
    slot = slot_of(groups, a[0])
    groups.finish(a)
    assert groups.slots_idle == 1
    b = enter(groups, "b", 2, group=NAME)
    assert slot_of(groups, b[0]) == slot
    assert groups.counts["groups_admitted"] == 1


def test_other_options_are_another_group_whatever_the_name():
    groups = make()
    a, b = enter(groups, "a", 1, group=NAME), enter(groups, "b", 1, group=NAME, beta=2)
    assert slot_of(groups, a[0]) != slot_of(groups, b[0])


def test_scope_batch_needs_the_operators_leave():
    groups = make()
    a = enter(groups, "a", 1, scope="batch")
    assert "shared" in str(groups.members[a[0]].group.refused)
    allowed = make(shared=True)
    a, b = enter(allowed, "a", 1, scope="batch"), enter(allowed, "b", 1, scope="batch")
    assert slot_of(allowed, a[0]) == slot_of(allowed, b[0])


def test_layers_that_are_not_kept_are_refused():
    groups = make()
    a = enter(groups, "a", 1, source_layer=2)
    assert "layer 2" in str(groups.members[a[0]].group.refused)


def test_bad_parameters_that_bypassed_admission_are_refused_without_an_exception():
    groups = make()
    groups.add("x", {"method": "esamp", "beta": 99})
    assert "beta" in str(groups.members["x"].group.refused)
    groups.finish(["x"])
    assert not groups.members


def test_a_preempted_request_that_comes_back_is_the_same_member():
    groups = make()
    a = enter(groups, "a", 2)
    version = groups.version
    groups.add(a[0], ESAMP | {SAMPLES: 2})
    assert groups.version == version
    groups.finish(a)
    assert groups.slots_in_use == 0


def test_many_option_sets_stay_within_the_memory_for_them():
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
    assert "memory" in str(groups.members[b[0]].group.refused)


def test_options_that_need_too_much_are_refused_before_anything_is_allocated():
    """One request must not be able to take the machine's memory: this one would want terabytes."""
    groups = make()
    before = groups.nbytes
    a = enter(groups, "a", 1, distiller="mlp", width=65536, depth=64)
    assert "memory" in str(groups.members[a[0]].group.refused)
    assert groups.nbytes == before


def test_telemetry_is_found_by_the_engines_id_and_by_the_clients():
    groups = make()
    a = enter(groups, "cmpl-7-0", 2)
    group = groups.members[a[0]].group
    for name in (*a, "cmpl-7-0-1a2b3c4d", "cmpl-7-0"):
        assert groups.find(name) is group
    groups.finish(a)
    for name in (*a, "cmpl-7-0-1a2b3c4d", "cmpl-7-0"):
        assert groups.find(name) is group
        assert group.telemetry()["steps"] == 0
    assert groups.find("cmpl-7") is None


def test_only_so_many_ended_groups_are_remembered():
    groups = make(kept=3)
    for number in range(10):
        groups.finish(enter(groups, f"r{number}", 2, trace=1))
    assert [groups.find(f"r{number}") is not None for number in range(10)] == [False] * 7 + [True] * 3
    assert len(groups._traces) == len(groups._parents) == 3


def test_wrong_defaults_stop_the_engine_at_its_start():
    with pytest.raises(OptionError, match="beta"):
        make(defaults={"beta": 99})


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_leaks_a_slot(seed):
    """Requests come, go, are never seen or come twice, in any order; in the end no slot is in use and none is lost."""
    dice = random.Random(seed)
    groups = make(slots=3, kept=5)
    alive: list[str] = []
    for number in range(300):
        if dice.random() < 0.5:
            n = dice.choice([1, 2, 5])
            names = ids(f"r{number}", n)
            extra = dice.choice([{}, {"group": NAME}, {"beta": 2}, {"beta": 77}, {"trace": 1}])
            told = dice.choice([{SAMPLES: n}, {}])
            for name in names:
                if dice.random() < 0.9:  # some are aborted before they get here
                    groups.add(name, ESAMP | extra | told)
                    alive.append(name)
        leaving = [name for name in alive if dice.random() < 0.3]
        groups.finish([*leaving, "never-seen"])
        alive = [name for name in alive if name not in leaving]
        assert groups.slots_in_use + groups.slots_idle <= 3
    groups.finish(alive)
    assert (groups.slots_in_use, len(groups.members)) == (0, 0)
    claimed = sum(installed.in_use for installed in groups._installed.values())
    assert claimed == groups.slots_idle
    for number in range(3):  # all three can be had again
        assert slot_of(groups, enter(groups, f"last{number}", 1)[0]) is not None


@pytest.mark.parametrize("defaults", [{"method": "min_p"}, {"method": "esamp+penalties"}], ids=str)
def test_defaults_that_only_a_request_can_have_are_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="--override-generation-config"):
        Groups(VLLMSettings(defaults=defaults), SHAPE)
