"""The contrast signal against plain loops in float64, and what it keeps apart."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.explorer.config import ESampConfig
from esamp.explorer.contrast import SampleMeans
from esamp.explorer.explorer import Explorer
from esamp.explorer.record import StepRecord
from support.contrast_reference import Loops

D = 5


@pytest.fixture(autouse=True, params=[torch.no_grad, torch.inference_mode])
def _both_modes(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


def explorer(**options: object) -> Explorer:
    config = ESampConfig.parse({"signal": "contrast", "dtype": "float64", "samples": 4} | options)
    return Explorer(config, D, D, slots=3, device="cpu")


def step(explored: Explorer, slots: list[int | None], sample: list[int], final: Tensor, live: Tensor) -> StepRecord:
    layout = RowLayout.build(slots)
    proposal = explored.propose(final, final, final, layout, live, sample=torch.tensor(sample))
    explored.learn(proposal, None, live)
    return proposal


MIXES: list[tuple[list[int | None], list[int]]] = [
    ([0, 0, 1], [0, 1, 0]),
    ([1, 0, None, 1, 0], [2, 0, 0, 0, 1]),
    ([0, 1, 1, 0, 0], [3, 0, 2, 1, 7]),  # samples 3 and 7 share a mean
    ([1], [0]),
    ([0, 0], [7, 0]),
    ([None, 1, 0, 1], [0, 5, 1, 2]),
]


@pytest.mark.parametrize(
    "options",
    [{}, {"forgetting": 0.7, "beta": 2.0}, {"gate": False}, {"forgetting": 1.0, "samples": 2}],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_contrast_equals_the_loops_for_any_mix_of_groups(
    options: dict[str, float], dtype: str, tolerance: float
) -> None:
    explored = explorer(**options, dtype=dtype)
    config = explored.config
    assert [explored.claim(), explored.claim()] == [0, 1]
    groups = [Loops(D, config.samples, config.forgetting_factor) for _ in range(2)]
    for slots, sample in MIXES * 4:
        final = torch.randn(len(slots), D, dtype=torch.float64) + 1
        live = torch.rand(len(slots)) < 0.8
        delta = step(explored, slots, sample, final, live).change(config.beta)
        for row, slot in enumerate(slots):
            if slot is None or not live[row]:
                continue
            difference, confidence = groups[slot].contrast(sample[row])
            expected = config.beta * (confidence if config.gate else 1.0) * difference
            np.testing.assert_allclose(delta[row].double().numpy(), expected, atol=tolerance)
        for slot, group in enumerate(groups):
            own = [row for row, owner in enumerate(slots) if owner == slot and live[row]]
            group.learn([(sample[row], final[row].numpy()) for row in own])


def test_two_samples_by_hand() -> None:
    means = SampleMeans(1, samples=2, forgetting=0.5, exact=torch.float64)
    state = {name: tensor.unsqueeze(0) for name, tensor in means.template().items()}
    both, live = torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool)
    for values in ([4.0, 0.0], [8.0, 2.0]):
        means.learn(state, both, torch.tensor(values, dtype=torch.float64).view(1, 2, 1), live)
    found = means.compare(state, both)
    own, others = (0.5 * 4 + 8) / 1.5, (0.5 * 0 + 2) / 1.5
    assert found.own.flatten().tolist() == pytest.approx([own, others])
    assert found.difference.flatten().tolist() == pytest.approx([own - others, others - own])
    assert found.confidence.flatten().tolist() == pytest.approx([(1.5 / 9.5) ** 2] * 2)


def test_a_sample_alone_in_its_group_is_left_alone() -> None:
    explored = explorer()
    slot, live = explored.claim(), torch.ones(1, dtype=torch.bool)
    for _ in range(5):
        proposal = step(explored, [slot], [3], torch.randn(1, D, dtype=torch.float64), live)
        assert not proposal.steered.any()


def test_a_finished_sample_is_still_what_later_ones_are_compared_with() -> None:
    explored = explorer()
    slot, live = explored.claim(), torch.ones(1, dtype=torch.bool)
    for _ in range(10):
        step(explored, [slot], [0], torch.full((1, D), 3.0, dtype=torch.float64), live)
    step(explored, [slot], [1], torch.full((1, D), 1.0, dtype=torch.float64), live)
    proposal = step(explored, [slot], [1], torch.full((1, D), 1.0, dtype=torch.float64), live)
    assert bool(proposal.steered)
    assert (proposal.change(explored.config.beta) < 0).all()  # away from the finished sample's 3


def test_what_all_samples_share_cancels() -> None:
    explored = explorer()
    slot, live = explored.claim(), torch.ones(3, dtype=torch.bool)
    own = torch.randn(3, D, dtype=torch.float64)
    deltas = []
    for common in (0.0, 100.0):
        for _ in range(4):
            proposal = step(explored, [slot] * 3, [0, 1, 2], own + common, live)
        deltas.append(proposal.change(explored.config.beta))
        explored.release(slot or 0)
        slot = explored.claim()
    torch.testing.assert_close(deltas[0], deltas[1], atol=1e-9, rtol=0)
    assert deltas[0].abs().max() > 0.01


def test_a_row_that_is_no_number_is_left_out_of_its_mean() -> None:
    explored = explorer(forgetting=1.0)
    slots, live = [explored.claim(), explored.claim()], torch.ones(4, dtype=torch.bool)
    rows: list[int | None] = [slots[0], slots[0], slots[1], slots[1]]
    final = torch.randn(4, D, dtype=torch.float64)
    step(explored, rows, [0, 1, 0, 1], final, live)
    final = final.clone()
    final[0] = float("nan")
    proposal = step(explored, rows, [0, 1, 0, 1], final, live)
    assert proposal.rows(proposal.steered).tolist() == [False, True, True, True]
    assert explored.bank.tensors["tokens"].sum(1).tolist() == [3, 4, 0]
    assert explored.bank.tensors["sums"].isfinite().all()


def test_the_action_memory_takes_its_gain_in_nats() -> None:
    config = ESampConfig(signal="action", gain=6.0, features=0, dtype="float64")
    final, action = torch.randn(1, D, dtype=torch.float64), torch.randn(1, D, dtype=torch.float64)
    live, found = torch.ones(1, dtype=torch.bool), []
    for scale in (1.0, 3.0):
        explored = Explorer(config, D, D, slots=1, device="cpu", head_scale=scale)
        layout = RowLayout.build([explored.claim()])
        explored.learn(explored.propose(final, final, final, layout, live), action, live)
        found.append(explored.propose(final, final, final, layout, live).change(0.0))
    torch.testing.assert_close(found[0], 3 * found[1])
    assert found[0].abs().max() > 0
