"""ESamp as a decoding method: which states it projects, what it hands to the sampler, what it learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import Combined, DecodeStep
from esamp.errors import OptionError
from esamp.explorer.config import PRESET_SAMPLING, ESampConfig
from esamp.methods.base import ModelShape
from esamp.methods.esamp import ESamp
from esamp.sampling import Sampling
from support import esamp_reference as reference
from support.esamp_options import without_unused
from support.step_rows import plain_rows

S, D, V, R = 8, 8, 13, 5
SHAPE = ModelShape(hidden_size=D, layer_sizes={1: S, 2: S, 3: D}, layers=4, device=torch.device("cpu"))


@pytest.fixture(autouse=True, params=[torch.no_grad, torch.inference_mode])
def _both_modes(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
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
        return (2 * torch.tanh(logits / 2) if self.cap else logits).to(h.dtype)

    def numbers(self, h: reference.Vector) -> reference.Vector:
        logits: reference.Vector = self.weight.double().numpy() @ h
        return 2 * np.tanh(logits / 2) if self.cap else logits

    def rows(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens].float()

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        return (probabilities @ self.weight.to(probabilities.dtype)).float()


def method(full: bool = False, slots: int = 2, **options: Any) -> ESamp:
    settings = {"dtype": "float64", "features": 4, "width": 5, "gate": False} | options
    return ESamp.build(ESampConfig.parse(without_unused(settings)), SHAPE, slots=slots, full=full)


def decode_step(head: Head, slots: list[int | None], dtype: torch.dtype = torch.float64) -> DecodeStep:
    hidden = torch.randn(len(slots), S, dtype=torch.float64)
    final = (hidden.roll(1, 1) * 2 + 1).to(dtype)
    live = torch.ones(len(slots), dtype=torch.bool)
    return DecodeStep(
        final, {1: hidden, 2: hidden, 3: final}, RowLayout.build(slots), live, head, plain_rows(len(slots))
    )


def decode(esamp: ESamp, step: DecodeStep, tokens: Tensor | None = None) -> Combined:
    """What an engine does at one step: one projection of all states."""
    steering = esamp.steer(step)
    logits = step.head(torch.cat(steering.states)) if isinstance(step.head, Head) else torch.empty(0)
    combined: Combined = steering.combine(*logits.split(len(step.final)))
    esamp.observe(step, torch.zeros(len(step.final), dtype=torch.int64) if tokens is None else tokens, step.live)
    return combined


def trained(esamp: ESamp, head: Head, steps: int = 3) -> None:
    assert esamp.admit() == 0
    for _ in range(steps):
        decode(esamp, decode_step(head, [0, 0, 0]))


def fused_by_loops(esamp: ESamp, head: Head, step: DecodeStep, row: int) -> reference.Vector:
    """(1 + beta) head(hL) - beta head(y) with the explorer's own y (which other tests hold against loops)."""
    layout = step.layout
    proposal = esamp.explorer.propose(step.residuals[1], step.final, step.final, layout, step.live)
    y = (step.final - proposal.rows(proposal.residual))[row].numpy()
    return reference.fused_logits(head.numbers, step.final[row].double().numpy(), y, esamp.config.beta)


