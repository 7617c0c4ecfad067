"""Distillers against plain loops in float64: prediction, confidence, one update and many, gradients, precision."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esamp.decoding.slots import GroupState
from esamp.errors import OptionError
from esamp.explorer.config import LEAST_RIDGE, ESampConfig
from esamp.explorer.mean import RunningMean
from esamp.explorer.mlp import ResidualNetwork
from esamp.explorer.rls import RecursiveLeastSquares
from support import esamp_reference as reference
from support.distiller_steps import fresh, learn, named_matrices, predict

SOURCE, TARGET = 12, 7
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 6e-2}


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=[torch.no_grad, torch.inference_mode])
def _both_modes(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small matrices, thousands of times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch(rows: int, source: int = SOURCE, target: int = TARGET) -> tuple[Tensor, Tensor, Tensor]:
    """One group's rows, correlated and far from centred, as hidden states are; all live."""
    h = torch.randn(1, rows, source, dtype=torch.float64) * 3 + 1
    mix = torch.linspace(-1, 1, source * target, dtype=torch.float64).view(source, target).cos()
    y = h @ mix + 0.3 * torch.randn(1, rows, target, dtype=torch.float64) + 2
    return h, y, torch.ones(1, rows, dtype=torch.bool)


def rows_of(grid: Tensor) -> list[reference.Vector]:
    return list(grid[0].numpy())


def relative(found: Tensor, expected: Any) -> float:
    wanted = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    return float((found.double() - wanted).norm() / wanted.norm())


def rls(dtype: torch.dtype = torch.float64, **options: Any) -> RecursiveLeastSquares:
    return RecursiveLeastSquares(SOURCE, TARGET, dtype=dtype, **options)


def projection_of(distiller: RecursiveLeastSquares) -> reference.Vector | None:
    return None if distiller.projection is None else distiller.projection.double().numpy()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("features", [0, 5, SOURCE])
@pytest.mark.parametrize("ridge", [1.0, 0.1, 10.0])
def test_rls_follows_the_recursion(dtype: torch.dtype, features: int, ridge: float) -> None:
    distiller = rls(dtype, features=features, ridge=ridge)
    assert (distiller.projection is None) == (features in (0, SOURCE))
    loops = reference.RLS(distiller.size, TARGET, ridge, projection_of(distiller))
    state = fresh(distiller)
    for rows in [1, 4, 2, 1] + [3] * 20:
        h, y, live = batch(rows)
        prediction = predict(distiller, state, h)
        expected = [loops.predict(row) for row in rows_of(h)]
        if loops.W.any():
            assert relative(prediction.value[0], [value for value, _ in expected]) < TOLERANCE[dtype]
        else:
            assert not prediction.value.any()
        torch.testing.assert_close(
            prediction.confidence[0].double(),
            torch.tensor([c for _, c in expected], dtype=torch.float64),
            atol=1e-10 if dtype == torch.float64 else 1e-5,
            rtol=0,
        )
        learn(distiller, state, h, y, live)
        loops.learn(rows_of(h), rows_of(y))


def test_rls_by_hand() -> None:
    """One row of one dimension: phi = (1, .5), A = [[2, .5], [.5, 1.25]], W = A^-1 phi' y, leverage = 1.25 / 2.25."""
    distiller = RecursiveLeastSquares(1, 1, dtype=torch.float64)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    state = fresh(distiller)
    learn(distiller, state, 3 * one, 9 * one, torch.ones(1, 1, dtype=torch.bool))
    prediction = predict(distiller, state, 0.1 * one)
    torch.testing.assert_close(prediction.value, 9 * one * 1.25 / 2.25)
    torch.testing.assert_close(prediction.confidence, torch.tensor([[1.25 / 2.25]], dtype=torch.float64))
    opposite = predict(distiller, state, -one)
    torch.testing.assert_close(opposite.value, 9 * one * (-0.75) / 2.25)
    torch.testing.assert_close(opposite.confidence[0, 0].item(), (0.75**2 / 2.25) / 1.25)


@pytest.mark.usefixtures("_both_modes")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("forgetting", [1.0, 0.9])
@pytest.mark.parametrize("centre", [False, True])
def test_rls_is_the_ridge_solution(dtype: torch.dtype, forgetting: float, centre: bool) -> None:
    distiller = rls(dtype, features=6, ridge=0.5, forgetting=forgetting, centre=centre)
    state, steps = fresh(distiller), []
    for rows in (3, 1, 5, 2) * 6:
        h, y, live = batch(rows)
        learn(distiller, state, h, y, live)
        steps.append((np.stack([reference.phi(row, projection_of(distiller)) for row in rows_of(h)]), y[0].numpy()))
        W, mean, inverse = reference.ridge_fit(steps, 0.5, forgetting, centre)
        probe = batch(4)[0]
        found = predict(distiller, state, probe)
        F = np.stack([reference.phi(row, projection_of(distiller)) for row in rows_of(probe)])
        assert relative(found.value[0], mean + F @ W) < TOLERANCE[dtype]
        leverage = np.array([f @ inverse @ f / (f @ f / 0.5) for f in F])
        assert np.abs(found.confidence[0].double().numpy() - (1 - leverage)).max() < 1e-5


