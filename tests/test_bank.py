"""The bank against a model made of a dictionary, and the layout of rows on it."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.slots import Bank
from esamp.decoding.telemetry import Telemetry

TEMPLATE = {"weights": torch.tensor([[1.0, 2.0]]), "clock": torch.tensor([7])}


class BankMachine(RuleBasedStateMachine):
    """Random claims, releases, growth and writes; `held` says what every claimed slot must contain."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 2
        self.bank = Bank(TEMPLATE, self.size)
        self.held: dict[int, tuple[float, int]] = {}

    @rule()
    def claim(self) -> None:
        slot = self.bank.claim()
        if len(self.held) == self.size:
            assert slot is None
        else:
            assert slot is not None
            assert slot not in self.held
            assert 0 <= slot < self.size
            self.held[slot] = (1.0, 7)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.held)))
        self.bank.release(slot)
        del self.held[slot]
        with pytest.raises(ValueError, match=f"slot {slot} is not in use"):
            self.bank.release(slot)

    @rule(slots=st.integers(-1, 9))
    def grow(self, slots: int) -> None:
        self.bank.grow(slots)
        self.size = max(self.size, slots)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.held)), unique=True))
        values = data.draw(st.lists(st.integers(0, 100), min_size=len(slots), max_size=len(slots)))
        reset = data.draw(st.lists(st.booleans(), min_size=len(slots), max_size=len(slots)))
        number, wipe = torch.tensor(values, dtype=torch.float32), torch.tensor(reset, dtype=torch.bool)
        state = {
            "weights": torch.where(wipe, torch.nan, number).view(-1, 1, 1).repeat(1, 1, 2),
            "clock": torch.tensor(values, dtype=torch.int64).view(-1, 1),
        }
        index = torch.tensor(slots, dtype=torch.int64)
        self.bank.store(index, state, reset=wipe)
        for slot, value, wiped in zip(slots, values, reset, strict=True):
            self.held[slot] = (1.0, 7) if wiped else (float(value), value)

    @invariant()
    def contents_agree(self) -> None:
        assert self.bank.size == self.size
        assert self.bank.in_use == len(self.held)
        slots = sorted(self.held)
        state = self.bank.read(torch.tensor(slots, dtype=torch.int64))
        assert state["weights"].shape == (len(slots), 1, 2)
        assert state["weights"][:, 0, 0].tolist() == [self.held[slot][0] for slot in slots]
        assert state["clock"][:, 0].tolist() == [self.held[slot][1] for slot in slots]


TestBank = BankMachine.TestCase
TestBank.settings = settings(max_examples=60, stateful_step_count=25)


def test_what_the_bank_holds_in_bytes() -> None:
    assert Bank(TEMPLATE, 5).nbytes == 5 * (2 * 4 + 8)


@pytest.mark.parametrize("slot", [-1, 0, 2, 99])
def test_releasing_what_nobody_claimed(slot: int) -> None:
    with pytest.raises(ValueError, match="not in use"):
        Bank(TEMPLATE, 2).release(slot)


def test_a_bank_made_and_grown_in_inference_mode_can_be_written_outside_of_it() -> None:
    with torch.inference_mode():
        bank, telemetry = Bank({"weights": torch.zeros(2)}, 1), Telemetry(1, "cpu")
        bank.grow(2)
        telemetry.grow(2)
        state = {"weights": torch.ones(1, 2)}
    slot = bank.claim()
    assert slot is not None
    index = torch.tensor([slot])
    bank.store(index, state, reset=torch.tensor([False]))
    telemetry.add(index, steps=torch.ones(1))
    telemetry.clear(1 - slot)
    assert bank.read(index)["weights"].tolist() == [[1.0, 1.0]]


SLOTS = st.lists(st.none() | st.integers(0, 6), max_size=12)


def values(slots: list[Any], *shape: int) -> Tensor:
    return torch.arange(1.0, 1 + len(slots) * max(1, *shape, 1)).view(len(slots), *shape)


@given(slots=SLOTS, data=st.data())
def test_rows_go_to_the_grid_of_their_slot_and_back(slots: list[int | None], data: st.DataObject) -> None:
    live = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(slots), max_size=len(slots))), dtype=torch.bool)
    layout = RowLayout.build(slots)
    known = list(dict.fromkeys(slot for slot in slots if slot is not None))
    assert layout.slots.tolist() == known
    assert layout.lanes == max([slots.count(slot) for slot in known], default=1)
    assert layout.placed.tolist() == [slot is not None for slot in slots]
    rows = values(slots, 3)
    poisoned = torch.where(live.unsqueeze(1), rows, torch.nan)
    grid = layout.to_grid(poisoned, live)
    assert grid.shape == (len(known), layout.lanes, 3)
    for group, slot in enumerate(known):
        expected = [rows[row].tolist() for row in range(len(slots)) if slots[row] == slot and live[row]]
        assert [cell for cell in grid[group].tolist() if any(cell)] == expected
    back = layout.to_rows(grid)
    assert torch.equal(back, torch.where((live & layout.placed).unsqueeze(1), rows, 0.0))


@given(slots=SLOTS)
def test_group_values_spread_to_their_rows(slots: list[int | None]) -> None:
    layout = RowLayout.build(slots)
    assert layout.spread(layout.slots).tolist() == [0 if slot is None else slot for slot in slots]
    pairs = torch.stack([layout.slots, -layout.slots], dim=-1)
    assert layout.spread(pairs).tolist() == [[slot or 0, -(slot or 0)] for slot in slots]


def test_scalars_keep_their_dtype_on_the_grid() -> None:
    layout = RowLayout.build([4, None, 4, 1])
    flags = torch.tensor([True, True, False, True])
    assert layout.to_grid(flags, flags).tolist() == [[True, False], [True, False]]