@pytest.mark.parametrize("cap", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("distiller", ["rls", "mlp", "mean"])
def test_logits_are_the_papers(cap: bool, full: bool, distiller: str) -> None:
    head, esamp = Head(torch.randn(V, D), cap), method(full, distiller=distiller)
    trained(esamp, head)
    step = decode_step(head, [0, None, 0])
    expected = [fused_by_loops(esamp, head, step, row) for row in (0, 2)]
    combined = decode(esamp, step)
    assert combined.rescore is None
    np.testing.assert_allclose(combined.logits[[0, 2]].numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(combined.logits[1].numpy(), head.numbers(step.final[1].numpy()), atol=1e-6)


@pytest.mark.parametrize("cap", [False, True])
def test_the_reference_rule_returns_reference_logits_and_their_change(cap: bool) -> None:
    head, esamp = Head(torch.randn(V, D), cap), method(candidates="reference")
    trained(esamp, head)
    step = decode_step(head, [0, None, 0])
    expected = [fused_by_loops(esamp, head, step, row) for row in (0, 2)]
    combined = decode(esamp, step)
    torch.testing.assert_close(combined.logits, head(step.final), atol=1e-12, rtol=1e-12)
    assert combined.rescore is not None
    np.testing.assert_allclose((combined.logits + combined.rescore)[[0, 2]].numpy(), expected, atol=2e-5)
    assert not combined.rescore[1].any()


def test_only_the_states_that_an_option_needs_are_projected() -> None:
    """One projection of R rows whenever that is exact and nothing asks for more; 2R otherwise."""
    linear, capped = Head(torch.randn(V, D)), Head(torch.randn(V, D), cap=True)
    cases: list[tuple[int, Head, bool, dict[str, Any]]] = [
        (1, linear, False, {}),
        (1, linear, False, {"beta": 0.0}),
        (1, capped, True, {"beta": 0.0}),
        (1, linear, False, {"signal": "action", "gain": 0.0}),
        (2, linear, True, {}),
        (2, linear, False, {"signal": "action"}),
        (2, linear, False, {"candidates": "reference"}),
        (2, capped, False, {}),
    ]
    for count, head, full, options in cases:
        esamp = method(full, **options)
        esamp.admit()
        assert len(esamp.steer(decode_step(head, [0])).states) == count, (full, options)


@pytest.mark.parametrize(
    ("signal", "beta", "strength"), [("state", 0.1, 0.1), ("action", 0.1, 1), ("both", 0.1, 1), ("both", 2.0, 2)]
)
def test_capped_heads_mix_at_the_strength_of_the_signal(signal: str, beta: float, strength: float) -> None:
    """With the action signal the subtracted state stays within reach however small beta is."""
    head, esamp = Head(torch.randn(V, D), cap=True), method(signal=signal, beta=beta)
    trained(esamp, head)
    step = decode_step(head, [0, 0])
    final, counter = esamp.steer(step).states
    assert esamp._record is not None
    change = esamp._record.change(esamp.config.beta)
    torch.testing.assert_close(final - counter, (change / strength).to(final.dtype), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("options", [{"beta": 0.0}, {"signal": "both", "beta": 0.0, "gain": 0.0}])
@pytest.mark.parametrize("cap", [False, True])
def test_beta_zero_returns_the_same_tensors(dtype: torch.dtype, options: dict[str, Any], cap: bool) -> None:
    head, esamp = Head(torch.randn(V, D), cap), method(full=True, **options)
    assert not ESamp.steers(esamp.config)
    trained(esamp, head)
    step = decode_step(head, [0, None, 0], dtype)
    steering = esamp.steer(step)
    assert len(steering.states) == 1
    assert steering.states[0] is step.final
    logits = head(step.final)
    combined = steering.combine(logits)
    assert combined.logits is logits
    assert combined.rescore is None
    esamp.observe(step, torch.zeros(3, dtype=torch.int64), step.live)
    assert esamp.telemetry(0)["updates"] == 4
    assert esamp.telemetry(0)["rows_steered"] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("cap", [False, True])
def test_rows_without_a_slot_keep_their_bits(dtype: torch.dtype, full: bool, cap: bool) -> None:
    head, esamp = Head(torch.randn(V, D), cap), method(full, slots=1)
    trained(esamp, head)
    step = decode_step(head, [None, 0, 0, None], dtype)
    step.live[2] = False
    steering = esamp.steer(step)
    alone = [0, 2, 3]
    assert torch.equal(steering.states[0][alone], step.final[alone])
    plain = head(step.final)
    noisy = [head(state) for state in steering.states]
    if len(noisy) == 2:  # a second projection need not round as the first did
        noisy[1] = noisy[1] + 0.25
    combined = steering.combine(*noisy)
    assert torch.equal(combined.logits[alone].to(dtype), plain[alone])
    assert not torch.equal(combined.logits[1].to(dtype), plain[1])


@pytest.mark.parametrize("candidates", ["fused", "reference"])
def test_a_row_with_non_finite_logits_falls_back_and_is_not_learned_from(candidates: str) -> None:
    head, esamp = Head(torch.randn(V, D)), method(full=True, candidates=candidates)
    trained(esamp, head)
    assert esamp.admit() == 1
    decode(esamp, decode_step(head, [1, 1]))
    step = decode_step(head, [0, 1, 1])
    steering = esamp.steer(step)
    plain, fused = (head(state) for state in steering.states)
    plain[:, 4], fused[:, 4] = -torch.inf, -torch.inf
    fused[1, 2] = torch.nan
    combined = steering.combine(plain, fused)
    result = combined.logits if combined.rescore is None else combined.logits + combined.rescore.nan_to_num()
    assert torch.equal(result[1], plain[1])
    torch.testing.assert_close(result[[0, 2]], fused[[0, 2]], atol=1e-5, rtol=1e-5)
    assert esamp.detail().kl.isnan().tolist() == [False, True, False]
    esamp.observe(step, torch.zeros(3, dtype=torch.int64), step.live)
    assert [esamp.telemetry(slot)["rows"] for slot in (0, 1)] == [10, 3]
    assert [esamp.telemetry(slot)["resets"] for slot in (0, 1)] == [0, 0]
    assert np.isfinite(esamp.telemetry(0)["kl"])


def test_a_group_without_finite_logits_is_reset() -> None:
    head, esamp = Head(torch.randn(V, D)), method(full=True)
    trained(esamp, head)
    step = decode_step(head, [0, 0])
    plain, fused = (head(state) for state in esamp.steer(step).states)
    steering = esamp.steer(step)
    assert torch.equal(steering.combine(plain, torch.full_like(fused, torch.nan)).logits, plain)
    esamp.observe(step, torch.zeros(2, dtype=torch.int64), step.live)
    assert esamp.telemetry(0)["resets"] == 1
    bank = esamp.explorer.bank
    assert all(torch.equal(tensor[0], bank.template[name]) for name, tensor in bank.tensors.items())


@pytest.mark.parametrize("narrow", [False, True])
def test_rows_fall_back_unless_both_of_their_logits_are_sound(narrow: bool) -> None:
    """Nothing is learned from a row whose own logits are no numbers, nor from fused ones, but for float16 overflow."""
    head, esamp = Head(torch.randn(V, D)), method(gate=False)
    trained(esamp, head)
    step = decode_step(head, [0] * 4)
    record = esamp.explorer.propose(step.residuals[1], step.final, step.final, step.layout, step.live)
    assert record.rows(record.steered).all()
    reference, fused = torch.tensor([[True, True, False, False], [True, False, True, False]])
    record.fall_back(reference, fused, narrow=narrow)
    assert record.rows(record.steered).tolist() == [True, False, False, False]
    assert record.rows(record.live).tolist() == [True, narrow, False, False]


@pytest.mark.parametrize("signal", ["action", "both"])
@pytest.mark.parametrize("cap", [False, True])
def test_the_action_memory_learns_what_was_sampled(signal: str, cap: bool) -> None:
    head, esamp = Head(torch.randn(V, D), cap), method(signal=signal, gain=2.0, action_ridge=0.5)
    assert esamp.explorer.memory is not None
    memory = esamp.explorer.memory.regression
    assert memory.projection is not None
    loops = reference.RLS(memory.size, D, 0.5, memory.projection.double().numpy())
    esamp.admit()
    weight = head.weight.double().numpy()
    for _ in range(6):
        step, tokens = decode_step(head, [0, 0, None, 0]), torch.randint(0, V, (4,))
        final, rows = step.final.numpy(), (0, 1, 3)
        proposal = esamp.explorer.propose(step.residuals[1], step.final, step.final, step.layout, step.live)
        state_part = esamp.config.beta * proposal.error.numpy() if signal == "both" else np.zeros((4, D))
        for row in rows:
            expected = state_part[row] - 2.0 * loops.predict(final[row])[0]
            np.testing.assert_allclose(proposal.change(esamp.config.beta)[row].numpy(), expected, atol=1e-4)
        decode(esamp, step, tokens)
        loops.learn(
            [final[row] for row in rows],
            [reference.action(weight, int(tokens[row]), head.numbers(final[row])) for row in rows],
        )


def test_the_action_signal_makes_a_repeated_token_less_likely() -> None:
    head, esamp = Head(torch.randn(V, D)), method(signal="action", gain=3.0)
    esamp.admit()
    step, token = decode_step(head, [0]), torch.tensor([5])
    before = decode(esamp, step, token).logits.log_softmax(-1)[0, 5]
    after = decode(esamp, step, token).logits.log_softmax(-1)[0, 5]
    assert after < before


def test_the_state_signal_moves_away_from_the_prediction() -> None:
    head, esamp = Head(torch.randn(V, D)), method(beta=1.0)
    trained(esamp, head)
    step = decode_step(head, [0])
    proposal = esamp.explorer.propose(step.residuals[1], step.final, step.final, step.layout, step.live)
    moved = esamp.steer(step).states[0]
    prediction = step.final - proposal.rows(proposal.residual)
    torch.testing.assert_close(moved - prediction, 2 * (step.final - prediction))


def test_detail_and_telemetry_describe_the_steered_rows() -> None:
    head, esamp = Head(torch.randn(V, D)), method(full=True)
    trained(esamp, head)
    step = decode_step(head, [0, None, 0])
    step.live[2] = False
    steering = esamp.steer(step)
    plain, fused = (head(state) for state in steering.states)
    combined = steering.combine(plain, fused)
    detail = esamp.detail()
    assert detail.novelty.isnan().tolist() == detail.kl.isnan().tolist() == [False, True, True]
    assert float(detail.kl[0]) == pytest.approx(
        reference.kl(combined.logits[0].double().numpy(), plain[0].double().numpy()), abs=1e-5
    )
    esamp.observe(step, torch.zeros(3, dtype=torch.int64), step.live)
    with pytest.raises(OptionError, match="between steer"):
        esamp.detail()
    found = esamp.telemetry()
    assert (found["steps"], found["rows"], found["resets"]) == (4, 10, 0)
    assert found["rows_steered"] == 10
    assert -1 <= found["cos_token"] <= 1
    assert found["kl"] > 0


def test_observing_twice_learns_once() -> None:
    head, esamp = Head(torch.randn(V, D)), method()
    trained(esamp, head, steps=1)
    esamp.observe(decode_step(head, [0]), torch.zeros(1, dtype=torch.int64), torch.tensor([True]))
    assert esamp.telemetry()["updates"] == 1


def test_prompts_have_slots_of_their_own_and_a_batch_shares_one() -> None:
    esamp = method(slots=2)
    assert {esamp.admit(), esamp.admit()} == {0, 1}
    assert esamp.admit() is None
    esamp.grow(3)
    assert esamp.admit() == 2
    esamp.release(1)
    with pytest.raises(ValueError, match="slot 1 is not in use"):
        esamp.release(1)
    assert esamp.admit() == 1
    shared = method(slots=3, scope="batch")
    assert [shared.admit() for _ in range(5)] == [0] * 5
    shared.release(0)
    shared.release(0)
    assert shared.admit() == 0
    assert shared.explorer.slots.in_use == 1


@pytest.mark.parametrize(("options", "n", "expected"), [
    ({}, 5, (5,)),
    ({"signal": "action"}, 16, (4, 4, 4, 4)),
    ({"signal": "both"}, 2, (1, 1)),
    ({"waves": 3}, 8, (3, 3, 2)),
    ({"waves": 16}, 1, (1,)),
])  # fmt: skip
def test_samples_are_divided_evenly_into_waves(options: dict[str, Any], n: int, expected: tuple[int, ...]) -> None:
    assert ESamp.waves(ESampConfig(**options), n) == expected


def test_layers_and_models_that_do_not_fit_are_refused() -> None:
    assert ESamp.layers(ESampConfig(source_layer=2, target_layer=3)) == (2, 3)
    assert ESamp.layers(ESampConfig()) == (1,)
    uneven = ModelShape(hidden_size=D, layer_sizes={1: S + 1, 2: S + 1}, layers=4, device=torch.device("cpu"))
    with pytest.raises(OptionError, match="use distiller = 'rls'"):
        ESamp.build(ESampConfig(preset="paper"), uneven, slots=1, full=False)
    with pytest.raises(OptionError, match="leave it out"):
        ESamp.build(ESampConfig(target_layer=2), uneven, slots=1, full=False)
    sealed = ModelShape(D, {1: S}, 4, torch.device("cpu"), head_obstacle="this model keeps quantised")
    with pytest.raises(OptionError, match="signal = 'action'"):
        ESamp.build(ESampConfig(signal="action"), sealed, slots=1, full=False)


def test_the_rows_of_a_head_without_rows_are_not_read() -> None:
    head, esamp = Head(torch.randn(V, D), has_rows=False), method(full=True)
    trained(esamp, head)
    assert np.isnan(esamp.telemetry()["cos_token"])
    assert esamp.telemetry()["kl"] > 0


def test_totals_include_released_groups() -> None:
    head, esamp = Head(torch.randn(V, D)), method(slots=1)
    trained(esamp, head)
    before = esamp.telemetry()
    esamp.release(0)
    assert esamp.admit() == 0
    assert esamp.telemetry(0)["updates"] == 0
    assert esamp.telemetry()["updates"] == before["updates"] > 0


def test_the_shared_slot_is_reset_after_its_last_group() -> None:
    head, esamp = Head(torch.randn(V, D)), method(slots=1, scope="batch")
    trained(esamp, head)
    assert esamp.admit() == 0
    esamp.release(0)
    assert esamp.telemetry(0)["updates"] > 0
    esamp.release(0)
    assert esamp.admit() == 0
    assert esamp.telemetry(0)["updates"] == 0


@pytest.mark.parametrize("preset", PRESET_SAMPLING)
def test_a_preset_sets_only_the_sampler_settings_that_a_request_leaves_unset(preset: str) -> None:
    config = ESampConfig.parse({"preset": preset})
    usual = PRESET_SAMPLING[preset]
    filled = ESamp.sampler(config, Sampling(max_tokens=9, top_p=0.5))
    assert {name: dict(filled)[name] for name in usual} == usual
    assert (filled.max_tokens, filled.top_p) == (9, 0.5)
    assert ESamp.sampler(config, Sampling(temperature=1.0)).temperature == 1.0
    assert ESamp.sampler(config, filled) == filled
    assert ESamp.sampler(ESampConfig(preset="paper"), Sampling()) == Sampling()


def test_explicit_options_win_over_a_preset() -> None:
    config = ESampConfig(preset="paper", beta=1.5, first_token=True)
    assert (config.distiller, config.beta, config.gate) == ("mlp", 1.5, False)
    assert ESamp.takes_first(config)
    assert not ESamp.takes_first(ESampConfig(preset="paper"))