def test_rls_without_a_gate_predicts_the_same_and_trusts_itself() -> None:
    gated, plain = rls(features=5), rls(features=5, gate=False)
    states = fresh(gated), fresh(plain)
    for rows in (1, 4, 2):
        h, y, live = batch(rows)
        learn(gated, states[0], h, y, live)
        learn(plain, states[1], h, y, live)
    found = predict(plain, states[1], h)
    torch.testing.assert_close(found.value, predict(gated, states[0], h).value)
    assert (found.confidence == 1).all()
    assert "seen" not in states[1]


def test_a_ridge_that_rounding_removes_ends_in_numbers_and_not_in_an_error() -> None:
    """A group that repeats one state leaves A singular in float64: the explorer resets what is not finite."""
    distiller = RecursiveLeastSquares(6, 3, ridge=1e-30)
    state = fresh(distiller, 1)
    source = torch.linspace(-1, 1, 6).expand(1, 4, 6)
    for _ in range(3):
        learn(distiller, state, source, torch.ones(1, 4, 3), torch.ones(1, 4, dtype=torch.bool))
    assert state["weights"].shape == (1, 7, 3)


def test_the_least_ridge_does_not_round_away_beside_a_million_rows() -> None:
    distiller = RecursiveLeastSquares(64, 3, features=32)
    for _ in range(20):
        phi = distiller.phi(torch.randn(2, 64)).double()  # a group that repeats two states
        gram = LEAST_RIDGE * torch.eye(33, dtype=torch.float64) + 500_000 * phi.T @ phi
        assert torch.linalg.cholesky_ex(gram)[1] == 0
    with pytest.raises(OptionError, match=r"'ridge' = 1e-10: expected a number from 1e-09"):
        ESampConfig.parse({"ridge": 1e-10})


def test_rls_features_ignore_the_length_of_the_state() -> None:
    for distiller in (rls(), rls(features=5), rls(torch.float32), rls(torch.float32, features=5)):
        h = torch.randn(2, 3, SOURCE)
        for scale in (1e-6, 1e6):
            torch.testing.assert_close(distiller.phi(h * scale), distiller.phi(h), atol=1e-5, rtol=1e-5)
        assert (distiller.phi(torch.zeros(1, 1, SOURCE))[..., :-1] == 0).all()


@pytest.mark.slow
def test_rls_is_stable_over_32000_steps_in_float32(one_thread: None) -> None:
    """16 rows a step of two groups; in the second, of rank 2, most directions stay at lambda while others grow."""
    ridge = 0.01
    distiller = RecursiveLeastSquares(64, 8, features=8, ridge=ridge)
    basis, true = torch.randn(2, 64, 64), torch.randn(64, 8) / 8
    basis[1, 2:] = 0
    live, state = torch.ones(2, 16, dtype=torch.bool), fresh(distiller, 2)
    A = torch.eye(9, dtype=torch.float64).repeat(2, 1, 1) * ridge
    B = torch.zeros(2, 9, 8, dtype=torch.float64)
    for step in range(1, 32_001):
        h = torch.randn(2, 16, 64) @ basis
        y = h @ true + 1
        phi = distiller.phi(h).double()
        A += phi.mT @ phi
        B += phi.mT @ y.double()
        learn(distiller, state, h, y, live)
        if step in (100, 1_000, 10_000, 32_000):
            for probe in (h, torch.randn(2, 64, 64)):
                found, probe_phi = predict(distiller, state, probe), distiller.phi(probe).double()
                assert relative(found.value, (probe_phi @ torch.linalg.solve(A, B)).numpy()) < 1e-4
                leverage = (probe_phi * torch.linalg.solve(A, probe_phi.mT).mT).sum(-1) / probe_phi.square().sum(-1)
                torch.testing.assert_close(found.confidence.double(), 1 - ridge * leverage, atol=1e-5, rtol=0)
                assert ((found.confidence >= -1e-6) & (found.confidence <= 1 + 1e-6)).all()


