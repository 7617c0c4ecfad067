"""Fusion and candidate rules against the paper's formulas, token by token."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from esamp.decoding.logits import keeps_tokens, rescore_survivors, sound_rows
from esamp.explorer import fusion
from support import esamp_reference as reference

R, D, V = 5, 6, 11
STEERED = torch.tensor([True, False, True, True, False])


def head() -> Tensor:
    return torch.randn(V, D, dtype=torch.float64)


def states() -> tuple[Tensor, Tensor, Tensor]:
    """hL, y and a confidence per row."""
    final, predicted = torch.randn(2, R, D, dtype=torch.float64)
    return final, predicted, torch.rand(R, 1, dtype=torch.float64)


def same_bits(found: Tensor, expected: Tensor) -> bool:
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[found.element_size()]
    return torch.equal(found.view(kind), expected.view(kind))


@pytest.mark.parametrize("beta", [0.1, 0.25, 0.5, 4.0])
def test_mixing_states_is_the_papers_formula(beta: float) -> None:
    W, (final, predicted, _) = head(), states()
    moved = fusion.mixed_states(final, beta * (final - predicted), STEERED)
    for row in range(R):
        expected = W.numpy() @ final[row].numpy()
        if STEERED[row]:
            expected = reference.fused_logits(lambda h: W.numpy() @ h, final[row].numpy(), predicted[row].numpy(), beta)
        np.testing.assert_allclose(W.numpy() @ moved[row].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.25, 0.5, 4.0])
@pytest.mark.parametrize("gated", [False, True])
def test_a_capped_head_mixes_its_own_logits(beta: float, gated: bool) -> None:
    W, (final, predicted, confidence) = head().numpy(), states()

    def capped(h: reference.Vector) -> reference.Vector:
        return 3.0 * np.tanh(W @ h / 3.0)

    error = (confidence if gated else 1.0) * (final - predicted)
    counter = fusion.counter_states(final, beta * error, STEERED, beta)
    logits = [torch.tensor(np.stack([capped(h) for h in part.numpy()])) for part in (final, counter)]
    fused = fusion.mixed_logits(logits[0], logits[1], beta)
    assert fused.dtype == torch.float32
    for row in range(R):
        expected = capped(final[row].numpy())
        if STEERED[row]:  # a gated error is that of the prediction hL - c (hL - y); others are their own counter
            expected = reference.fused_logits(capped, final[row].numpy(), (final - error)[row].numpy(), beta)
        np.testing.assert_allclose(fused[row].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rows_that_are_not_steered_keep_their_bits(dtype: torch.dtype) -> None:
    final, delta = torch.randn(R, D).to(dtype), torch.randn(R, D)
    final[1, 0], delta[1, 1], final[4, 2], delta[4, 0] = torch.nan, torch.nan, -0.0, torch.inf
    moved = fusion.mixed_states(final, delta, STEERED)
    assert moved.dtype == dtype
    assert same_bits(moved[~STEERED], final[~STEERED])
    torch.testing.assert_close(moved[STEERED], (final.to(delta.dtype) + delta).to(dtype)[STEERED])


def test_tokens_that_the_head_rules_out_stay_out() -> None:
    reference_logits, counter = torch.randn(2, R, V)
    reference_logits[:, 3], counter[:, 3] = -torch.inf, -torch.inf
    fused = fusion.mixed_logits(reference_logits, counter, 0.5)
    assert fused[:, 3].isneginf().all()
    assert fused[:, :3].isfinite().all()
    torch.testing.assert_close(fused[0, 0], 1.5 * reference_logits[0, 0] - 0.5 * counter[0, 0])


def test_rows_without_a_number_to_sample_from_are_not_sound() -> None:
    nan, inf = torch.nan, torch.inf
    rows = torch.tensor([[1.0, -inf, 2.0], [1.0, nan, 2.0], [1.0, inf, 2.0], [-inf, -inf, -inf], [-9.0, -8.0, -7.0]])
    assert sound_rows(rows).tolist() == [True, False, False, False, True]
    plain = torch.tensor([[1.0, -inf, 2.0], [1.0, 0.0, 2.0]])
    assert keeps_tokens(plain, torch.tensor([[1.0, -inf, 2.0], [1.0, -inf, 2.0]])).tolist() == [True, False]


@pytest.mark.parametrize("strength", [None, torch.rand(R, 1, dtype=torch.float64)], ids=["ungated", "gated"])
def test_tilting_by_the_error_is_mixing_by_its_multiple(strength: Tensor | None) -> None:
    final, predicted, _ = states()
    scaled = (final - predicted) if strength is None else strength * (final - predicted)
    expected = fusion.mixed_states(final, 0.7 * scaled, torch.ones(R, dtype=torch.bool))
    torch.testing.assert_close(fusion.tilted_states(final, final - predicted, strength, 0.7), expected)


def filtered(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    result = torch.full_like(logits, -torch.inf)
    for row in range(len(logits)):
        keep = reference.survivors(logits[row].numpy(), temperature, top_k, top_p, min_p)
        result[row, keep] = logits[row, keep] / temperature
    return result


@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    beta=st.sampled_from([0.0, 0.5, 16.0]),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, V),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
)
def test_candidate_rules(
    seed: int, scale: float, beta: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    """Never empty, the reference's argmax kept, survivors those of the reference, with the odds of the fused logits."""
    random = torch.Generator().manual_seed(seed)
    plain, error = torch.randn(2, 2, V, generator=random, dtype=torch.float64) * scale
    fused = plain + beta * error
    settings = (temperature, top_k, top_p, min_p)
    found = rescore_survivors(filtered(plain, *settings), fused - plain, temperature)
    on_fused = filtered(fused, *settings)
    for row in range(2):
        alive = found[row].isfinite()
        assert alive.nonzero().flatten().tolist() == sorted(reference.survivors(plain[row].numpy(), *settings))
        assert alive[plain[row].argmax()]
        for rule, logits in (("reference", found[row]), ("fused", on_fused[row])):
            expected = reference.candidate_distribution(rule, plain[row].numpy(), fused[row].numpy(), *settings)
            np.testing.assert_allclose(logits.softmax(-1).numpy(), expected, atol=1e-9)
            assert math.isclose(expected.sum(), 1)


def test_rescoring_keeps_biases_and_rules_out_what_was_ruled_out() -> None:
    """A processor's +2 on token 1 survives; a NaN change of a dropped token does no harm; dtype is kept."""
    plain = torch.tensor([[1.0, 0.0, -1.0]])
    scores = torch.tensor([[1.0 / 0.5, (0.0 + 2.0) / 0.5, -torch.inf]])
    found = rescore_survivors(scores, torch.tensor([[0.5, -0.25, torch.nan]]), 0.5)
    assert found.tolist() == [[3.0, 3.5, -torch.inf]]
    assert rescore_survivors(scores.bfloat16(), plain, 1.0).dtype == torch.bfloat16
