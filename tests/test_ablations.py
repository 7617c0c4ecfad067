"""The ablations of ESamp and the two controls without states: their numbers, what they leave alone, what they keep."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LogitsProcessor, PreTrainedModel

import esamp
from esamp.decoding.layout import RowLayout
from esamp.decoding.step import Combined, DecodeStep, Rows
from esamp.engines.base import Request
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.explorer.mlp import FrozenNetwork, ResidualNetwork
from esamp.methods import registry
from esamp.methods.base import DecodeMethod, ModelShape
from esamp.methods.esamp import ESamp
from esamp.methods.esamp_noise import normals
from esamp.methods.rarity import Rarity
from esamp.models import embedded_path
from esamp.sampling import Sampling
from support import ablation_reference as plain
from support import esamp_reference as reference
from support.distiller_steps import fresh, learn, named_matrices, predict
from support.hf_models import small
from support.step_rows import plain_rows

D, V = 8, 13
SHAPE = ModelShape(D, {1: D, 2: D}, 4, torch.device("cpu"), vocabulary=V)
SHORT = Sampling(max_tokens=12)
VARIANTS = ("esamp_noise", "esamp_vocab", "esamp_subtract", "esamp_frozen")
capped = pytest.mark.parametrize("cap", [False, True], ids=["linear", "capped"])


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@dataclass
class Head:
    """logits = W h, or 2 tanh(W h / 2) with `cap`."""

    weight: Tensor
    cap: bool = False
    has_rows: bool = True

    @property
    def is_linear(self) -> bool:
        return not self.cap

    def __call__(self, h: Tensor) -> Tensor:
        logits = h.double() @ self.weight.double().T
        return self.after(logits).to(h.dtype)

    def after(self, logits: Any) -> Any:
        return 2 * torch.tanh(logits / 2) if self.cap else logits

    def numbers(self, h: reference.Vector) -> reference.Vector:
        result: reference.Vector = self.after(torch.from_numpy(self.weight.double().numpy() @ h)).numpy()
        return result

    def rows(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens].float()

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        return probabilities.to(self.weight.dtype) @ self.weight


def head(cap: bool = False) -> Head:
    return Head(torch.randn(V, D, dtype=torch.float64), cap)


def build(name: str, *, slots: int = 2, full: bool = False, **options: Any) -> DecodeMethod:
    method = registry.part(name)
    assert issubclass(method, DecodeMethod)
    network = {"dtype": "float64"} if issubclass(method, ESamp) else {}
    if issubclass(method, ESamp) and "distiller" in method.options.model_fields:
        usual = method.options.model_fields["distiller"].default
        network |= {"width": 5} if options.get("distiller", usual) == "mlp" else {}
    return method.build(method.options.parse(network | options), SHAPE, slots=slots, full=full)


def decode_step(head: Head, slots: list[int | None], dtype: torch.dtype = torch.float64, **keys: Any) -> DecodeStep:
    """Random rows whose final hidden states have something to do with their source states; `keys` as in `Rows`."""
    hidden = torch.randn(len(slots), D, dtype=torch.float64)
    final = (hidden.roll(1, 1) * 2 + 1).to(dtype)
    rows = replace(plain_rows(len(slots)), **{name: torch.tensor(value) for name, value in keys.items()})
    live = torch.ones(len(slots), dtype=torch.bool)
    return DecodeStep(final, {1: hidden, 2: hidden}, RowLayout.build(slots), live, head, rows)


def combine(method: DecodeMethod, step: DecodeStep) -> Combined:
    """What an engine does before it samples: one projection of all states."""
    steering = method.steer(step)
    assert isinstance(step.head, Head)
    combined: Combined = steering.combine(*step.head(torch.stack(steering.states)))
    return combined


def decode(method: DecodeMethod, step: DecodeStep, tokens: Tensor | None = None) -> Tensor:
    """A whole step; the logits that the sampler got."""
    combined = combine(method, step)
    method.observe(step, torch.zeros(len(step.final), dtype=torch.int64) if tokens is None else tokens, step.live)
    return combined.logits


def trained(name: str, cap: bool = False, steps: int = 3, **options: Any) -> tuple[Any, Head]:
    """A method whose slot 0 has seen some steps, and its head."""
    method, mine = build(name, **options), head(cap)
    assert method.admit() == 0
    for _ in range(steps):
        decode(method, decode_step(mine, [0, 0, 0]))
    return method, mine


def state_of(method: ESamp, slot: int) -> dict[str, Tensor]:
    return {n: t[slot].clone() for n, t in method.explorer.bank.tensors.items()}


def prediction(method: ESamp, step: DecodeStep) -> tuple[Tensor, Tensor]:
    """y and e of each row by the explorer itself, which other tests hold against loops."""
    found = method.explorer.propose(step.residuals[1], step.final, step.final, step.layout, step.live)
    return step.final - found.rows(found.residual), found.error


# ---- options


def test_options_of_the_variants_are_those_of_esamp_with_other_defaults() -> None:
    own, published = ESampConfig(), ESampConfig(preset="paper")
    for name in VARIANTS:
        cls = registry.part(name).options
        assert cls.model_fields.keys() == ESampConfig.model_fields.keys()
        assert all(cls.model_fields[field].description for field in cls.model_fields)
        default = published if name in ("esamp_vocab", "esamp_frozen") else own
        assert cls().model_dump(exclude={"preset"}) == default.model_dump(exclude={"preset"})
        assert cls(preset="paper").model_dump() == published.model_dump()
    told = {name: field.default for name, field in ESampConfig.model_fields.items()}
    assert told == own.model_dump()  # its own declaration is not touched


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("esamp_noise", {"signal": "action"}, "signal"),
        ("esamp_noise", {"beta": 17.0}, "from 0 to 16"),
        ("esamp_vocab", {"distiller": "rls"}, "distiller"),
        ("esamp_vocab", {"target_layer": 2}, "leave target_layer out"),
        ("esamp_subtract", {"target_layer": 2}, "leave target_layer out"),
        ("esamp_frozen", {"distiller": "mean"}, "distiller"),
        ("esamp_frozen", {"warmup": 1}, "leave warmup out"),
        ("surprisal", {"surprisal_strength": 1.0}, "surprisal_floor, such as 0.1"),
        ("surprisal", {"surprisal_floor": 1.5}, "from 0 to 1"),
        ("rarity", {"rarity_strength": -1.0}, "rarity_strength"),
        ("rarity", {"rarity_smoothing": 0.0}, "rarity_smoothing"),
    ],
)
def test_contradicting_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.part(name).options.parse(options)


def test_each_variant_refuses_other_options_and_unsuitable_models() -> None:
    for name in (*VARIANTS, "rarity"):
        with pytest.raises(OptionError, match="expected"):
            registry.part(name).build(ESampConfig(), SHAPE, slots=1, full=False)
    with pytest.raises(OptionError, match="size of the vocabulary"):
        Rarity.build(Rarity.options(), replace(SHAPE, vocabulary=0), slots=1, full=False)
    vocab = registry.part("esamp_vocab")
    with pytest.raises(OptionError, match="keeps quantised"):
        vocab.build(vocab.options(), replace(SHAPE, head_obstacle="this model keeps quantised"), slots=1, full=False)


# ---- what they have in common


@pytest.mark.parametrize("name", [*VARIANTS, "rarity"])
def test_size_is_the_memory_that_is_allocated(name: str) -> None:
    method = build(name, slots=3)
    cls, own = type(method), method.config if isinstance(method, ESamp) else method.own
    per_slot = cls.size(own, SHAPE, slots=2) - cls.size(own, SHAPE, slots=1)
    told = cls.size(own, SHAPE, slots=3)
    assert method.nbytes <= told
    method.grow(5)
    assert told <= cls.size(own, SHAPE, slots=5) == told + 2 * per_slot
    if name == "rarity":
        assert per_slot == 4 * V


@pytest.mark.parametrize("name", [*VARIANTS, "rarity"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@capped
def test_strength_zero_returns_the_same_tensors(name: str, dtype: torch.dtype, cap: bool) -> None:
    method, mine = trained(name, cap, full=True, **{"rarity_strength" if name == "rarity" else "beta": 0.0})
    assert not method.steers(method.own if name == "rarity" else method.config)
    step = decode_step(mine, [0, None, 0], dtype)
    steering = method.steer(step)
    assert len(steering.states) == 1
    assert steering.states[0] is step.final
    logits = mine(step.final)
    assert steering.combine(logits).logits is logits
    method.observe(step, torch.zeros(3, dtype=torch.int64), step.live)
    assert method.telemetry(0)["rows_steered"] == 0
    assert method.telemetry(0)["updates"] == {"esamp_vocab": 0, "esamp_frozen": 0}.get(name, 4)


@pytest.mark.parametrize("name", [*VARIANTS, "rarity"])
@capped
def test_rows_without_a_slot_keep_their_bits(name: str, cap: bool) -> None:
    method, mine = trained(name, cap, full=True)
    step = decode_step(mine, [None, 0, 0, 1], torch.float32)
    assert method.admit() == 1
    step.live[2] = False
    alone = [0, 2]
    plain_logits = mine(step.final)
    logits = combine(method, step).logits
    assert torch.equal(logits[alone], plain_logits[alone])
    assert not torch.equal(logits[1], plain_logits[1])


@pytest.mark.parametrize("name", [*VARIANTS, "rarity"])
def test_non_finite_rows_fall_back_and_reset_their_own_slot(name: str) -> None:
    method, mine = trained(name, full=True)
    assert method.admit() == 1
    decode(method, decode_step(mine, [1, 1]))
    step = decode_step(mine, [0, 1, 1])
    steering = method.steer(step)
    logits = [mine(state) for state in steering.states]
    logits[-1][1:, 2] = torch.nan
    combined = steering.combine(*logits)
    assert torch.equal(combined.logits[1:].nan_to_num(9), logits[0][1:].nan_to_num(9))
    method.observe(step, torch.zeros(3, dtype=torch.int64), step.live)
    assert [method.telemetry(slot)["rows"] for slot in (0, 1)] == [10, 2]
    bank = method.bank if isinstance(method, Rarity) else method.explorer.bank
    resettable = [key for key in bank.tensors if key not in ("first", "second", "decay")]
    if resettable:
        assert [method.telemetry(slot)["resets"] for slot in (0, 1)] == [0, 1]
    assert all(torch.equal(bank.tensors[key][1], bank.template[key]) for key in resettable)
    assert np.isfinite(method.telemetry()["kl"])


def test_a_row_with_a_non_finite_slope_is_not_learned_from() -> None:
    method, mine = trained("esamp_vocab")
    step = decode_step(mine, [0, 0])
    combine(method, step)
    method._record.slope[1, 0] = torch.inf
    method.observe(step, torch.zeros(2, dtype=torch.int64), step.live)
    assert (method.telemetry()["resets"], method.telemetry()["rows"]) == (0, 10)
    assert all(tensor[0].isfinite().all() for tensor in method.explorer.bank.tensors.values())


@pytest.mark.parametrize("name", [*VARIANTS, "rarity"])
def test_slots_are_claimed_released_and_grow(name: str) -> None:
    method, mine = trained(name, slots=1)
    fresh = build(name, slots=1)
    assert method.admit() is None
    method.grow(2)
    assert method.admit() == 1
    before = method.telemetry()["rows"]
    method.release(0)
    assert method.admit() == 0
    assert method.telemetry(0)["rows"] == 0
    assert method.telemetry()["rows"] == before == 9
    bank, new = ((m.bank if isinstance(m, Rarity) else m.explorer.bank) for m in (method, fresh))
    assert all(torch.equal(tensor[0], new.tensors[key][0]) for key, tensor in bank.tensors.items())
    assert not method.crosses_requests(type(method).options())
    assert method.waves(type(method).options(), 5) == (5,)
    with pytest.raises(OptionError, match="between steer"):
        method.detail()
    combine(method, decode_step(mine, [0]))
    assert method.detail().reference is None or method.detail().reference.shape == (1, V)


# ---- noise


def keyed(seed: list[int], index: list[int], position: list[int]) -> Rows:
    keys = dict(seed=seed, index=index, position=position)
    return replace(plain_rows(len(seed)), **{name: torch.tensor(value) for name, value in keys.items()})


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_normals_agree_with_box_and_muller(size: int) -> None:
    rows = keyed([0, 5, 2**62 - 1], [0, 3, 15], [1, 1, 999])
    expected = [plain.gaussian(*key, size) for key in ((0, 0, 1), (5, 3, 1), (2**62 - 1, 15, 999))]
    np.testing.assert_allclose(normals(rows, size).numpy(), expected, atol=1e-12)


def test_normals_depend_on_seed_index_and_position_alone() -> None:
    rows = keyed([1, 1, 1, 2, 1], [0, 1, 0, 0, 0], [4, 4, 5, 4, 4])
    drawn = normals(rows, 6)
    assert torch.equal(drawn[0], drawn[4])
    assert len({tuple(row.tolist()) for row in drawn}) == 4
    alone = normals(keyed([2], [0], [4]), 6)
    assert torch.equal(alone[0], drawn[3])


def test_normals_are_normal_and_independent() -> None:
    count, size = 4000, 6
    numbers = list(range(count))
    drawn = normals(keyed([7] * count, [n % 50 for n in numbers], [n // 50 for n in numbers]), size)
    assert drawn.mean(0).abs().max() < 4 / math.sqrt(count)
    covariance = drawn.T @ drawn / count
    assert (covariance - torch.eye(size)).abs().max() < 6 / math.sqrt(count)
    assert (drawn.pow(4).mean(0) - 3).abs().max() < 0.6
    inside = (drawn.abs() < 1).double().mean()
    assert abs(float(inside) - math.erf(1 / math.sqrt(2))) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_noise_is_as_long_as_the_error_and_points_elsewhere(dtype: torch.dtype) -> None:
    count, size = 500, 64
    error = (torch.randn(count, size, dtype=torch.float64) * torch.logspace(-3, 3, count)[:, None]).to(dtype)
    error[0] = 0
    method, mine = build("esamp_noise"), head()
    step = decode_step(mine, [0] * count, seed=[3] * count, index=list(range(count)), position=[2] * count)
    noise = method.direction(step)(SimpleNamespace(error=error))
    torch.testing.assert_close(noise.norm(dim=1), error.norm(dim=1), rtol=1e-6, atol=0)
    assert not noise[0].any()
    cosines = torch.cosine_similarity(noise[1:], error[1:], dim=1)
    assert abs(float(cosines.mean())) < 4 / math.sqrt(size * count)
    assert float(cosines.std()) == pytest.approx(1 / math.sqrt(size), rel=0.15)


@capped
@pytest.mark.parametrize("options", [{}, {"preset": "paper"}, {"distiller": "mean", "gate": False}], ids=str)
def test_noise_replaces_the_direction_of_the_error_and_nothing_else(cap: bool, options: dict[str, Any]) -> None:
    method, mine = trained("esamp_noise", cap, **options)
    keys = dict(seed=[9, 9, 9], index=[0, 4, 2], position=[3, 3, 8])
    step = decode_step(mine, [0, None, 0], **keys)
    _, error = prediction(method, step)
    logits, beta = combine(method, step).logits, method.config.beta
    for row in (0, 2):
        g = plain.gaussian(9, keys["index"][row], keys["position"][row], D)
        noise = g / np.linalg.norm(g) * float(error[row].norm())
        final = step.final[row].numpy()
        expected = (1 + beta) * mine.numbers(final) - beta * mine.numbers(final - noise)
        np.testing.assert_allclose(logits[row].numpy(), expected, atol=2e-5)
    assert float(method.detail().novelty[0]) == pytest.approx(float(error[0].norm()), rel=1e-6)


def test_noise_learns_what_esamp_learns() -> None:
    noise, esamp, mine = build("esamp_noise"), build("esamp"), head()
    noise.admit(), esamp.admit()
    for _ in range(4):
        step = decode_step(mine, [0, 0])
        moved = [decode(method, step) for method in (noise, esamp)]
    assert not torch.equal(*moved)
    assert isinstance(noise, ESamp)
    assert isinstance(esamp, ESamp)
    other = state_of(esamp, 0)
    assert all(torch.equal(tensor, other[key]) for key, tensor in state_of(noise, 0).items())
    assert noise.telemetry() == pytest.approx(esamp.telemetry(), nan_ok=True)


def test_with_a_gate_noise_does_not_change_unseen_states() -> None:
    method, mine = trained("esamp_noise", steps=0)
    step = decode_step(mine, [0, 0], torch.float32)
    assert torch.equal(combine(method, step).logits, mine(step.final))


# ---- the vocabulary


def test_the_slope_is_the_gradient_of_the_divergence() -> None:
    method, mine = trained("esamp_vocab")
    step = decode_step(mine, [0, 0, 0])
    y, _ = prediction(method, step)
    combine(method, step)
    with torch.inference_mode(False), torch.enable_grad():
        W = torch.tensor(mine.weight.numpy())
        guess = torch.tensor(y.numpy(), requires_grad=True)
        logp = (torch.tensor(step.final.numpy()) @ W.T).log_softmax(-1)
        kl = nn.functional.kl_div((guess @ W.T).log_softmax(-1), logp, log_target=True, reduction="none").sum()
        kl.backward()
    torch.testing.assert_close(method._record.slope, guess.grad, atol=2e-7, rtol=1e-6)  # p and q are float32


def test_training_by_the_slope_lowers_the_loss() -> None:
    """Of the squared error it is the very step that is made without one."""
    network = ResidualNetwork(D, ESampConfig(distiller="mlp", width=5, dtype="float64"), dtype=torch.float64)
    one, other = fresh(network), fresh(network)
    source, target = torch.randn(2, 1, 3, D, dtype=torch.float64)
    live = torch.tensor([[True, False, True]])
    slope = 2 * (predict(network, one, source).value - target) * live.unsqueeze(-1)
    before = one["weights"].clone()
    learn(network, one, source, target, live)
    learn(network, other, source, target, live, slope)
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    assert not torch.equal(one["weights"], before)


@capped
@pytest.mark.parametrize("options", [{}, {"lr": 0.01, "clip": 0.0, "depth": 1}], ids=str)
def test_the_vocabulary_distiller_agrees_with_the_reference_loops(cap: bool, options: dict[str, Any]) -> None:
    method, mine = build("esamp_vocab", **options), head(cap)
    assert isinstance(method, ESamp)
    config, loops = method.config, {}
    for slot in (0, 1):
        assert method.admit() == slot
        settings = dict(lr=config.lr, clip=config.clip, head=mine.weight.numpy(), after=mine.after)
        distiller = method.explorer.distiller
        template = named_matrices(distiller, distiller.template()["weights"])
        loops[slot] = plain.network(template, config.depth, plain.Vocabulary, **settings)
    for slots in ([0, 1, 0], [0, None, 1], [1, 1, 1], [0, 0, 1]):
        step = decode_step(mine, slots)
        step.live[2] = slots[0] != 1
        for row, slot in enumerate(slots):
            if slot is not None and step.live[row]:
                expected = loops[slot].predict(step.residuals[1][row].numpy())[0]
                np.testing.assert_allclose(prediction(method, step)[0][row], expected, atol=1e-5)
        logits = combine(method, step).logits
        for row, slot in enumerate(slots):
            final, beta = step.final[row].numpy(), config.beta
            expected = mine.numbers(final)
            if slot is not None and step.live[row]:
                y = loops[slot].predict(step.residuals[1][row].numpy())[0]
                expected = (1 + beta) * expected - beta * mine.numbers(y)
            np.testing.assert_allclose(logits[row], expected, atol=2e-4)
        method.observe(step, torch.zeros(3, dtype=torch.int64), step.live)
        for slot in (0, 1):
            mine_rows = [row for row in range(3) if slots[row] == slot and step.live[row]]
            if mine_rows:
                states = ([t[row].numpy() for row in mine_rows] for t in (step.residuals[1], step.final))
                loops[slot].learn(*states)
    assert method.telemetry()["updates"] == 7


def test_for_a_linear_head_fusion_of_logits_is_that_of_states() -> None:
    method, mine = trained("esamp_vocab")
    step = decode_step(mine, [0, 0])
    y, _ = prediction(method, step)
    beta = method.config.beta
    torch.testing.assert_close(
        combine(method, step).logits.double(), mine((1 + beta) * step.final - beta * y), atol=1e-4, rtol=1e-5
    )


# ---- subtraction alone


@capped
@pytest.mark.parametrize("options", [{}, {"preset": "paper"}, {"gate": False}], ids=str)
@pytest.mark.parametrize("full", [False, True], ids=["basic", "full"])
def test_the_prediction_is_subtracted(cap: bool, options: dict[str, Any], full: bool) -> None:
    method, mine = trained("esamp_subtract", cap, full=full, **options)
    step = decode_step(mine, [0, None, 0])
    found = method.explorer.propose(step.residuals[1], step.final, step.final, step.layout, step.live)
    residual = found.rows(found.residual)
    confidence = (found.error / residual)[:, :1] if method.config.gate else torch.ones(3, 1)
    y, beta = step.final - residual, method.config.beta
    assert len(method.steer(step).states) == (2 if cap or full else 1)
    logits = combine(method, step).logits
    for row in (0, 2):
        subtracted = mine.numbers((confidence * y)[row].numpy())
        expected = mine.numbers(step.final[row].numpy()) - beta * subtracted
        np.testing.assert_allclose(logits[row].numpy(), expected, atol=2e-5)


def test_a_perfect_prediction_subtracted_is_a_temperature() -> None:
    """Where ESamp would leave the model alone: with y = hL the logits are 1 - beta times the model's."""
    method, mine = trained("esamp_subtract", steps=0, distiller="mean", gate=False, beta=0.2)
    step = decode_step(mine, [0, 0])
    same = replace(step, final=step.final[:1].repeat(2, 1))
    decode(method, same)
    torch.testing.assert_close(combine(method, same).logits.double(), 0.8 * mine(same.final), atol=1e-6, rtol=1e-6)
    esamp = build("esamp", distiller="mean", gate=False, beta=0.2)
    esamp.admit()
    decode(esamp, same)
    torch.testing.assert_close(combine(esamp, same).logits, mine(same.final), atol=1e-6, rtol=1e-6)