@pytest.mark.parametrize("name", ["rls", "mean"])
def test_bfloat16_banks_do_not_fade(name: str, one_thread: None) -> None:
    """After 1,000 steps a sum kept in bfloat16 would have stopped growing long ago, and predictions shrunk."""
    distiller = rls(torch.bfloat16, features=5) if name == "rls" else RunningMean(TARGET, shared=False)
    twin = rls(torch.float64, features=5) if name == "rls" else RunningMean(TARGET, exact=torch.float64, shared=False)
    state, exact = fresh(distiller), fresh(twin)
    for _ in range(1_000):
        h, y, live = batch(4)
        learn(distiller, state, h, y, live)
        learn(twin, exact, h, y, live)
    assert relative(predict(distiller, state, h).value, predict(twin, exact, h).value) < 0.06


def test_a_matrix_that_is_no_number_shows_in_what_is_predicted_from_it() -> None:
    distiller, state = rls(), fresh(rls(), 2)
    state["gram"][1, 0, 0] = torch.nan
    h, y, live = (torch.cat([part, part]) for part in batch(2))
    learn(distiller, state, h, y, live)
    assert state["weights"][0].isfinite().all()
    assert state["weights"][1].isnan().all()


@pytest.mark.usefixtures("_both_modes")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [1.0, 0.2])
def test_mean_is_the_mean(dtype: torch.dtype, ridge: float) -> None:
    distiller, loops = RunningMean(TARGET, ridge=ridge, exact=dtype, shared=False), reference.Mean(TARGET, ridge)
    state = fresh(distiller)
    for rows in (1, 3, 2, 5, 1):
        h, y, live = batch(rows)
        found, (value, confidence) = predict(distiller, state, h), loops.predict(rows_of(h)[0])
        if loops.rows:
            assert relative(found.value[0], np.stack([value] * rows)) < TOLERANCE[dtype]
        torch.testing.assert_close(
            found.confidence[0].double(), torch.full((rows,), confidence, dtype=torch.float64), atol=1e-6, rtol=0
        )
        learn(distiller, state, h, y, live)
        loops.learn(rows_of(h), rows_of(y))


def test_mean_forgets_step_by_step() -> None:
    distiller = RunningMean(TARGET, forgetting=0.5, exact=torch.float64)
    state, batches = fresh(distiller), [batch(rows) for rows in (2, 1, 3)]
    for h, y, live in batches:
        learn(distiller, state, h, y, live)
    weights = torch.tensor([0.25] * 2 + [0.5] + [1.0] * 3, dtype=torch.float64)
    rows = torch.cat([y[0] for _, y, _ in batches])
    torch.testing.assert_close(state["sum"][0], (weights.unsqueeze(1) * rows).sum(0))
    torch.testing.assert_close(state["seen"][0], weights.sum().view(1))


def network(size: int = TARGET, **options: Any) -> tuple[ResidualNetwork, reference.Network]:
    """The package's network and the loops' one, with the same weights. `dtype` is a torch dtype."""
    dtype = options.pop("dtype", torch.float64)
    config = ESampConfig(preset="paper", **({"width": 5} | options))
    distiller = ResidualNetwork(size, config, dtype=dtype)
    named = named_matrices(distiller, distiller.template()["weights"])
    weights = [{name: each[block].double().numpy() for name, each in named.items()} for block in range(config.depth)]
    return distiller, reference.Network(weights, config.lr, config.eps, config.clip, config.loss)


def weights_of(distiller: ResidualNetwork, state: GroupState, block: int, name: str) -> Tensor:
    return named_matrices(distiller, state["weights"][0])[name][block]


NETWORKS: list[dict[str, Any]] = [
    {},
    {"block": "mlp"},
    {"loss": "mean"},
    {"clip": 0.0},
    {"depth": 1, "lr": 0.01, "eps": 1e-8},
    {"depth": 4, "clip": 0.01},
    {"block": "mlp", "depth": 3, "loss": "mean", "clip": 100.0},
]


@pytest.mark.usefixtures("_both_modes")
@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_network_learns_as_the_loops_do(options: dict[str, Any], dtype: torch.dtype) -> None:
    distiller, loops = network(dtype=dtype, **options)
    state = fresh(distiller)
    for rows in (1, 4, 2, 3, 1, 4):
        h, y, live = batch(rows, TARGET)
        h = h / 4
        found = predict(distiller, state, h)
        assert (found.confidence == 1).all()
        assert relative(found.value[0], [loops.predict(row)[0] for row in rows_of(h)]) < TOLERANCE[dtype]
        learn(distiller, state, h, y, live)
        loops.learn(rows_of(h), rows_of(y))
    for block, weights in enumerate(loops.weights):
        for name, weight in weights.items():
            assert relative(weights_of(distiller, state, block, name), weight) < TOLERANCE[dtype]


