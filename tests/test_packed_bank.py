"""The packed bank against a list of dictionaries: what is written is read again, and nothing else is touched."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esamp.decoding.layout import RowLayout
from esamp.explorer.bank import PackedBank

STATE = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3.0), "long": torch.tensor([4.0], dtype=torch.float64)}
KEPT = {"c": torch.tensor([5.0, 6.0, 7.0])}
NAMES = (*STATE, *KEPT)


def contents(bank: PackedBank, slot: int) -> dict[str, list[float]]:
    return {name: bank.tensors[name][slot].flatten().tolist() for name in NAMES}


def added(held: dict[str, list[float]], number: float) -> dict[str, list[float]]:
    return {name: [value + number for value in values] for name, values in held.items()}


FRESH = {name: tensor.flatten().tolist() for name, tensor in (STATE | KEPT).items()}


@settings(max_examples=60)
@given(
    groups=st.lists(st.permutations(range(6)).map(lambda order: order[: 1 + order[0] % 5]), min_size=1, max_size=6),
    resets=st.lists(st.integers(0, 31), min_size=6, max_size=6),
    workspace=st.sampled_from([1, 60, 1 << 20]),
    scratch=st.sampled_from([0, 20]),
    reset_in_place=st.sampled_from([0, 1 << 20]),
)
def test_what_pieces_change_is_what_is_read(
    groups: list[list[int]], resets: list[int], workspace: int, scratch: int, reset_in_place: int
) -> None:
    bank = PackedBank(STATE, KEPT, 4, workspace=workspace, reset_in_place=reset_in_place)
    held = [dict(FRESH) for _ in range(6)]
    bank.grow(6)
    # Each batch stays for two steps.
    layouts = [layout for slots in groups for layout in [RowLayout.build(slots)] * 2]
    for step, (layout, reset) in enumerate(zip(layouts, resets * 2, strict=False)):
        slots, number = layout.slots.tolist(), float(step + 1)
        seen: list[int] = []
        for piece in bank.pieces(layout, *NAMES, scratch=scratch, write=True):
            for tensor in piece.state.values():
                tensor += number
            seen += piece.of(layout.slots).tolist()
        assert seen == slots
        wiped = torch.tensor([bool(reset >> group & 1) for group in range(len(slots))])
        bank.reset(layout, wiped)
        for slot, gone in zip(slots, wiped.tolist(), strict=True):
            held[slot] = added(held[slot], number) | ({name: FRESH[name] for name in STATE} if gone else {})
        assert [contents(bank, slot) for slot in range(6)] == held
        read = bank.read(layout, "c", "b")
        assert read["b"].tolist() == [held[slot]["b"][0] for slot in slots]
        assert read["c"].tolist() == [held[slot]["c"] for slot in slots]


@pytest.mark.parametrize(("slots", "copies"), [([2, 3, 4], False), ([0], False), ([3, 2], True), ([0, 2], True)])
def test_neighbouring_slots_are_views_and_others_are_copies(slots: list[int], copies: bool) -> None:
    bank = PackedBank(STATE, KEPT, 5)
    found = bank.read(RowLayout.build(slots), "a")["a"]
    found += 1
    assert (bank.tensors["a"][slots[0]].flatten().tolist() == FRESH["a"]) == copies


@pytest.mark.parametrize(("workspace", "pieces"), [(1, 4), (40, 2), (1 << 20, 1)])
def test_no_piece_takes_more_scratch_than_the_workspace_unless_it_is_one_group(workspace: int, pieces: int) -> None:
    bank = PackedBank(STATE, KEPT, 5, workspace=workspace)
    assert len(list(bank.pieces(RowLayout.build([1, 2, 3, 4]), *NAMES, scratch=20))) == pieces


def test_a_refreshed_slot_starts_from_both_templates() -> None:
    bank = PackedBank(STATE, KEPT, 2)
    for tensor in bank.tensors.values():
        tensor += 1
    bank.refresh(1)
    assert contents(bank, 1) == FRESH
    assert contents(bank, 0) == added(FRESH, 1)


def test_a_bank_without_tensors_does_nothing() -> None:
    bank = PackedBank({}, {}, 3)
    layout = RowLayout.build([0, 2])
    found: list[Any] = list(bank.pieces(layout, write=True))
    bank.reset(layout, torch.tensor([True, True]))
    bank.grow(9)
    assert bank.nbytes == 0
    assert all(piece.state == {} for piece in found)
