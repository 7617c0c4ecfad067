"""The explorer against groups that are computed one by one with plain loops, and what it does when things break."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.explorer.bank import WORKSPACE
from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer
from esamp.explorer.mlp import ResidualNetwork
from esamp.explorer.record import StepRecord
from esamp.explorer.rls import RecursiveLeastSquares
from support import esamp_reference as reference
from support.distiller_steps import MIXES, named_matrices
from support.esamp_options import without_unused

S, D, V = 9, 6, 10
NOTHING = 1e-25
"""A change that is lost in any state."""
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "bfloat16": 0.1}


@pytest.fixture(autouse=True, params=[torch.no_grad, torch.inference_mode])
def _both_modes(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


def explorer(slots: int = 4, *, workspace: int = WORKSPACE, **options: Any) -> Explorer:
    config = ESampConfig.parse(without_unused({"features": 4, "width": 5, "dtype": "float64"} | options))
    source = D if config.distiller == "mlp" else S
    return Explorer(config, source, D, slots=slots, device="cpu", full=True, workspace=workspace)


def change(explored: Explorer, record: StepRecord) -> Tensor:
    return record.change(explored.config.beta)


def steered(record: StepRecord) -> list[bool]:
    found: list[bool] = record.rows(record.steered).tolist()
    return found


def loops(explored: Explorer) -> reference.Group:
    """A group of plain loops with the explorer's random numbers."""
    config, distiller = explored.config, explored.distiller
    mine: Any
    if isinstance(distiller, RecursiveLeastSquares):
        projection = None if distiller.projection is None else distiller.projection.double().numpy()
        mine = reference.RLS(distiller.size, D, config.ridge, projection)
    elif isinstance(distiller, ResidualNetwork):
        named = named_matrices(distiller, distiller.template()["weights"])
        blocks = [{n: each[b].double().numpy() for n, each in named.items()} for b in range(config.depth)]
        mine = reference.Network(blocks, config.lr, config.eps, config.clip, config.loss)
    elif config.predicts:
        mine = reference.Mean(D, config.ridge)
    else:
        mine = reference.NoDistiller(D, config.ridge)
    memory = None
    if explored.memory is not None:
        regression = explored.memory.regression
        assert regression.projection is not None
        memory = reference.RLS(regression.size, D, config.action_ridge, regression.projection.double().numpy())
    beta = config.beta if config.signal != "action" else 0.0
    return reference.Group(mine, memory, config.gate, beta, config.gain)


@dataclass
class Step:
    """One step of random rows; the target is a noisy function of the source, so that there is something to learn."""

    slots: list[int | None]
    size: int = S
    source: Tensor = field(init=False)
    final: Tensor = field(init=False)
    action: Tensor = field(init=False)
    live: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.slots)
        mix = torch.linspace(0, 5, self.size * D, dtype=torch.float64).view(self.size, D).sin()
        self.source = torch.randn(rows, self.size, dtype=torch.float64)
        self.final = self.source @ mix + 0.2 * torch.randn(rows, D, dtype=torch.float64) + 1
        self.action = torch.randn(rows, D, dtype=torch.float64)
        self.live = torch.ones(rows, dtype=torch.bool)

    def propose(self, explored: Explorer, target: Tensor | None = None) -> StepRecord:
        layout = RowLayout.build(self.slots)
        return explored.propose(self.source, self.final if target is None else target, self.final, layout, self.live)

    def run(self, explored: Explorer) -> StepRecord:
        proposal = self.propose(explored)
        explored.learn(proposal, None if explored.memory is None else self.action, self.live)
        return proposal


def snapshot(explored: Explorer, slot: int) -> dict[str, Tensor]:
    banks = {"state": explored.bank} | ({} if explored.memory is None else {"action": explored.memory.bank})
    return {f"{kind}.{n}": t[slot].clone() for kind, bank in banks.items() for n, t in bank.tensors.items()}


