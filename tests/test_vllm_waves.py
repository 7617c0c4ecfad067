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
    return names(gate.arrive(sample, request, index, WavePlan(group or request, sizes), now))


def end(gate: Gate, *samples: str, now: float = 0.0) -> list[str]:
    for sample in samples:
        gate.ended(sample)
    return names(gate.ready(now))


class TestGathering:
    def test_the_samples_of_a_wave_start_in_the_order_of_their_indexes_when_the_last_has_arrived(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a2", (3,)) == []
        assert arrive(gate, "a0", (3,)) == []
        assert names(gate.ready(0.5)) == []
        assert arrive(gate, "a1", (3,)) == ["a0", "a1", "a2"]

    def test_a_lone_sample_starts_at_once(self) -> None:
        assert arrive(Gate(patience=PATIENCE), "a0", (1,)) == ["a0"]

    def test_samples_of_an_unknown_number_start_when_they_arrive(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert [arrive(gate, f"a{i}", ()) for i in range(3)] == [["a0"], ["a1"], ["a2"]]

    def test_a_wave_starts_incomplete_after_patience_seconds(self) -> None:
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

    def test_a_wave_does_not_wait_for_an_aborted_sample(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (3,))
        arrive(gate, "a1", (3,))
        assert end(gate, "a0") == []
        assert arrive(gate, "a2", (3,)) == ["a1", "a2"]

    def test_without_patience_waves_start_incomplete_at_once(self) -> None:
        gate = Gate(patience=0)
        assert arrive(gate, "a1", (2, 2)) == ["a1"]
        assert arrive(gate, "a3", (2, 2)) == []
        assert end(gate, "a1") == ["a3"]
        assert end(gate, "a3") == []
        assert "a" not in gate

    def test_a_request_is_remembered_while_samples_are_expected(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (1, 1)) == ["a0"]
        assert end(gate, "a0") == []
        assert "a" in gate
        assert arrive(gate, "a1", (1, 1)) == ["a1"]
        assert end(gate, "a1") == []
        assert "a" not in gate

    def test_a_request_is_forgotten_when_no_sample_arrives_for_patience_seconds(self) -> None:
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

    def test_only_starts_after_the_first_wave_are_marked_as_later(self) -> None:
        gate = Gate(patience=PATIENCE)
        first = gate.arrive("a0", "a", 0, WavePlan("a", (1, 1)), 0.0)
        gate.arrive("a1", "a", 1, WavePlan("a", (1, 1)), 0.0)
        gate.ended("a0")
        assert (first, gate.ready(0)) == ([Start("a0", later=False)], [Start("a1", later=True)])

    def test_a_wave_that_was_aborted_while_held_is_skipped(self) -> None:
        gate = Gate(patience=PATIENCE)
        for i in range(6):
            arrive(gate, f"a{i}", (2, 2, 2))
        assert end(gate, "a2", "a3") == []
        assert end(gate, "a0", "a1") == ["a4", "a5"]

    def test_the_rest_of_a_wave_starts_without_an_aborted_sample(self) -> None:
        gate = Gate(patience=PATIENCE)
        for i in range(4):
            arrive(gate, f"a{i}", (1, 3))
        assert end(gate, "a2") == []
        assert end(gate, "a0") == ["a1", "a3"]

    def test_a_wave_of_which_no_sample_arrives_is_skipped(self) -> None:
        gate = Gate(patience=PATIENCE)
        arrive(gate, "a0", (1, 1, 1))
        arrive(gate, "a2", (1, 1, 1))
        assert end(gate, "a0", now=0.5) == []
        assert names(gate.ready(1)) == ["a2"]

    def test_each_request_of_a_group_has_its_own_waves(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        assert arrive(gate, "a0", (1, 1), group="g") == ["a0"]
        assert arrive(gate, "b0", (1, 1), group="g") == ["b0"]
        arrive(gate, "a1", (1, 1), group="g")
        arrive(gate, "b1", (1, 1), group="g")
        assert end(gate, "b0") == ["b1"]
        assert end(gate, "a0") == ["a1"]

    def test_empty_waves_are_skipped_and_an_index_beyond_the_last_belongs_to_the_last_wave(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (0, 1, 0, 1)) == ["a0"]
        assert arrive(gate, "a7", (0, 1, 0, 1)) == []
        assert end(gate, "a0") == ["a7"]

    def test_a_running_sample_that_arrives_again_starts_again_and_a_held_one_does_not(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (1, 1)) == ["a0"]
        assert arrive(gate, "a0", (1, 1)) == ["a0"]
        assert arrive(gate, "a1", (1, 1)) == []
        assert arrive(gate, "a1", (1, 1)) == []
        assert end(gate, "a0") == ["a1"]

    def test_the_end_of_an_unknown_sample_is_ignored(self) -> None:
        assert end(Gate(patience=PATIENCE), "a0") == []

    def test_memory_does_not_grow_with_the_size_of_a_wave(self) -> None:
        gate = Gate(patience=PATIENCE)
        assert arrive(gate, "a0", (10**12, 10**12)) == []
        assert names(gate.ready(1)) == ["a0"]


class TestPlaces:
    def test_groups_are_admitted_in_the_order_of_their_arrival(self) -> None:
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

    def test_an_admitted_group_starts_at_once(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        for sample in ("a0", "b0", "b1", "c0"):
            arrive(gate, sample, (2,) if sample[0] == "b" else (1,))
        assert end(gate, "a0") == ["b0", "b1"]

    def test_a_group_that_was_aborted_while_it_waited_is_skipped(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        for sample in ("a0", "b0", "c0"):
            arrive(gate, sample, (1,))
        assert end(gate, "b0") == []
        assert "b" not in gate
        assert end(gate, "a0") == ["c0"]

    def test_as_many_groups_are_admitted_as_have_left(self) -> None:
        gate = Gate(places=2, patience=PATIENCE)
        for sample in ("a0", "b0", "c0", "d0", "e0"):
            arrive(gate, sample, (1,))
        assert end(gate, "a0", "b0") == ["c0", "d0"]

    def test_a_request_starts_or_waits_with_the_group_that_it_joins(self) -> None:
        gate = Gate(places=1, patience=PATIENCE)
        arrive(gate, "a0", (1,), group="g")
        assert arrive(gate, "b0", (1,), group="h") == []
        assert arrive(gate, "c0", (1,), group="g") == ["c0"]
        assert arrive(gate, "d0", (1,), group="h") == []
        assert end(gate, "a0") == []
        assert end(gate, "c0") == ["b0", "d0"]


def test_in_random_schedules_every_sample_starts_once_in_order_and_within_the_places() -> None:
    for seed in range(2000):
        _World(random.Random(seed), f"seed {seed}").run()


class _World:
    """Requests with random waves whose samples arrive (some never do), run, end and are aborted in random order."""

    def __init__(self, chance: random.Random, seed: str) -> None:
        self.chance, self.seed, self.now = chance, seed, 0.0
        self.places = chance.choice([None, 1, 2, 5])
        self.patience = chance.choice([0.0, 1.0])
        self.gate = Gate(places=self.places, patience=self.patience)
        self.sizes = {f"r{r}": self._sizes() for r in range(chance.randint(1, 8))}
        self.group = {request: chance.choice([request, request, "g", "h"]) for request in self.sizes}
        self.to_arrive = [(r, i) for r, sizes in self.sizes.items() for i in range(sum(sizes)) if chance.random() < 0.9]
        if chance.random() < 0.5:
            chance.shuffle(self.to_arrive)
        self.arrived: set[tuple[str, int]] = set()
        self.held: set[tuple[str, int]] = set()
        self.running: set[tuple[str, int]] = set()
        self.latest: dict[str, float] = {}
        self.started: dict[str, int] = {}

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.chance.randint(1, 4) for _ in range(self.chance.randint(1, 4)))

    def run(self) -> None:
        while self.to_arrive or self.held or self.running:
            self.now += self.chance.choice([0.0, 0.01, 0.3])
            move = self.chance.random()
            if move < 0.5 and self.to_arrive:
                self.arrive(*self.to_arrive.pop(0))
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

    def arrive(self, request: str, index: int) -> None:
        self.latest[request] = self.now
        self.arrived.add((request, index))
        self.held.add((request, index))
        plan = WavePlan(self.group[request], self.sizes[request])
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
        """No sample of an earlier wave is held, and this wave is complete unless `patience` seconds have passed."""
        if wave <= self.started.get(request, -1):
            return  # a sample that arrived late
        self.started[request] = wave
        assert request not in dict(before), f"{self.seed}: wave {wave} of {request} starts while {before} run"
        due = {(request, index) for index in range(sum(self.sizes[request])) if self.wave(request, index) <= wave}
        assert not self.held & due, f"{self.seed}: {self.held & due} are still held"
        if self.now - self.latest[request] < self.patience:
            missing = {sample for sample in due if self.wave(*sample) == wave} - self.arrived
            assert not missing, f"{self.seed}: {missing} have not arrived"

    def check_that_nothing_is_stuck(self) -> None:
        """When nothing runs, held samples start after at most `patience` seconds."""
        if self.held and not self.running:
            self.now += self.patience + 1e-6
            self.start(self.gate.ready(self.now))
            assert self.running, f"{self.seed}: {self.held} are stuck"


@pytest.mark.parametrize("places", [None, 3])
def test_the_cost_of_a_step_does_not_grow_with_held_samples(places: int | None) -> None:
    """A gate with many waiting requests only visits those in which something has happened."""
    gate = Gate(places=places, patience=PATIENCE)
    for request in range(1000):
        for index in range(4):
            gate.arrive(f"{request}.{index}", str(request), index, WavePlan(request, (1, 3)), 0.0)
    assert len(gate) == 4000
    assert not gate._pending
