"""Fused kernels against the float64 reference, group by group, and against the plain path, step by step.

The tests need a CUDA GPU, or ``TRITON_INTERPRET=1`` in the environment before Triton is imported:
`tests/test_kernels.py` starts such a process.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep
from esamp.explorer import fused, fused_network
from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer
from esamp.explorer.mlp import ResidualNetwork
from esamp.explorer.record import StepRecord
from esamp.explorer.rls import RecursiveLeastSquares
from esamp.methods.esamp import ESamp
from support import esamp_reference as reference
from support.distiller_steps import MIXES, named_matrices
from support.esamp_options import without_unused
from support.step_rows import plain_rows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
pytestmark = [
    pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="needs a CUDA GPU or TRITON_INTERPRET=1"),
    pytest.mark.filterwarnings(
        "ignore::RuntimeWarning"
    ),  # NumPy, in the interpreter, warns of numbers that are not finite
]
S, D = 20, 100
"""Sizes of source and final states: no powers of two, and final states take two tiles."""
SETTINGS: list[dict[str, Any]] = [
    {"features": 5},
    {"features": 16, "gate": False, "beta": 1.0},
    {"features": 17, "ridge": 0.3},
    {"distiller": "mean"},
    {"distiller": "mean", "gate": False, "ridge": 3.0},
    {"preset": "paper"},
    {"preset": "paper", "depth": 1, "loss": "mean", "clip": 0.0, "gate": True, "block": "mlp"},
]
DISTILLERS: list[dict[str, Any]] = [{}, {"distiller": "mean"}, {"preset": "paper"}]
"""One setting of each distiller."""


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def explorer(slots: int = 4, kernels: bool | None = True, workspace: int = 2**26, **options: Any) -> Explorer:
    config = ESampConfig.parse(without_unused({"features": 5, "width": 7} | options))
    explored = Explorer(config, source_size(config), D, slots=slots, device=DEVICE, fused=kernels, workspace=workspace)
    assert (explored.fused is not None) == (kernels is not False)
    return explored


def source_size(config: ESampConfig) -> int:
    """The size of the source states."""
    return D if config.distiller == "mlp" else S


class Step:
    """Random rows of a decode step, whose final states are a noisy linear function of the source states."""

    def __init__(self, slots: list[int | None], dtype: torch.dtype = torch.float32) -> None:
        rows = len(slots)
        mix = torch.linspace(0, 5, S * D).view(S, D).sin() / 4
        source = torch.randn(rows, S)
        self.slots = slots
        self.source = source.to(DEVICE, dtype)
        self.final = (source @ mix + 0.2 * torch.randn(rows, D) + 1).to(DEVICE, dtype)
        self.live = torch.ones(rows, dtype=torch.bool, device=DEVICE)

    def source_for(self, explored: Explorer) -> Tensor:
        """The source states, padded to the size of the final ones for the network."""
        more = D - S if explored.config.distiller == "mlp" else 0
        return torch.nn.functional.pad(self.source, (0, more), value=0.3) if more else self.source

    def propose(self, explored: Explorer) -> StepRecord:
        layout = RowLayout.build(self.slots, DEVICE)
        source = torch.nn.functional.pad(self.source, (0, source_size(explored.config) - S), value=0.3)
        return explored.propose(
            source if explored.config.distiller == "mlp" else self.source, self.final, self.final, layout, self.live
        )

    def run(self, explored: Explorer) -> StepRecord:
        record = self.propose(explored)
        explored.learn(record, None, self.live)
        return record


def pair(claimed: int = 3, **options: Any) -> tuple[Explorer, Explorer]:
    """Two equal explorers, with and without kernels, and their first slots claimed."""
    both = explorer(**options), explorer(**options, kernels=False)
    for each in both:
        assert [each.claim() for _ in range(claimed)] == list(range(claimed))
    return both


def steered(record: StepRecord) -> list[bool]:
    rows: list[bool] = record.rows(record.steered).tolist()
    return rows


def assert_same_state(one: Explorer, other: Explorer, tolerance: float = 2e-5) -> None:
    for name, tensor in one.bank.tensors.items():
        torch.testing.assert_close(tensor, other.bank.tensors[name], atol=tolerance, rtol=tolerance, equal_nan=True)
    torch.testing.assert_close(one.tally.sums, other.tally.sums, atol=10 * tolerance, rtol=10 * tolerance)
    torch.testing.assert_close(one.tally.counts, other.tally.counts, atol=0, rtol=0)


def assert_same_step(mine: StepRecord, other: StepRecord, tolerance: float) -> None:
    where = other.layout.occupied
    for name in ("active", "live", "steered", "missed", "varied"):
        found, expected = getattr(mine, name), getattr(other, name)
        if found.dtype == torch.bool:
            assert torch.equal(found, expected), name
        else:
            keep = other.live if where is None else other.live & where
            torch.testing.assert_close(found[keep], expected[keep], atol=tolerance, rtol=tolerance, msg=name)
    assert mine.tilted.dtype == mine.final.dtype
    torch.testing.assert_close(mine.tilted, other.tilted, atol=tolerance, rtol=tolerance, equal_nan=True)
    still = ~mine.rows(mine.steered)
    assert_same_bits(mine.tilted[still], mine.final[still])


def assert_same_bits(one: Tensor, other: Tensor) -> None:
    kind = torch.int16 if one.dtype.itemsize == 2 else torch.int32
    assert torch.equal(one.contiguous().view(kind), other.contiguous().view(kind))


def reference_group(explored: Explorer) -> reference.Group:
    """The reference implementation of a group, with the explorer's projection or initial weights."""
    config, distiller = explored.config, explored.distiller
    mine: Any = reference.Mean(D, config.ridge)
    if isinstance(distiller, ResidualNetwork):
        named = named_matrices(distiller, distiller.template()["weights"].cpu())
        blocks = [{name: each[b].double().numpy() for name, each in named.items()} for b in range(config.depth)]
        mine = reference.Network(blocks, config.lr, config.eps, config.clip, config.loss)
    if isinstance(distiller, RecursiveLeastSquares):
        assert distiller.projection is not None
        mine = reference.RLS(distiller.size, D, config.ridge, distiller.projection.double().cpu().numpy())
    return reference.Group(mine, None, config.gate and config.distiller != "mlp", config.beta)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_any_mix_of_groups_gives_what_each_alone_would_give(options: dict[str, Any]) -> None:
    explored = explorer(**options)
    assert [explored.claim() for _ in range(3)] == [0, 1, 2]
    groups, largest = [reference_group(explored) for _ in range(3)], 0.0
    for slots in MIXES:
        step = Step(slots)
        moved = (step.run(explored).tilted - step.final).double().cpu()
        for slot, group in enumerate(groups):
            rows = [row for row, owner in enumerate(slots) if owner == slot]
            if not rows:
                continue
            source, final = (part[rows].double().cpu().numpy() for part in (step.source_for(explored), step.final))
            expected = np.stack(group.step(list(source), list(final)))
            largest = max(largest, float(np.abs(expected).max()))
            assert np.abs(moved[rows].numpy() - expected).max() <= 2e-5 * max(largest, 0.1), (slots, slot)
    for slot, group in enumerate(groups):
        summary = explored.tally.summary(slot)
        assert summary.rows == sum(slots.count(slot) for slots in MIXES)
        assert summary.steps == summary.updates == sum(slot in slots for slots in MIXES)
        assert summary.resets == 0
        assert summary.explained_variance == pytest.approx(group.explained_variance, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [(options, torch.float32) for options in SETTINGS]
    + [(options, dtype) for options in DISTILLERS for dtype in (torch.bfloat16, torch.float16)],
    ids=str,
)
def test_every_step_equals_that_of_the_plain_path(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Also for rows without a slot, interleaved groups of unequal size, and dead rows that are not finite."""
    explored, twin = pair(**options)
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for slots in MIXES:
        step = Step(slots, dtype)
        if len(slots) > 4:
            step.live[1] = False
            step.source[1], step.final[1] = torch.nan, torch.inf
        assert_same_step(step.run(explored), step.run(twin), tolerance)
        assert_same_state(explored, twin)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
@pytest.mark.parametrize("programs", [1, 2, 1000])
def test_the_number_of_programs_changes_no_result(
    options: dict[str, Any], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "PROGRAMS", programs)
    explored, twin = pair(**options)
    for slots in MIXES[:4]:
        step = Step(slots)
        assert_same_step(step.run(explored), step.run(twin), 2e-5)
        assert_same_state(explored, twin)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
def test_groups_may_have_more_rows_than_one_tile(options: dict[str, Any]) -> None:
    explored, twin = pair(**options)
    for slots in ([0] * 35, [0, 1] * 17 + [1], [2, 0, 1]):
        step = Step(slots)
        step.live[20:22] = False
        assert_same_step(step.run(explored), step.run(twin), 3e-5)
        assert_same_state(explored, twin)


@pytest.mark.parametrize("features", [32, 64, 128])
def test_steps_equal_the_plain_path_for_any_supported_number_of_features(features: int) -> None:
    options = {"features": features, "ridge": 0.1}
    config = ESampConfig.parse(options)
    one, other = (Explorer(config, 140, 40, slots=2, device=DEVICE, fused=kernels) for kernels in (True, False))
    for each in (one, other):
        each.claim(), each.claim()
    layout, live = RowLayout.build([0, 1, 0, 0], DEVICE), torch.ones(4, dtype=torch.bool, device=DEVICE)
    for _ in range(2):
        source, final = torch.randn(4, 140, device=DEVICE), torch.randn(4, 40, device=DEVICE)
        records = [each.propose(source, final, final, layout, live) for each in (one, other)]
        assert_same_step(records[0], records[1], 1e-4)
        for each, record in zip((one, other), records, strict=True):
            each.learn(record, None, live)
    assert_same_state(one, other, 1e-4)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
def test_fused_and_plain_steps_alternate_on_one_bank(options: dict[str, Any]) -> None:
    explored, twin = pair(**options)
    kernels = explored.fused
    for number, slots in enumerate(MIXES[1:5] * 2):
        step = Step(slots)
        explored.fused = kernels if number % 3 else None
        record = step.propose(explored)
        if number % 3 == 2:  # the kernels propose, the plain path learns
            explored.fused = None
        explored.learn(record, None, step.live)
        assert_same_step(record, step.run(twin), 2e-5)
        assert_same_state(explored, twin)


@pytest.mark.parametrize("part", ["source", "final"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("distiller", ["rls", "mean"])
def test_a_row_that_is_not_finite_is_neither_steered_nor_learned_from(part: str, value: float, distiller: str) -> None:
    if (part, distiller) == ("source", "mean"):
        pytest.skip("the mean does not read the source")
    explored, twin = pair(distiller=distiller)
    for each in (explored, twin):
        torch.manual_seed(3)
        Step([0, 1, 2, 1]).run(each)
    step = Step([1, 0, 1, 2])
    getattr(step, part)[2, 3] = value
    record = step.run(explored)
    assert steered(record) == [True, True, False, True]
    assert_same_step(record, step.run(twin), 2e-5)
    assert_same_state(explored, twin)
    assert explored.tally.summary(1).resets == 0
    assert explored.tally.summary(1).rows == 3


@pytest.mark.parametrize(
    ("name", "value"), [("weights", torch.nan), ("weights", torch.inf), ("seen", torch.nan), ("gram", torch.nan)]
)
def test_only_the_slot_whose_numbers_are_not_finite_is_reset(name: str, value: float) -> None:
    explored, twin = pair()
    for each in (explored, twin):
        torch.manual_seed(3)
        Step([0, 1, 2, 1]).run(each)
        each.bank.tensors[name][1].view(-1)[0] = value
    for _ in range(2):  # a matrix affects the prediction one step later
        step = Step([1, 0, 1, 2])
        record = step.run(explored)
        step.run(twin)
        assert steered(record)[1::2] == [True, True]
    template = explored.bank.template
    is_reset = all(torch.equal(tensor[1], template[n]) for n, tensor in explored.bank.tensors.items())
    assert is_reset == (name == "gram")
    assert_same_state(explored, twin)
    assert [explored.tally.summary(slot).resets for slot in range(3)] == [0, 1, 0]
    Step([1, 0, 2]).run(explored)
    assert explored.tally.summary(1).resets == 1
    assert steered(Step([1, 1]).run(explored)) == [True, True]


@pytest.mark.parametrize("dead", ["source", "weights"])
def test_a_network_that_cannot_predict_is_reset_and_keeps_adams_moments(dead: str) -> None:
    explored, twin = pair(preset="paper")
    for each in (explored, twin):
        torch.manual_seed(3)
        Step([0, 1, 2, 1]).run(each)
        if dead == "weights":
            each.bank.tensors["weights"][1] = 1e30
    step = Step([1, 0, 1, 2])
    if dead == "source":
        step.source[2, 3] = torch.nan
    record = step.run(explored)
    assert_same_step(record, step.run(twin), 2e-5)
    assert_same_state(explored, twin)
    assert steered(record)[1::2] == [True, True]
    assert torch.equal(explored.bank.tensors["weights"][1], explored.bank.template["weights"])
    assert explored.bank.tensors["first"][1].isfinite().all()
    assert (explored.bank.tensors["first"][1] != 0).any()
    assert [explored.tally.summary(slot).resets for slot in range(3)] == [0, 1, 0]
    assert steered(Step([1, 1]).run(explored)) == [True, True]


def test_a_small_workspace_trains_the_networks_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_network, "PROGRAMS", 2)
    explored, twin = pair(preset="paper", workspace=1)
    for slots in ([0, 1, 2], [2, 0, 0], [1, None]):
        step = Step(slots)
        step.live[0] = len(slots) == 2  # the first piece has a group that does not learn
        assert_same_step(step.run(explored), step.run(twin), 2e-5)
        assert_same_state(explored, twin)


def test_a_gradient_other_than_that_of_the_squared_error_takes_the_plain_path() -> None:
    explored, twin = pair(preset="paper")
    step, slope = Step([0, 1, 0]), torch.randn(3, D, device=DEVICE)
    for each in (explored, twin):
        record = step.propose(each)
        record.slope = slope
        each.learn(record, None, step.live)
    assert_same_state(explored, twin)
    assert_same_step(step.run(explored), step.run(twin), 2e-5)


@pytest.mark.parametrize("distiller", ["rls", "mean"])
def test_float16_states_that_would_overflow_fall_back(distiller: str) -> None:
    explored, twin = pair(beta=16.0, gate=False, distiller=distiller)
    step = Step([0, None, 0], torch.float16)
    step.final[0, 90] = 6e4
    record = step.run(explored)
    assert record.rows(record.live).tolist() == [
        True,
        False,
        True,
    ]  # row 0 stays live: only its steered state overflows
    assert steered(record) == [False, False, True]
    assert_same_step(record, step.run(twin), 2e-3)
    assert_same_state(explored, twin)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
def test_strength_zero_learns_and_steers_nothing(options: dict[str, Any]) -> None:
    explored, twin = pair(**options, beta=0.0)
    for _ in range(2):
        step = Step([0, 1, None, 0])
        record = step.run(explored)
        step.run(twin)
        assert record.tilted is step.final
        assert not record.steered.any()
        assert record.live.sum() == 3
    assert_same_state(explored, twin)
    assert (explored.tally.summary().updates, explored.tally.summary().rows_steered) == (4, 0)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
def test_rows_that_end_after_the_proposal_are_not_learned_from(options: dict[str, Any]) -> None:
    explored, twin = pair(**options)
    for _ in range(2):
        step, running = Step([0, 1, 0, 1]), torch.tensor([False, True, True, False], device=DEVICE)
        for each in (explored, twin):
            each.learn(step.propose(each), None, running)
    none = torch.zeros(4, dtype=torch.bool, device=DEVICE)
    explored.learn(step.propose(explored), None, none)
    assert_same_state(explored, twin)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
def test_rows_whose_logits_fall_back_are_neither_counted_nor_learned_from(options: dict[str, Any]) -> None:
    explored, twin = pair(**options)
    for _ in range(3):
        step, good = Step([0, 1, 0]), torch.ones(3, dtype=torch.bool, device=DEVICE)
        sound = torch.tensor([True, True, False], device=DEVICE)
        for each in (explored, twin):
            record = step.propose(each)
            record.fall_back(good, sound, narrow=False)
            each.learn(record, None, step.live)
    assert_same_state(explored, twin)
    assert explored.tally.summary(0).rows == 3


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
def test_values_that_the_kernels_do_not_store_are_computed_on_request(options: dict[str, Any]) -> None:
    explored, twin = pair(**options)
    for _ in range(2):
        step = Step([0, 1, None, 0])
        record, expected = step.propose(explored), step.propose(twin)
        placed = record.layout.placed
        for name in ("error", "explained", "expectation"):
            computed, expected_value = (getattr(each, name)[placed] for each in (record, expected))
            torch.testing.assert_close(computed, expected_value, atol=2e-5, rtol=2e-5, equal_nan=True)
        torch.testing.assert_close(record.residual, expected.residual, atol=2e-5, rtol=2e-5)
        explored.learn(record, None, step.live)
        twin.learn(expected, None, step.live)
        assert_same_state(explored, twin)


@pytest.mark.parametrize("options", DISTILLERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_method_is_the_same_with_and_without_kernels(options: dict[str, Any], dtype: torch.dtype) -> None:
    """The details, and in float16 the fallback for logits that overflow, can use the kernels' record."""
    both = [ESamp(each.config, each, full=False) for each in pair(claimed=0, **options)]
    slots = [each.admit() for each in both]
    assert slots == [0, 0]
    weight = torch.randn(11, D, device=DEVICE).to(dtype)
    for _ in range(3):
        step, seen = Step([0, None, 0], dtype), []
        for method in both:
            source = step.source_for(method.explorer)
            layout = RowLayout.build(step.slots, DEVICE)
            decode = DecodeStep(step.final, {1: source}, layout, step.live, Head(weight), plain_rows(3))
            steering = method.steer(decode)
            logits = torch.cat(steering.states) @ weight.T
            combined = steering.combine(*logits.split(3))
            seen.append((combined.logits, method.detail()))
            method.observe(decode, torch.zeros(3, dtype=torch.int64, device=DEVICE), step.live)
        (logits, detail), (expected, plain) = seen
        torch.testing.assert_close(logits, expected, atol=0.1, rtol=0.05)
        for name in ("novelty", "residual", "explained"):
            ours, theirs = getattr(detail, name), getattr(plain, name)
            torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=2e-3, equal_nan=True)
        assert_same_state(both[0].explorer, both[1].explorer, 1e-4)