@capped
def test_with_a_gate_subtraction_does_not_change_unseen_states(cap: bool) -> None:
    method, mine = trained("esamp_subtract", cap, steps=0)
    step = decode_step(mine, [0, 0], torch.float32)
    assert torch.equal(combine(method, step).logits, mine(step.final))


# ---- the frozen network


@capped
def test_the_frozen_network_keeps_its_initial_weights(cap: bool) -> None:
    method, mine = build("esamp_frozen"), head(cap)
    method.admit()
    assert isinstance(method, ESamp)
    distiller = method.explorer.distiller
    assert isinstance(distiller, FrozenNetwork)
    drawn = distiller.weights.clone()
    network = plain.network(named_matrices(distiller.network, drawn[0]), 2, plain.Frozen)
    beta = method.config.beta
    for _ in range(4):
        step = decode_step(mine, [0, None, 0])
        logits = decode(method, step)
        for row in (0, 2):
            own, y = step.final[row].numpy(), network.predict(step.residuals[1][row].numpy())[0]
            expected = (1 + beta) * mine.numbers(own) - beta * mine.numbers(y)
            np.testing.assert_allclose(logits[row], expected, atol=2e-5)
    assert torch.equal(distiller.weights, drawn)
    told = method.telemetry()
    assert (told["updates"], told["rows"], told["rows_steered"]) == (0, 8, 8)