def is_fresh(explored: Explorer, slot: int) -> bool:
    banks = [explored.bank] if explored.memory is None else [explored.bank, explored.memory.bank]
    return all(torch.equal(t[slot], bank.template[n]) for bank in banks for n, t in bank.tensors.items())


SETTINGS: list[dict[str, Any]] = [
    {},
    {"gate": False, "beta": 1.0},
    {"features": 0, "ridge": 0.3},
    {"distiller": "mean"},
    {"preset": "paper"},
    {"preset": "paper", "loss": "mean", "depth": 1},
    {"signal": "action", "gain": 2.0, "action_ridge": 0.1},
    {"signal": "both", "beta": 0.7, "gain": 1.5},
    {"signal": "both", "distiller": "mean", "gate": False},
]


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("workspace", [WORKSPACE, 1], ids=["at once", "one by one"])
def test_any_mix_of_groups_gives_what_each_alone_would_give(
    options: dict[str, Any], dtype: str, workspace: int
) -> None:
    explored = explorer(**options, dtype=dtype, workspace=workspace)
    assert {explored.claim() for _ in range(3)} == {0, 1, 2}
    groups, norms = [loops(explored) for _ in range(3)], []
    for slots in MIXES * 3:
        step = Step(slots, D if options.get("preset") == "paper" else S)
        delta = change(explored, step.run(explored))
        for slot, group in enumerate(groups):
            rows = [row for row, owner in enumerate(slots) if owner == slot]
            if not rows:
                continue
            source, final, action = (part[rows].numpy() for part in (step.source, step.final, step.action))
            expected = np.stack(group.step(list(source), list(final), list(action)))
            norms.append(float(np.linalg.norm(expected)))
            error = np.linalg.norm(delta[rows].double().numpy() - expected)
            assert error <= TOLERANCE[dtype] * max(norms) + NOTHING, (slots, slot)
    for slot, group in enumerate(groups):
        summary = explored.tally.summary(slot)
        counts = [slots.count(slot) for slots in MIXES * 3]
        assert summary.rows == sum(counts)
        assert summary.steps == summary.updates == sum(1 for count in counts if count)
        assert summary.resets == 0
        assert summary.explained_variance == pytest.approx(group.explained_variance, abs=10 * TOLERANCE[dtype])
        assert summary.error_norm == pytest.approx(np.mean(group.norms), rel=TOLERANCE[dtype])


def test_batch_scope_is_one_group() -> None:
    explored = explorer(scope="batch")
    slot, group = explored.claim(), loops(explored)
    for _ in range(4):
        step = Step([slot] * 3)
        expected = group.step(list(step.source.numpy()), list(step.final.numpy()))
        np.testing.assert_allclose(change(explored, step.run(explored)).numpy(), np.stack(expected), atol=1e-9)


def test_a_claimed_slot_is_fresh_and_growth_keeps_the_others() -> None:
    explored = explorer(slots=2, signal="both")
    first, second = explored.claim(), explored.claim()
    assert explored.claim() is None
    assert first is not None
    assert second is not None
    for _ in range(3):
        Step([first, second]).run(explored)
    kept = snapshot(explored, second)
    explored.release(first)
    assert explored.claim() == first
    assert is_fresh(explored, first)
    assert explored.tally.summary(first).steps == 0
    explored.grow(5)
    assert all(torch.equal(value, kept[name]) for name, value in snapshot(explored, second).items())
    assert explored.tally.summary(second).steps == 3
    assert len({first, second, *(explored.claim() for _ in range(3))}) == 5
    assert explored.claim() is None
    Step([4, second, 2]).run(explored)


def three_groups(**options: Any) -> tuple[Explorer, Explorer]:
    """Two explorers with the same past of three groups."""
    explored, twin = explorer(**options), explorer(**options)
    for e in (explored, twin):
        assert [e.claim(), e.claim(), e.claim()] == [0, 1, 2]
    for _ in range(3):
        step = Step([0, 1, 2, 1], D if options.get("preset") == "paper" else S)
        step.run(explored)
        step.run(twin)
    return explored, twin


