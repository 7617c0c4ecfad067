"""Limits on steering: a cap on each logit, a KL budget per token, an entropy floor, and the end tokens' probability."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from esamp.explorer import fusion
from support import contrast_reference
from support import esamp_reference as reference

INF = float("inf")


def logits(rows: int = 6, tokens: int = 9) -> tuple[Tensor, Tensor]:
    plain = 2 * torch.randn(rows, tokens)
    return plain, plain + torch.randn(rows, tokens) * torch.logspace(-2, 1, rows).unsqueeze(1)


def test_the_cap_equals_a_value_by_hand() -> None:
    plain, fused = torch.tensor([[0.0, 0.0, -INF]]), torch.tensor([[5.0, 1.0, 7.0]])
    capped = fusion.capped_logits(plain, fused, 1.0)
    assert capped[0, :2].tolist() == pytest.approx([math.tanh(2.0), -math.tanh(2.0)])
    assert capped[0, 2] == -INF


@pytest.mark.parametrize("cap", [0.1, 1.0, 30.0])
def test_no_logit_moves_by_more_than_the_cap(cap: float) -> None:
    plain, fused = logits()
    assert (fusion.capped_logits(plain, fused, cap) - plain).abs().max() <= cap * (1 + 1e-6)


def test_a_wide_cap_changes_no_distribution() -> None:
    plain, fused = logits()
    capped = fusion.capped_logits(plain, fused, 1e4)
    torch.testing.assert_close(capped.softmax(-1), fused.softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("budget", [0.003, 0.05, 0.5])
def test_a_budget_is_used_where_it_binds_and_never_exceeded(budget: float) -> None:
    plain, fused = logits()
    limited = fusion.limited_logits(plain, fused, budget)
    binding = 0
    for row in range(len(plain)):
        old, full, new = (x[row].double().numpy() for x in (plain, fused, limited))
        unlimited_kl = reference.kl(full, old)
        limited_kl = reference.kl(new, old)
        assert limited_kl <= budget * 1.001
        if unlimited_kl > budget:
            binding += 1
            assert limited_kl == pytest.approx(budget, rel=0.02)
        else:
            np.testing.assert_allclose(new, full, atol=1e-5)
    assert 0 < binding < len(plain)


def test_a_budget_moves_along_the_line_between_the_two_distributions() -> None:
    plain, fused = logits()
    share = (fusion.limited_logits(plain, fused, 0.05) - plain) / (fused - plain)
    torch.testing.assert_close(share, share[:, :1].expand_as(share), atol=1e-3, rtol=0)
    assert (share <= 1 + 1e-3).all()


def test_a_budget_keeps_ruled_out_tokens_out() -> None:
    plain, fused = logits()
    plain[:, 3] = -INF
    fused[:, 3] = -INF
    limited = fusion.limited_logits(plain, fused, 0.05)
    assert limited[:, 3].isneginf().all()
    assert limited[:, :3].isfinite().all()


def test_softening_equals_values_by_hand() -> None:
    plain, fused = torch.tensor([[0.0, 1.0], [0.0, 3.0]]), torch.tensor([[5.0, 2.0], [0.0, 1.0]])
    softened = fusion.softened_logits(plain, fused)
    torch.testing.assert_close(softened, torch.tensor([[5.0, 4.0], [0.0, 1.0]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 2.0, 20.0])
def test_entropy_falls_no_lower_than_the_models_own(scale: float) -> None:
    plain, fused = logits(rows=8)
    fused = scale * fused
    softened = fusion.softened_logits(plain, fused)
    binding = 0
    for row in range(len(plain)):
        old, full, new = (x[row].double().numpy() for x in (plain, fused, softened))
        np.testing.assert_allclose(new, contrast_reference.softened(old, full), atol=2e-3 * scale)
        assert (
            contrast_reference.entropy(new)
            >= min(contrast_reference.entropy(old), contrast_reference.entropy(full)) - 1e-3
        )
        binding += contrast_reference.entropy(full) < contrast_reference.entropy(old)
    assert scale < 2 or binding > 0


def test_softening_keeps_ruled_out_tokens_out_and_the_largest_logit_in_place() -> None:
    plain, fused = logits()
    plain[:, 3] = -INF
    fused = 10 * fused
    fused[:, 3] = -INF
    softened = fusion.softened_logits(plain, fused)
    assert softened[:, 3].isneginf().all()
    torch.testing.assert_close(softened.amax(-1), fused.amax(-1))
    assert (softened.argsort(-1)[:, -2:] == fused.argsort(-1)[:, -2:]).all()


@given(st.integers(0, 2**31), st.lists(st.integers(-1, 8), min_size=1, max_size=3))
def test_end_tokens_keep_their_probability_and_others_their_proportions(seed: int, stops: list[int]) -> None:
    torch.manual_seed(seed)
    plain, fused = logits(rows=2)
    kept = fusion.kept_ends(plain, fused, torch.tensor([stops, [-1] * len(stops)])).softmax(-1)
    ends = [z for z in set(stops) if z >= 0]
    others = [z for z in range(9) if z not in ends]
    torch.testing.assert_close(kept[0, ends], plain.softmax(-1)[0, ends], atol=1e-5, rtol=1e-4)
    expected = fused[0, others].softmax(-1) * (1 - plain.softmax(-1)[0, ends].sum())
    torch.testing.assert_close(kept[0, others], expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(kept[1], fused.softmax(-1)[1], atol=1e-5, rtol=1e-4)
