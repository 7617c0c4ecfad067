"""The gate that holds samples back: hand-made cases, and random schedules. No engine."""

import random
from collections.abc import Sequence
from itertools import accumulate

import pytest

from esamp.engines.vllm.waves import Gate, Start, WavePlan

PATIENCE = 1.0


def names(starts: Sequence[Start]) -> list[str]:
    return [start.sample for start in starts]


def arrive(gate: Gate, sample: str, sizes: tuple[int, ...], now: float = 0.0, group: str | None = None) -> list[str]:
    """`a3` is sample 3 of request `a`."""
    request, index = sample[0], int(sample[1:])
    return names(gate.arrive(sample, request, index, Plan(group or request, sizes), now))


def end(gate: Gate, *samples: str, now: float = 0.0) -> list[str]:
    for sample in samples:
        gate.ended(sample)
    return names(gate.ready(now))


class TestGathering:
    def test_all_samples_of_one_wave_start_when_the_last_has_come_in_the_order_of_their_indexes(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a2", (3,)) == []
        assert arrive(gate, "a0", (3,)) == []
        assert names(gate.ready(0.5)) == []
        assert arrive(gate, "a1", (3,)) == ["a0", "a1", "a2"]

    def test_a_lone_sample_starts_at_once(self) -> None:
        assert arrive(Gate(patience=PATIENCE), "a0", (1,)) == ["a0"]

    def test_without_a_known_number_every_sample_starts_at_once(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert [arrive(gate, f"a{i}", ()) for i in range(3)] == [["a0"], ["a1"], ["a2"]]

    def test_samples_that_do_not_come_are_waited_for_until_patience_ends(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (3,), now=0.0)
        arrive(gate, "a1", (3,), now=0.9)
        assert names(gate.ready(1.8)) == []
        assert names(gate.ready(2.0)) == ["a0", "a1"]

    def test_a_late_sample_of_a_running_wave_starts_at_once(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (2, 1))
        gate.ready(PATIENCE)
        assert arrive(gate, "a2", (2, 1), now=2) == []
        assert arrive(gate, "a1", (2, 1), now=2) == ["a1"]

    def test_a_sample_that_was_aborted_is_not_waited_for(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (3,))
        arrive(gate, "a1", (3,))
        assert end(gate, "a0") == []
        assert arrive(gate, "a2", (3,)) == ["a1", "a2"]

    def test_no_patience_gathers_nothing(self) -> None:
        gate = Gate(patience=0)
        assert arrive(gate, "a1", (2, 2)) == ["a1"]
        assert arrive(gate, "a3", (2, 2)) == []
        assert end(gate, "a1") == ["a3"]
        assert end(gate, "a3") == []
        assert "a" not in gate

    def test_a_request_whose_samples_end_before_the_others_have_come_is_remembered(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (1, 1)) == ["a0"]
        assert end(gate, "a0") == []
        assert "a" in gate
        assert arrive(gate, "a1", (1, 1)) == ["a1"]
        assert end(gate, "a1") == []
        assert "a" not in gate

    def test_but_not_for_ever(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (1, 1))
        end(gate, "a0")
        assert names(gate.ready(PATIENCE)) == []
        assert "a" not in gate


class TestWaves:
    def test_the_next_wave_starts_when_every_sample_of_the_one_before_has_ended(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert [arrive(gate, f"a{i}", (2, 2, 1)) for i in range(5)] == [[], ["a0", "a1"], [], [], []]
        assert end(gate, "a1") == []
        assert end(gate, "a0") == ["a2", "a3"]
        assert end(gate, "a2", "a3") == ["a4"]
        assert end(gate, "a4") == []
        assert "a" not in gate
        assert len(gate) == 0

    def test_only_later_waves_are_said_to_be_later(self) -> None:
        gate = Gate(patience=PATIENCE)
        first = gate.arrive("a0", "a", 0, Plan("a", (1, 1)), 0.0)
        gate.arrive("a1", "a", 1, Plan("a", (1, 1)), 0.0)
        gate.ended("a0")
        assert (first, gate.ready(0)) == ([Start("a0", False)], [Start("a1", True)])

    def test_a_wave_that_was_aborted_while_held_is_passed_over(self) -> None:
        gate = Gate(patience=PATIENCE)
        for i in range(6):
            arrive(gate, f"a{i}", (2, 2, 2))
        assert end(gate, "a2", "a3") == []
        assert end(gate, "a0", "a1") == ["a4", "a5"]

    def test_an_aborted_held_sample_leaves_the_rest_of_its_wave(self) -> None:
        gate = Gate(patience=PATIENCE)
        for i in range(4):
            arrive(gate, f"a{i}", (1, 3))
        assert end(gate, "a2") == []
        assert end(gate, "a0") == ["a1", "a3"]

    def test_a_wave_that_never_came_is_passed_over(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (1, 1, 1))
        arrive(gate, "a2", (1, 1, 1))
        assert end(gate, "a0", now=0.5) == []
        assert names(gate.ready(1)) == ["a2"]

    def test_requests_of_one_group_have_waves_of_their_own(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        assert arrive(gate, "a0", (1, 1), group="g") == ["a0"]
        assert arrive(gate, "b0", (1, 1), group="g") == ["b0"]
        arrive(gate, "a1", (1, 1), group="g")
        arrive(gate, "b1", (1, 1), group="g")
        assert end(gate, "b0") == ["b1"]
        assert end(gate, "a0") == ["a1"]

    def test_empty_waves_and_indexes_beyond_the_last_do_no_harm(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (0, 1, 0, 1)) == ["a0"]
        assert arrive(gate, "a7", (0, 1, 0, 1)) == []
        assert end(gate, "a0") == ["a7"]

    def test_a_sample_that_runs_may_be_queued_again_and_a_held_one_not(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (1, 1)) == ["a0"]
        assert arrive(gate, "a0", (1, 1)) == ["a0"]
        assert arrive(gate, "a1", (1, 1)) == []
        assert arrive(gate, "a1", (1, 1)) == []
        assert end(gate, "a0") == ["a1"]

    def test_unknown_samples_end_unnoticed(self) -> None:
        assert end(Gate(patience=PATIENCE), "a0") == []

    def test_a_number_of_samples_that_nobody_means_takes_no_memory(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (10**12, 10**12)) == []
        assert names(gate.ready(1)) == ["a0"]


class TestPlaces:
    def test_first_come_first_served(self) -> None:
        gate = Gate(places=2, patience=PATIENCE)
        started = [arrive(gate, sample, (1,)) for sample in ("a0", "b0", "c0", "d0")]
        assert started == [["a0"], ["b0"], [], []]
        assert end(gate, "b0") == ["c0"]
        assert end(gate, "a0") == ["d0"]

    def test_a_group_keeps_its_place_between_its_waves(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        arrive(gate, "a0", (1, 1))
        arrive(gate, "a1", (1, 1))
        assert arrive(gate, "b0", (1,)) == []
        assert end(gate, "a0") == ["a1"]
        assert end(gate, "a1") == ["b0"]

    def test_a_group_that_is_let_in_starts_in_the_same_moment(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        for sample in ("a0", "b0", "b1", "c0"):
            arrive(gate, sample, (2,) if sample[0] == "b" else (1,))
        assert end(gate, "a0") == ["b0", "b1"]

    def test_a_group_that_was_aborted_while_it_waited_is_passed_over(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        for sample in ("a0", "b0", "c0"):
            arrive(gate, sample, (1,))
        assert end(gate, "b0") == []
        assert "b" not in gate
        assert end(gate, "a0") == ["c0"]

    def test_several_that_leave_at_once_let_as_many_in(self) -> None:
        gate = Gate(places=2, patience=PATIENCE)
        for sample in ("a0", "b0", "c0", "d0", "e0"):
            arrive(gate, sample, (1,))
        assert end(gate, "a0", "b0") == ["c0", "d0"]

    def test_whoever_joins_a_group_that_runs_need_not_wait_and_one_that_waits_waits_with_it(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        arrive(gate, "a0", (1,), group="g")
        assert arrive(gate, "b0", (1,), group="h") == []
        assert arrive(gate, "c0", (1,), group="g") == ["c0"]
        assert arrive(gate, "d0", (1,), group="h") == []
        assert end(gate, "a0") == []
        assert end(gate, "c0") == ["b0", "d0"]


def test_random_schedules_start_every_sample_once_in_order_and_within_the_places() -> None:
    for seed in range(2000):
        _World(random.Random(seed), f"seed {seed}").run()


class _World:
    """Requests with random waves come sample by sample, some never, run, end and are aborted, in random order."""

    def __init__(self, chance: random.Random, seed: str) -> None:
        self.chance, self.seed, self.now = chance, seed, 0.0
        self.places = chance.choice([None, 1, 2, 5])
        self.patience = chance.choice([0.0, 1.0])
        self.gate = Gate(places=self.places, patience=self.patience)
        self.sizes = {f"r{r}": self._sizes() for r in range(chance.randint(1, 8))}
        self.group = {request: chance.choice([request, request, "g", "h"]) for request in self.sizes}
        self.to_come = [(r, i) for r, sizes in self.sizes.items() for i in range(sum(sizes)) if chance.random() < 0.9]
        if chance.random() < 0.5:
            chance.shuffle(self.to_come)
        self.came: set[tuple[str, int]] = set()
        self.held: set[tuple[str, int]] = set()
        self.running: set[tuple[str, int]] = set()
        self.latest: dict[str, float] = {}
        self.opened: dict[str, int] = {}

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.chance.randint(1, 4) for _ in range(self.chance.randint(1, 4)))

    def run(self) -> None:
        while self.to_come or self.held or self.running:
            self.now += self.chance.choice([0.0, 0.01, 0.3])
            move = self.chance.random()
            if move < 0.5 and self.to_come:
                self.come(*self.to_come.pop(0))
            elif move < 0.7 and self.running:
                self.end(self.chance.choice(sorted(self.running)))
            elif move < 0.75 and self.held:
                self.end(self.chance.choice(sorted(self.held)))
            else:
                self.start(self.gate.ready(self.now))
                self.check_that_nothing_is_stuck()
        self.gate.ready(self.now + self.patience + 1e-6)
        assert len(self.gate) == 0, self.seed
        assert not [request for request in self.sizes if request in self.gate], self.seed

    def come(self, request: str, index: int) -> None:
        self.latest[request] = self.now
        self.came.add((request, index))
        self.held.add((request, index))
        plan = Plan(self.group[request], self.sizes[request])
        self.start(self.gate.arrive(f"{request}.{index}", request, index, plan, self.now))

    def end(self, sample: tuple[str, int]) -> None:
        self.held.discard(sample)
        self.running.discard(sample)
        self.gate.ended(f"{sample[0]}.{sample[1]}")

    def start(self, starts: Sequence[Start]) -> None:
        samples = [(name.split(".")[0], int(name.split(".")[1])) for name in names(starts)]
        before = set(self.running)
        for sample in samples:
            assert sample in self.held, f"{self.seed}: {sample} starts, which is not held"
            self.held.discard(sample)
            self.running.add(sample)
        for request in dict(samples):
            self.check_wave(request, min(self.wave(*sample) for sample in samples if sample[0] == request), before)
        groups = {self.group[request] for request, _ in self.running}
        assert self.places is None or len(groups) <= self.places, self.seed

    def wave(self, request: str, index: int) -> int:
        return sum(index >= stop for stop in accumulate(self.sizes[request]))

    def check_wave(self, request: str, wave: int, before: set[tuple[str, int]]) -> None:
        """Nothing of an earlier wave is left, and nobody of this one is missing unless patience has ended."""
        if wave <= self.opened.get(request, -1):
            return  # a sample that came late
        self.opened[request] = wave
        assert request not in dict(before), f"{self.seed}: wave {wave} of {request} starts while {before} run"
        its = [(request, index) for index in range(sum(self.sizes[request])) if self.wave(request, index) <= wave]
        assert not self.held & set(its), f"{self.seed}: {self.held & set(its)} stay behind"
        if self.now - self.latest[request] < self.patience:
            missing = {sample for sample in its if self.wave(*sample) == wave} - self.came
            assert not missing, f"{self.seed}: {missing} have not come"

    def check_that_nothing_is_stuck(self) -> None:
        """When nothing runs, whoever is held starts at the latest when patience ends."""
        if self.held and not self.running:
            self.now += self.patience + 1e-6
            self.start(self.gate.ready(self.now))
            assert self.running, f"{self.seed}: {self.held} are stuck"


@pytest.mark.parametrize("places", [None, 3])
def test_a_step_costs_nothing_per_held_sample(places: int | None) -> None:
    """A gate with many waiting requests looks at those alone in which something happened."""
    gate = Gate(places=places, patience=PATIENCE)
    for request in range(1000):
        for index in range(4):
            gate.arrive(f"{request}.{index}", str(request), index, Plan(request, (1, 3)), 0.0)
    assert len(gate) == 4000
    assert not gate._changed