def test_a_frozen_network_of_small_output_is_a_temperature() -> None:
    method, mine = trained("esamp_frozen", beta=0.25)
    step = decode_step(mine, [0, 0])
    step.residuals[1].zero_()
    torch.testing.assert_close(combine(method, step).logits, mine(step.final) * 1.25, atol=1e-9, rtol=1e-9)


# ---- surprisal


def surprisal(strength: float, floor: float = 0.0) -> Any:
    method = registry.part("surprisal")
    return method.build(method.options(surprisal_strength=strength, surprisal_floor=floor), SHAPE)


def test_surprisal_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.64, 0.32, 0.04]]).log() + 3
    probabilities = surprisal(0.5).apply(logits, plain_rows(2)).softmax(-1)
    roots = [math.sqrt(0.5), 0.5, 0.5], [0.8, math.sqrt(0.32), 0.2]
    expected = torch.tensor([[x / sum(row) for x in row] for row in roots])
    torch.testing.assert_close(probabilities, expected)
    floored = surprisal(2.0, 0.1).apply(logits, plain_rows(2)).softmax(-1)
    torch.testing.assert_close(floored, torch.tensor([[0.2, 0.4, 0.4], [1 / 3, 2 / 3, 0.0]]))


@pytest.mark.parametrize("strength", [-1.0, -0.25, 0.25, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_surprisal_is_a_temperature(strength: float, dtype: torch.dtype) -> None:
    logits = (torch.randn(4, 50) * 4).to(dtype)
    logits[:, 7] = -torch.inf
    tilted = surprisal(strength).apply(logits, plain_rows(4))
    temperature = 1 / (1 - strength)
    torch.testing.assert_close(tilted.softmax(-1), (logits.float() / temperature).softmax(-1), atol=1e-6, rtol=1e-5)
    assert tilted[:, 7].isneginf().all()


def test_surprisal_of_strength_zero_is_the_same_tensor() -> None:
    logits = torch.randn(2, V)
    assert surprisal(0.0).apply(logits, plain_rows(2)) is logits
    dropped = surprisal(0.0, 0.5).apply(logits, plain_rows(2)).isneginf()
    assert torch.equal(dropped, logits.softmax(-1) < 0.5 * logits.softmax(-1).amax(-1, keepdim=True))


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_with_a_floor_surprisal_may_reverse_the_order(strength: float) -> None:
    logits = torch.tensor([[2.0, 1.5, -9.0, 1.0]])
    found = surprisal(strength, 0.2).apply(logits, plain_rows(1))[0]
    assert found[2].isneginf()
    order = found[[0, 1, 3]].tolist()
    assert order == sorted(order)
    assert (len(set(order)) == 1) == (strength == 1)


# ---- rarity


@pytest.mark.parametrize(("strength", "smoothing"), [(1.0, 1.0), (0.25, 0.5)])
def test_rarity_counts_live_rows_group_by_group(strength: float, smoothing: float) -> None:
    method, mine = build("rarity", rarity_strength=strength, rarity_smoothing=smoothing), head()
    counts = np.zeros((2, V))
    assert [method.admit(), method.admit()] == [0, 1]
    for slots in ([0, 1, 0, None], [1, 0], [0, 0, 0, 1, 1], [1, 1, 0, 0, 1]):
        step = decode_step(mine, slots)
        tokens = torch.randint(0, 3, (len(slots),))
        step.live[1] = False
        logits = combine(method, step).logits
        for row, slot in enumerate(slots):
            own = expected = mine(step.final)[row].numpy()
            if slot is not None and row != 1:
                used = counts[slot] + smoothing
                expected = own - strength * np.log(used / used.sum())
            np.testing.assert_allclose(
                reference.softmax(logits[row].numpy()), reference.softmax(expected), atol=1e-6, err_msg=str(slots)
            )
        ended = step.live.clone()
        ended[0] = False  # a row that ended with its token, say: the engine decides what counts
        method.observe(step, tokens, ended)
        for row, slot in enumerate(slots):
            if slot is not None and row > 1:
                counts[slot, int(tokens[row])] += 1
    assert isinstance(method, Rarity)
    np.testing.assert_array_equal(method.bank.tensors["counts"].numpy(), counts)
    assert counts.sum() == method.telemetry()["rows"] == 7


def test_rarity_by_hand() -> None:
    """Twice token 1 and once token 2 with a = 1, s = 1: odds of 1 : 1/3 : 1/2 : 1."""
    method, mine = build("rarity", rarity_strength=1.0), Head(torch.zeros(V, D, dtype=torch.float64))
    method.admit()
    decode(method, decode_step(mine, [0, 0, 0]), torch.tensor([1, 2, 1]))
    odds = combine(method, decode_step(mine, [0])).logits.exp()[0, :4]
    torch.testing.assert_close(odds, torch.tensor([1, 1 / 3, 1 / 2, 1]), check_dtype=False)


def test_rarity_does_not_change_an_empty_group_and_starts_again_with_its_slot() -> None:
    method, mine = build("rarity", full=True), head()
    assert method.first_token
    assert method.admit() == 0
    step = decode_step(mine, [0, 0], torch.float32)
    assert torch.equal(decode(method, step), mine(step.final))
    assert not torch.equal(decode(method, step), mine(step.final))
    assert method.telemetry(0)["rows_steered"] == 2
    method.release(0)
    assert method.admit() == 0
    assert torch.equal(combine(method, step).logits, mine(step.final))
    method.grow(4)
    method.observe(step, torch.tensor([3, 3]), step.live)
    assert isinstance(method, Rarity)
    assert method.bank.tensors["counts"].sum(1).tolist() == [2, 0, 0, 0]
    assert method.bank.tensors["counts"][0, 3] == 2


def test_rarity_reports_its_divergence() -> None:
    method, mine = build("rarity", rarity_strength=2.0, full=True), head()
    method.admit()
    decode(method, decode_step(mine, [0, None]), torch.tensor([1, 1]))
    step = decode_step(mine, [0, None])
    logits = combine(method, step).logits
    detail = method.detail()
    wanted = reference.kl(logits[0].double().numpy(), mine(step.final)[0].numpy())
    assert detail.kl.tolist() == [pytest.approx(wanted, abs=1e-5), pytest.approx(math.nan, nan_ok=True)]
    method.observe(step, torch.tensor([1, 1]), step.live)
    assert method.telemetry()["kl"] == pytest.approx(wanted / 2, abs=1e-5)


@pytest.mark.parametrize("name", [*VARIANTS, "rarity"])
def test_steps_without_an_active_row_change_nothing(name: str) -> None:
    method, mine = build(name, full=True), head()
    for slots in ([None, None], []):
        step = decode_step(mine, slots, torch.float32)
        assert torch.equal(decode(method, step), mine(step.final))
    assert method.telemetry()["rows"] == 0


# ---- through the transformers engine


class Recorder(LogitsProcessor):
    """Runs last: keeps the scores that tokens are drawn from."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.double().log_softmax(-1))
        return scores


def tiny_model(name: str, request: pytest.FixtureRequest) -> PreTrainedModel:
    if name == "gemma2":
        return small("gemma2")
    folder = embedded_path() if name == "embedded" else request.getfixturevalue("shared") / "models" / name
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


PUBLISHED = dict(preset="paper", width=32)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("esamp_noise", {"beta": 1.0}),
    ("esamp_noise", PUBLISHED),
    ("esamp_vocab", {"width": 32, "beta": 0.5, "lr": 2e-3}),
    ("esamp_subtract", {"beta": 0.3}),
    ("esamp_subtract", PUBLISHED),
    ("esamp_frozen", {"width": 32}),
    ("surprisal", {"surprisal_strength": 0.4}),
    ("rarity", {"rarity_strength": 1.5, "rarity_smoothing": 0.3}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("kind", ["embedded", "stories260K", "gemma2"])
def test_the_transformers_engine_draws_from_the_formulas_distribution(
    name: str, options: dict[str, Any], kind: str, request: pytest.FixtureRequest
) -> None:
    model, recorder, samples = tiny_model(kind, request), Recorder(), 3
    prompts = torch.tensor([[5, 16, 7, 28, 9], [40, 11, 12, 43, 14]])
    settings = registry.get(name).options.parse(options)
    arguments: dict[str, Any] = dict(do_sample=True, top_k=0, max_new_tokens=8, num_return_sequences=samples)
    with torch.inference_mode(False), esamp.explore(model, settings, samples_per_prompt=samples, method=name) as run:
        run.seeds = (21, 22)
        texts = run.generate(prompts, last=[recorder], **arguments)
    shown, ends = torch.stack(recorder.seen, dim=1), {model.generation_config.eos_token_id}
    moved = 0.0
    for group, prompt in enumerate(prompts.tolist()):
        rows = slice(group * samples, (group + 1) * samples)
        tokens = [up_to(ends, row) for row in texts[rows, len(prompt) :].tolist()]
        expected = plain.replay(model, plain.group(model, name, settings, seed=21 + group), prompt, tokens)
        untouched = plain.replay(model, plain.group(model, "rarity", None, seed=0), prompt, tokens)
        for got, wanted, own in zip(shown[rows], expected, untouched, strict=True):
            np.testing.assert_allclose(got[: len(wanted)].exp().numpy(), np.exp(wanted), atol=1e-5)
            moved = max(moved, float(np.abs(np.exp(wanted) - np.exp(own)).max()))
    assert moved > 1e-3
    assert run.telemetry()["rows_steered"] > 0


def up_to(ends: set[int], tokens: list[int]) -> list[int]:
    """The tokens to the first that ends the text, with it."""
    return tokens[: next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))]


@pytest.mark.parametrize("name", [*VARIANTS, "surprisal", "rarity"])
def test_requests_run_repeatably_and_combine(name: str) -> None:
    engine = HFEngine.load(device="cpu", trace=True)
    method = f"{name}+top_n_sigma"
    asked = [Request(str(n), "Numbers 3 5 8 9 target 24", n=4, method=method, seed=n, sampling=SHORT) for n in (1, 2)]
    one, two = engine.generate(asked)
    [alone] = engine.generate(asked[1:])
    assert [s.token_ids for s in two.samples] == [s.token_ids for s in alone.samples]
    assert [s.token_ids for s in two.samples] != [s.token_ids for s in one.samples]
    assert one.telemetry["rows_filtered" if name != "surprisal" else "rows_steered"] > 0
    check_active(one)


def test_rarity_is_refused_in_calls_that_miss_first_tokens() -> None:
    model = small("llama")
    with (
        torch.inference_mode(False),
        esamp.explore(model, method="rarity"),
        pytest.raises(OptionError, match=r"run\.generate"),
    ):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2)