@pytest.mark.parametrize("part", ["source", "final", "action"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_is_left_alone_and_teaches_nothing(part: str, value: float) -> None:
    explored, twin = three_groups(signal="both")
    bad, clean = Step([1, 0, 1, 2]), Step([1, 0, 1, 2])
    for name in ("source", "final", "action"):
        setattr(bad, name, getattr(clean, name).clone())
    getattr(bad, part)[2, 3] = value
    broken = bad.run(explored)
    sound = clean.propose(twin)
    twin.learn(sound, clean.action, torch.tensor([True, True, False, True]))
    assert steered(broken) == [True, True, part == "action", True]
    keep = [0, 1, 3]
    torch.testing.assert_close(change(explored, broken)[keep], change(twin, sound)[keep], atol=0, rtol=0)
    for slot in range(3):
        before, after = snapshot(twin, slot), snapshot(explored, slot)
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert explored.tally.summary(slot).resets == 0
        assert np.isfinite(explored.tally.summary(slot).explained_variance)


@pytest.mark.parametrize(
    ("poison", "value"),
    [
        ("state.weights", torch.nan),
        ("state.weights", torch.inf),
        ("state.seen", torch.nan),
        ("state.gram", torch.nan),
        ("action.weights", torch.inf),
        ("action.gram", torch.nan),
    ],
)
def test_a_slot_whose_numbers_are_not_finite_is_reset_and_no_other(poison: str, value: float) -> None:
    explored, twin = three_groups(signal="both")
    kind, name = poison.split(".")
    assert explored.memory is not None
    (explored.bank if kind == "state" else explored.memory.bank).tensors[name][1].view(-1)[0] = value
    for _ in range(2):  # a matrix shows one step later, in what is predicted by it
        step = Step([1, 0, 1, 2])
        broken, sound = step.run(explored), step.run(twin)
        assert steered(broken)[1::2] == [True, True]
        torch.testing.assert_close(change(explored, broken)[1::2], change(twin, sound)[1::2], atol=0, rtol=0)
    assert is_fresh(explored, 1) == (name == "gram")
    for slot in (0, 2):
        before, after = snapshot(twin, slot), snapshot(explored, slot)
        assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [explored.tally.summary(slot).resets for slot in (0, 1, 2)] == [0, 1, 0]
    assert all(np.isfinite(explored.tally.summary(slot).explained_variance) for slot in (0, 1, 2))
    Step([1, 0, 2]).run(explored)
    assert explored.tally.summary(1).resets == 1
    assert steered(Step([1, 1]).run(explored)) == [True, True]


def test_a_network_that_has_grown_out_of_range_starts_again() -> None:
    explored, twin = three_groups(preset="paper", dtype="float32")
    explored.bank.tensors["weights"][1] = 1e30
    step = Step([1, 0, 1, 2], D)
    found = step.run(explored)
    assert steered(found)[1::2] == [True, True]
    assert not all(steered(found))
    step.run(twin)
    assert torch.equal(explored.bank.tensors["weights"][1], explored.bank.template["weights"])
    for slot in (0, 2):
        before, after = snapshot(twin, slot), snapshot(explored, slot)
        assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert explored.tally.summary(1).resets == 1
    assert steered(Step([1, 1], D).run(explored)) == [True, True]


def test_a_row_that_is_not_finite_resets_a_network_and_leaves_adams_moments_finite() -> None:
    explored, _ = three_groups(preset="paper")
    step = Step([1, 0, 1], D)
    step.source[2, 1] = torch.nan
    assert steered(step.run(explored)) == [True, True, False]
    assert torch.equal(explored.bank.tensors["weights"][1], explored.bank.template["weights"])
    assert all(tensor[1].isfinite().all() for tensor in explored.bank.tensors.values())
    assert [explored.tally.summary(slot).resets for slot in (0, 1, 2)] == [0, 1, 0]


def test_a_target_that_is_not_finite_counts_too() -> None:
    explored = explorer(target_layer=3)
    explored.claim()
    step, target = Step([0, 0]), torch.randn(2, D)
    target[1, 0] = torch.nan
    proposal = step.propose(explored, target)
    assert proposal.rows(proposal.live).tolist() == [True, False]
    explored.learn(proposal, None, step.live)
    assert explored.tally.summary().rows == 1


def test_float16_states_that_would_overflow_fall_back() -> None:
    explored = explorer(distiller="mean", beta=16.0, gate=False, dtype="float32")
    explored.claim()
    step = Step([0, 0])
    step.final = torch.tensor([[6e4] * D, [1.0] * D], dtype=torch.float16)
    proposal = step.propose(explored)
    assert proposal.rows(proposal.live).tolist() == [True, True]  # neither slot nor row is at fault
    assert steered(proposal) == [False, True]


def test_rows_that_are_not_live_may_hold_anything() -> None:
    explored, twin = explorer(gate=False), explorer(gate=False)
    for e in (explored, twin):
        e.claim()
    step = Step([0, 0, None, 0])
    step.source[1:3], step.final[1:3] = torch.nan, torch.inf
    step.live[1] = False
    alone = Step([0, 0])
    alone.source, alone.final = step.source[[0, 3]], step.final[[0, 3]]
    proposal, expected = step.run(explored), alone.run(twin)
    assert proposal.rows(proposal.live).tolist() == steered(proposal) == [True, False, False, True]
    torch.testing.assert_close(change(explored, proposal)[[0, 3]], change(twin, expected))
    for name, value in snapshot(twin, 0).items():
        torch.testing.assert_close(snapshot(explored, 0)[name], value)


def test_rows_that_end_after_the_proposal_are_not_learned_from() -> None:
    explored, twin = explorer(signal="both"), explorer(signal="both")
    for e in (explored, twin):
        e.claim()
    step, alone = Step([0, 0, 0]), Step([0])
    alone.source, alone.final, alone.action = step.source[1:2], step.final[1:2], step.action[1:2]
    explored.learn(step.propose(explored), step.action, torch.tensor([False, True, False]))
    alone.run(twin)
    for name, value in snapshot(twin, 0).items():
        torch.testing.assert_close(snapshot(explored, 0)[name], value)
    assert explored.tally.summary().rows == 1


@pytest.mark.parametrize("slots", [[], [None], [None, None]])
def test_no_row_with_a_slot(slots: list[int | None]) -> None:
    explored = explorer(signal="both")
    proposal = Step(slots).run(explored)
    assert not proposal.steered.any()
    assert change(explored, proposal).shape == (len(slots), D)
    assert explored.tally.summary().steps == 0


@pytest.mark.parametrize("every", [1, 2, 3])
def test_update_every(every: int) -> None:
    explored = explorer(update_every=every)
    explored.claim()
    changed = []
    for _ in range(7):
        before = snapshot(explored, 0)["state.weights"]
        Step([0, 0]).run(explored)
        changed.append(not torch.equal(before, snapshot(explored, 0)["state.weights"]))
    assert changed == [step % every == 0 for step in range(7)]
    summary = explored.tally.summary()
    assert (summary.steps, summary.updates) == (7, sum(changed))


def test_warmup_counts_updates_of_the_group_and_starts_again_after_a_reset() -> None:
    explored = explorer(warmup=2, gate=False, update_every=2)
    explored.claim()
    explored.claim()
    assert [steered(Step([0]).run(explored))[0] for _ in range(5)] == [False, False, False, True, True]
    assert steered(Step([0, 1]).propose(explored)) == [True, False]
    broken = Step([0])
    broken.source[0, 0] = torch.nan
    broken.run(explored)
    assert [steered(Step([0]).run(explored))[0] for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("ridge", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("distiller", ["rls", "mean"])
def test_with_a_gate_nothing_is_steered_before_anything_was_seen(dtype: str, ridge: float, distiller: str) -> None:
    explored = explorer(dtype=dtype, ridge=ridge, distiller=distiller)
    explored.claim()
    first = Step([0, 0]).run(explored)
    assert steered(first) == [False, False]
    assert change(explored, first).abs().max() < NOTHING
    assert torch.equal(first.tilted, first.final)
    assert steered(Step([0, 0]).run(explored)) == [True, True]


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"signal": "action", "gain": 0.0}])
def test_strength_zero_learns_and_steers_nothing(options: dict[str, Any]) -> None:
    explored = explorer(**options)
    explored.claim()
    for _ in range(3):
        proposal = Step([0, 0]).run(explored)
        assert not proposal.steered.any()
        assert not change(explored, proposal).any()
    summary = explored.tally.summary()
    assert (summary.updates, summary.rows_steered) == (3, 0)
    assert summary.error_norm > 0 or not explored.config.predicts


def test_an_inner_target_is_scaled_to_the_deep_state() -> None:
    explored = explorer(target_layer=4, gate=False, beta=1.0)
    explored.claim()
    group = loops(explored)
    for _ in range(3):
        step = Step([0, 0])
        target = 5 * step.final.flip(1) + 1
        proposal = step.propose(explored, target)
        expected = np.stack(group.step(list(step.source.numpy()), list(target.numpy())))
        scale = step.final.norm(dim=1, keepdim=True) / target.norm(dim=1, keepdim=True)
        np.testing.assert_allclose(change(explored, proposal).numpy(), expected * scale.numpy(), atol=1e-9)
        explored.learn(proposal, None, step.live)


def test_kl_and_cosine() -> None:
    explored = explorer(slots=2)
    explored.claim()
    explored.claim()
    kls: list[list[float]] = [[], []]
    cosines: list[list[float]] = [[], []]
    for _ in range(3):
        step = Step([0, 1, None, 0])
        step.live[3] = False
        proposal, (plain, fused), rows = step.propose(explored), torch.randn(2, 4, V), torch.randn(4, D)
        fused[:, 2], plain[0, 2] = -torch.inf, -torch.inf
        proposal.measure_logits(plain, fused)
        proposal.measure_tokens(rows)
        found = proposal.kl
        assert found is not None
        for row in (0, 1):
            keep = [v for v in range(V) if v != 2]
            expected = reference.kl(fused[row, keep].double().numpy(), plain[row].double().numpy()[keep])
            if row == 1:  # token 2 has probability under the reference alone: it adds 0 to the sum, and weight to p_ref
                expected -= float(torch.log1p(-plain[row].softmax(-1)[2]))
            assert float(found[row]) == pytest.approx(expected, abs=1e-5)
            kls[row].append(expected)
            error, w = proposal.error[row].numpy(), rows[row].double().numpy()
            if error.any():
                cosines[row].append(float(error @ w / np.linalg.norm(error) / np.linalg.norm(w)))
        explored.learn(proposal, None, step.live)
    for slot in (0, 1):
        summary = explored.tally.summary(slot)
        assert summary.kl == pytest.approx(np.mean(kls[slot]), abs=1e-5)
        assert len(cosines[slot]) == 2
        assert summary.cos_token == pytest.approx(np.mean(cosines[slot]), abs=1e-6)


def test_a_model_run_with_gradients_leaves_no_graph_behind() -> None:
    with torch.inference_mode(False), torch.enable_grad():
        explored = explorer(signal="both")
        explored.claim()
        step = Step([0, 0])
        step.source.requires_grad_()
        step.final.requires_grad_()
        assert not change(explored, step.run(explored)).requires_grad
        assert not any(tensor.requires_grad for tensor in explored.bank.tensors.values())


def test_claims_and_growth_may_happen_in_another_mode_than_steps() -> None:
    with torch.inference_mode():
        explored = explorer(slots=1)
        explored.claim()
        explored.grow(2)
        Step([0]).run(explored)
    with torch.inference_mode(False), torch.no_grad():
        explored.claim()
        Step([0, 1]).run(explored)
    assert explored.tally.summary().updates == 3


def test_the_action_signal_alone_runs_no_distiller() -> None:
    explored = explorer(signal="action")
    assert explored.distiller is None
    assert not explored.bank.template