@dataclass
class Head:
    """logits = W h."""

    weight: Tensor
    is_linear: bool = True
    has_rows: bool = False

    def __call__(self, h: Tensor) -> Tensor:
        return h @ self.weight.T

    def rows(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        raise NotImplementedError


def test_slots_are_claimed_and_grown_between_steps_in_any_mode() -> None:
    with torch.inference_mode():
        claim_and_grow()
    claim_and_grow()


def claim_and_grow() -> None:
    explored, twin = pair(slots=2, claimed=2)
    for each in (explored, twin):
        torch.manual_seed(3)
        Step([1, 0, 1]).run(each)
        each.release(0)
        assert each.claim() == 0
        Step([0, 1]).run(each)
        each.grow(5)
        assert [each.claim() for _ in range(3)] == [2, 3, 4]
        Step([4, 1, None, 2, 4]).run(each)
    assert_same_state(explored, twin)


def test_states_that_the_kernels_cannot_read_take_the_plain_path() -> None:
    explored, twin = pair()
    step = Step([0, 1, 0])
    step.final = step.final.double()
    assert step.run(explored).kept is None
    step.run(twin)
    step = Step([0, 1, 0])
    step.source = step.source.T.contiguous().T
    assert step.run(explored).kept is None
    step.run(twin)
    assert_same_state(explored, twin)


def test_states_may_be_views_of_a_larger_tensor() -> None:
    explored, twin = pair()
    for _ in range(2):
        step = Step([0, 1, 0])
        for name in ("source", "final"):
            larger = torch.full((6, 200), torch.nan, device=DEVICE)
            larger[::2, 7 : 7 + getattr(step, name).shape[1]] = getattr(step, name)
            setattr(step, name, larger[::2, 7 : 7 + getattr(step, name).shape[1]])
        record = step.run(explored)
        assert record.kept is not None
        assert_same_step(record, step.run(twin), 2e-5)
    assert_same_state(explored, twin)


class OperationRecorder(TorchDispatchMode):
    """Records the operations that torch runs, except views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        if not func.is_view and "empty" not in name and "view" not in name:
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


class LaunchRecorder:
    """A stand-in for a kernel that records its launches, since the interpreter itself runs torch's operations."""

    def __init__(self, name: str, launched: list[str]) -> None:
        self.name, self.launched = name, launched

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **options: self.launched.append(self.name)


@pytest.mark.parametrize("distiller", ["rls", "mean"])
def test_a_step_is_two_launches_for_any_number_of_groups(distiller: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explored, launched = explorer(distiller=distiller), list[str]()
    for name in ("propose", "learn"):
        monkeypatch.setattr(explored.fused, f"_{name}_kernel", LaunchRecorder(name, launched))
    for slots in ([1, 0, None, 1], [0], [0, 0]):
        for number in range(2):
            found = operations(explored, slots)
            assert number == 0 or found == []  # the first step of a larger batch allocates its counters
            assert launched == ["propose", "learn"]
            launched.clear()


def test_a_step_of_the_published_network_is_four_launches_beside_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    explored, launched = explorer(preset="paper"), list[str]()
    for each, names in ((explored.fused, ("propose", "learn")), (explored.fused.network, ("measure", "adam"))):
        for name in names:
            monkeypatch.setattr(each, f"_{name}_kernel", LaunchRecorder(name, launched))
    operations(explored, [0, 0, 1, 1])
    launched.clear()
    found = operations(explored, [0, 0, 1, 1])
    assert launched == ["propose", "learn", "measure", "adam"]
    assert len(found) <= 22, found


def operations(explored: Explorer, slots: list[int | None]) -> list[str]:
    """The operations that torch runs in one step."""
    step, layout = Step(slots), RowLayout.build(slots, DEVICE)
    source = step.source_for(explored)
    with OperationRecorder() as recorder:
        record = explored.propose(source, step.final, step.final, layout, step.live)
        explored.learn(record, None, step.live)
    return recorder.operations