@pytest.mark.parametrize("options", NETWORKS)
def test_network_gradients_are_those_of_autograd(options: dict[str, Any]) -> None:
    distiller, loops = network(**options)
    h, y, live = batch(4, TARGET)
    state, padded = fresh(distiller), torch.tensor([[True, False, True, True]])
    mask = padded.unsqueeze(-1)
    prediction = predict(distiller, state, h * mask)
    scale = 2 / 3 / (TARGET if options.get("loss") == "mean" else 1)
    found = torch.empty(1, distiller.numbers, dtype=torch.float64)
    slope = (prediction.value - y) * mask * scale
    distiller.backward(distiller.matrices(state["weights"]), distiller.matrices(found), prediction.kept, slope)
    named = named_matrices(distiller, found[0])
    keep = [0, 2, 3]
    _, expected = loops.gradients([rows_of(h)[i] for i in keep], [rows_of(y)[i] for i in keep])
    for block, gradients in enumerate(expected):
        for name, gradient in gradients.items():
            torch.testing.assert_close(named[name][block], torch.tensor(gradient), atol=1e-12, rtol=1e-11)
    assert live.all()


@pytest.mark.parametrize("options", NETWORKS)
def test_network_agrees_with_torch_adam(options: dict[str, Any]) -> None:
    distiller, loops = network(**options)
    state, batches = fresh(distiller), [batch(rows, TARGET) for rows in (2, 3, 1) * 4]
    for h, y, live in batches:
        learn(distiller, state, h, y, live)
    expected = reference.torch_adam(loops, [(rows_of(h), rows_of(y)) for h, y, _ in batches])
    for block, weights in enumerate(expected):
        for name, weight in weights.items():
            torch.testing.assert_close(
                weights_of(distiller, state, block, name), torch.tensor(weight), atol=1e-8, rtol=1e-6
            )


def test_network_reduces_its_loss() -> None:
    distiller, loops = network(lr=0.01, clip=1.0)
    state, (h, y, live) = fresh(distiller), batch(4, TARGET)
    before = loops.gradients(rows_of(h), rows_of(y))[0]
    assert before == pytest.approx(float((predict(distiller, state, h).value - y).square().sum() / 4))
    for _ in range(100):
        learn(distiller, state, h, y, live)
    assert float((predict(distiller, state, h).value - y).square().sum() / 4) < before / 4


def test_initial_weights_depend_on_the_seed_alone() -> None:
    networks = [network(seed=seed)[0] for seed in (3, 3, 4)]
    one, same, other = (named_matrices(each, each.template()["weights"]) for each in networks)
    for name in ("up", "gate", "down"):
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
        assert one[name].abs().max() <= 1 / one[name].shape[1] ** 0.5
    assert not torch.equal(rls(features=5, seed=1).projection, rls(features=5, seed=2).projection)


EVERY = {
    "rls": lambda: rls(features=5, forgetting=0.95),
    "rls centred": lambda: rls(features=5, centre=True),
    "mean": lambda: RunningMean(TARGET, exact=torch.float64, shared=False),
    "network": lambda: ResidualNetwork(TARGET, ESampConfig(distiller="mlp", width=5), dtype=torch.float64),
}


@pytest.mark.parametrize("name", EVERY)
def test_groups_do_not_touch_each_other_and_padding_does_not_count(name: str) -> None:
    """Three groups of 1, 3 and 2 rows side by side, and each alone."""
    distiller = EVERY[name]()
    source = TARGET if name == "network" else SOURCE
    together, alone = fresh(distiller, 3), [fresh(distiller) for _ in range(3)]
    for _ in range(5):
        batches = [batch(rows, source) for rows in (1, 3, 2)]
        h, y = (torch.zeros(3, 4, size, dtype=torch.float64) for size in (source, TARGET))
        live = torch.zeros(3, 4, dtype=torch.bool)
        for group, (sources, targets, _) in enumerate(batches):
            lanes = slice(4 - sources.shape[1], 4) if group == 2 else slice(0, sources.shape[1])
            h[group, lanes], y[group, lanes], live[group, lanes] = sources[0], targets[0], True
        found = predict(distiller, together, h)
        learn(distiller, together, h, y, live)
        for group, (sources, targets, all_live) in enumerate(batches):
            expected = predict(distiller, alone[group], sources)
            torch.testing.assert_close(found.value[group][live[group]], expected.value[0], atol=1e-11, rtol=1e-10)
            torch.testing.assert_close(found.confidence[group][live[group]], expected.confidence[0])
            learn(distiller, alone[group], sources, targets, all_live)
    for key, tensor in together.items():
        torch.testing.assert_close(tensor, torch.cat([state[key] for state in alone]), atol=1e-11, rtol=1e-10)
