"""Stateless rivals: what they make of logits, held against numbers found by hand and against plain loops."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

from esamp.decoding.step import Rows
from esamp.engines.vllm.params import RequestOptions
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod, Draw, Filter, Method, ModelShape
from esamp.sampling import Sampling
from support import rivals_reference as reference
from support.rivals_reference import DROPPED, Change, Place, Row, kept
from support.step_rows import plain_rows

NEWLINE, END = 3, 4
SHAPE = ModelShape(8, {}, 2, torch.device("cpu"), vocabulary=6, line_breaks=lambda: (NEWLINE,))
STATELESS = ("top_n_sigma", "xtc", "fire", "entropy_adaptive")


def build(name: str, shape: ModelShape = SHAPE, **options: Any) -> Filter:
    part = registry.part(name)
    assert issubclass(part, Filter)
    return part.build(part.options(**options), shape)


def rows_at(places: Sequence[Place], stops: Sequence[Sequence[int]] | None = None) -> Rows:
    column = partial(torch.tensor, dtype=torch.int64)
    ends = [[END]] * len(places) if stops is None else stops
    return Rows(
        index=column([place.index for place in places]),
        count=column([0] * len(places)),
        position=column([place.position for place in places]),
        limit=column([100] * len(places)),
        seed=column([place.seed for place in places]),
        stops=column([[*end, *[-1] * (max(map(len, ends)) - len(end))] for end in ends]),
        temperature=torch.tensor([place.temperature for place in places]),
    )


def apply(each: Filter, logits: Sequence[Row], places: Sequence[Place] | None = None) -> Tensor:
    """What the filter makes of these logits, which it must leave as they are."""
    given_logits = torch.tensor(logits)
    before = given_logits.clone()
    new = each.apply(given_logits, rows_at(places or [Place()] * len(logits)))
    assert torch.equal(given_logits, before)
    assert new.dtype == before.dtype
    return new


def of(*probabilities: float) -> Row:
    return [math.log(p) if p else DROPPED for p in probabilities]


def probabilities(logits: Tensor) -> list[list[float]]:
    return logits.double().softmax(-1).tolist()


def close(expected: Sequence[float]) -> Any:
    return pytest.approx(list(expected), abs=1e-6)


# ---- by hand


def test_top_n_sigma_by_hand() -> None:
    # Mean 1/2, squares 3 * 1/4 + 9/4 = 3, over 4 - 1: the deviation is 1, exactly.
    row = [0.0, 0.0, 0.0, 2.0]
    assert kept(apply(build("top_n_sigma", n_sigma=1.9), [row])[0].tolist()) == {3}
    assert kept(apply(build("top_n_sigma", n_sigma=2.0), [row])[0].tolist()) == {0, 1, 2, 3}
    # -3, -1, 1, 3: squares 20 over 3; 3 - 1.6 * 2.582 = -1.13 and 3 - 1.5 * 2.582 = -0.87.
    assert kept(apply(build("top_n_sigma", n_sigma=1.6), [[-3.0, -1.0, 1.0, 3.0]])[0].tolist()) == {1, 2, 3}
    assert kept(apply(build("top_n_sigma", n_sigma=1.5), [[-3.0, -1.0, 1.0, 3.0]])[0].tolist()) == {2, 3}


def test_top_n_sigma_ignores_tokens_dropped_before() -> None:
    with_some_dropped = [DROPPED, 0.0, DROPPED, 0.0, 0.0, 2.0]
    assert kept(apply(build("top_n_sigma", n_sigma=1.9), [with_some_dropped])[0].tolist()) == {5}
    assert kept(apply(build("top_n_sigma", n_sigma=2.0), [with_some_dropped])[0].tolist()) == {1, 3, 4, 5}


def always(**options: Any) -> Filter:
    return build("xtc", xtc_probability=1.0, **options)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Three of at least 0.1: the two larger ones go, and 0.15 + 0.05 is what is left.
        ((0.5, 0.3, 0.15, 0, 0, 0.05), (0, 0, 0.75, 0, 0, 0.25)),
        ((0.05, 0.15, 0.3, 0, 0, 0.5), (0.25, 0.75, 0, 0, 0, 0)),
        # One of at least 0.1, or none: no choice.
        ((0.9, 0.05, 0.05, 0, 0, 0), (0.9, 0.05, 0.05, 0, 0, 0)),
        # The best would go, and it breaks a line or ends the sample: nothing does.
        ((0.2, 0.2, 0.05, 0.5, 0, 0.05), (0.2, 0.2, 0.05, 0.5, 0, 0.05)),
        ((0.2, 0.2, 0.05, 0, 0.5, 0.05), (0.2, 0.2, 0.05, 0, 0.5, 0.05)),
        # They may stay.
        ((0.5, 0.3, 0.05, 0.15, 0, 0), (0, 0, 0.25, 0.75, 0, 0)),
        ((0.5, 0.3, 0.05, 0, 0.15, 0), (0, 0, 0.25, 0, 0.75, 0)),
        # They are too unlikely to be top choices, and so in no danger.
        ((0.5, 0.35, 0, 0.08, 0.07, 0), (0, 0.7, 0, 0.16, 0.14, 0)),
        # Of two that are equally unlikely the first stays.
        ((0.6, 0.2, 0.2, 0, 0, 0), (0, 1, 0, 0, 0, 0)),
        ((1, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0)),
    ],
    ids=str,
)
def test_xtc_by_hand(before: Row, after: Row) -> None:
    assert probabilities(apply(always(), [of(*before)]))[0] == close(after)


def test_xtc_at_the_largest_threshold_takes_one_of_two_halves() -> None:
    assert probabilities(apply(always(xtc_threshold=0.5), [[0.0, DROPPED, 0.0]]))[0] == close([1, 0, 0])
    assert probabilities(apply(always(xtc_threshold=0.5), [of(0.6, 0.4)]))[0] == close([0.6, 0.4])


def test_stop_tokens_are_those_of_each_row() -> None:
    logits = torch.tensor([of(0.5, 0.3, 0.2)] * 4)
    stops = [[0], [1, 2], [2], [-1, 7]]
    after = always().apply(logits, rows_at([Place()] * 4, stops))
    assert [kept(row) for row in after.tolist()] == [{0, 1, 2}, {0, 1, 2}, {2}, {2}]


def test_line_break_tokens_beyond_the_vocabulary_are_ignored() -> None:
    shape = replace(SHAPE, line_breaks=lambda: (7, 900))
    assert kept(apply(always_in(shape), [of(0.5, 0.3, 0.2)])[0].tolist()) == {2}
    assert kept(apply(always_in(replace(SHAPE, line_breaks=lambda: ())), [of(0.5, 0.3, 0.2)])[0].tolist()) == {2}


def always_in(shape: ModelShape) -> Filter:
    return build("xtc", shape, xtc_probability=1.0)


def test_xtc_needs_a_tokenizer() -> None:
    with pytest.raises(OptionError, match="pass the model's tokenizer"):
        build("xtc", ModelShape(8, {}, 2, torch.device("cpu")))


def test_fire_by_hand() -> None:
    row = [0.0, 1.0, 2.0, 3.0]
    first, later, warm = Place(position=0), Place(position=1), Place(position=0, temperature=2.0)
    new = apply(build("fire", fire_temperature=4, fire_k=3), [row, row, row], [first, later, warm])
    assert new[0].tolist() == [DROPPED, 0.25, 0.5, 0.75]
    assert new[1].tolist() == row
    assert new[2].tolist() == [DROPPED, 0.5, 1.0, 1.5]
    # Behind the division by the row's own temperature both are drawn from the same distribution.
    hot = [0, *(math.exp(x / 4) for x in (1, 2, 3))]
    expected = close([x / sum(hot) for x in hot])
    assert probabilities(new[[0, 2]] / torch.tensor([[1.0], [2.0]])) == [expected, expected]


def test_fire_keeps_ties_and_accepts_small_vocabularies() -> None:
    fire = build("fire", fire_temperature=10, fire_k=2)
    assert kept(apply(fire, [[1.0, 1.0, 1.0, 0.0]], [Place(position=0)])[0].tolist()) == {0, 1, 2}
    assert kept(apply(fire, [[DROPPED, 1.0, DROPPED]], [Place(position=0)])[0].tolist()) == {1}
    assert apply(build("fire"), [[1.0, 0.0]], [Place(position=0)])[0].tolist() == close([1 / 30, 0])


def test_fire_keeps_the_best_token_of_a_greedy_row() -> None:
    new = apply(build("fire", fire_k=2), [[1.0, 3.0, 2.0]], [Place(position=0, temperature=0)])
    assert new[0].tolist() == [DROPPED, 3.0, 2.0]


def test_entropy_adaptive_by_hand() -> None:
    # V = 4, p = 1/2, 1/4, 1/8, 1/8, in bits over log2 V = 2.
    # H0 = 1. H1: 1/2 + 1/2 log2 6 = 1.7925 -> .8962. H2: 1/2 + 1/2 + 1/4 log2 8 = 1.75 -> .875. H3 = H4 = 1.75.
    row = of(0.125, 0.5, 0.125, 0.25)
    for gain, stay in ((0.2, {1}), (0.10, {1}), (0.03, {1}), (0.0212, {1, 3}), (0.001, {1, 3})):
        assert kept(apply(build("entropy_adaptive", entropy_gain=gain), [row])[0].tolist()) == stay, gain
    assert reference.contributions(row) == close([1 - 0.8962406, 0.8962406 - 0.875, 0, 0])


def test_entropy_adaptive_of_a_flat_distribution_is_its_first_token() -> None:
    assert kept(apply(build("entropy_adaptive"), [[0.5] * 9])[0].tolist()) == {0}


def test_entropy_adaptive_keeps_all_of_a_plateau() -> None:
    # The first of a plateau contributes less than its last: judged one by one, the likelier ones would go.
    plateau = [5.0] * 4 + [0.0] * 96
    gained = reference.contributions(plateau)
    assert gained[0] < gained[3]
    between = (gained[0] + gained[3]) / 2
    assert kept(apply(build("entropy_adaptive", entropy_gain=between), [plateau])[0].tolist()) == {0, 1, 2, 3}


# ---- against plain loops

EXACT = st.integers(-80, 80).map(lambda x: x / 8)
"""Numbers that float32 holds exactly, with many ties among them."""
TEMPERATURES = st.sampled_from([0.25, 0.7, 1.0, 1.6, 3.0])


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Row], list[Place]]:
    """Rows of logits with at least one token each, and where they stand."""
    size, count = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    scale = draw(st.sampled_from([2.0**-10, 1.0, 2.0**10]))
    row = st.lists(st.one_of(EXACT, st.just(DROPPED)), min_size=size, max_size=size).filter(kept)
    place = st.builds(
        Place,
        position=st.integers(0, 2),
        index=st.integers(0, 5),
        seed=st.integers(0, 2**62),
        temperature=TEMPERATURES,
        protected=st.just(frozenset({NEWLINE, END})),
    )
    rows = [[x * scale for x in draw(row)] for _ in range(count)]
    return rows, [draw(place) for _ in rows]


def agrees(each: Filter, change: Change, rows: Sequence[Row], places: Sequence[Place]) -> Tensor:
    """The filter's logits, which must be those of the loops."""
    new = apply(each, rows, places)
    expected = [change(row, place) for row, place in zip(rows, places, strict=True)]
    torch.testing.assert_close(new, torch.tensor(expected), rtol=1e-6, atol=0)
    assert all(kept(row) for row in new.tolist())
    return new


def keep_their_best(rows: Sequence[Row], new: Tensor) -> bool:
    """Whether every row still has its largest logit."""
    return torch.tensor(rows).amax(-1).tolist() == new.amax(-1).tolist()


@pytest.mark.slow
@given(batches(), st.sampled_from([0.1, 0.5, 1.0, 1.7, 4.0]))
def test_top_n_sigma_agrees_with_its_definition(batch: tuple[list[Row], list[Place]], n: float) -> None:
    rows, places = batch
    assume(
        all(abs(x - reference.sigma_threshold(row, n)) > 1e-5 * abs(x) or x == max(row) for row in rows for x in row)
    )
    assert keep_their_best(rows, agrees(build("top_n_sigma", n_sigma=n), reference.top_n_sigma(n), rows, places))


@given(batches(), st.sampled_from([0.5, 1.0, 2.0]), st.integers(-8, 8))
def test_the_set_kept_by_top_n_sigma_does_not_depend_on_temperature(
    batch: tuple[list[Row], list[Place]], n: float, power: int
) -> None:
    rows, places = batch
    warmer = [[x / 2.0**power for x in row] for row in rows]
    each = build("top_n_sigma", n_sigma=n)
    assert torch.equal(apply(each, rows, places).isinf(), apply(each, warmer, places).isinf())


@given(batches(), st.sampled_from([0.02, 0.1, 0.3, 0.5]), st.sampled_from([0.0, 0.4, 1.0]))
def test_xtc_agrees_with_its_definition(
    batch: tuple[list[Row], list[Place]], threshold: float, probability: float
) -> None:
    rows, places = batch
    assume(all(abs(p - threshold) > 1e-6 for row in rows for p in reference.softmax(row)))
    each, change = build("xtc", xtc_threshold=threshold, xtc_probability=probability), reference.xtc
    new = agrees(each, change(probability, threshold), rows, places)
    for row, after, place in zip(rows, new.tolist(), places, strict=True):
        shares = reference.softmax(row)
        gone = kept(row) - kept(after)
        assert not gone & {NEWLINE, END}
        assert all(shares[token] >= threshold for token in gone)
        if gone:  # one viable choice stays, the best does not
            assert probability > reference.coin(place, 1)
            assert sum(shares[token] >= threshold for token in kept(after)) == 1
            assert max(shares) > max(shares[token] for token in kept(after)) or shares.count(max(shares)) > 1


@given(batches(), st.sampled_from([5.0, 30.0, 500.0]), st.integers(2, 14))
def test_fire_agrees_with_its_definition(batch: tuple[list[Row], list[Place]], hot: float, k: int) -> None:
    rows, places = batch
    new = agrees(build("fire", fire_temperature=hot, fire_k=k), reference.fire(hot, k), rows, places)
    for row, after, place in zip(rows, new.tolist(), places, strict=True):
        assert after == row if place.position else len(kept(after)) >= min(k, len(kept(row)))
        assert kept(after) <= kept(row)


@given(batches(), st.sampled_from([0.0005, 0.001, 0.01, 0.1]))
@example(([[0.0]], [Place()]), 0.001)
def test_entropy_adaptive_agrees_with_its_definition(batch: tuple[list[Row], list[Place]], gain: float) -> None:
    rows, places = batch
    if len(rows[0]) > 1:
        assume(all(abs(gained - gain) > 1e-6 for row in rows for gained in reference.contributions(row)))
        new = agrees(build("entropy_adaptive", entropy_gain=gain), reference.entropy_adaptive(gain), rows, places)
        assert keep_their_best(rows, new)
    else:
        assert apply(build("entropy_adaptive", entropy_gain=gain), rows, places).tolist() == rows


def test_contributions_are_not_negative() -> None:
    for seed in range(20):
        logits = torch.randn(50, generator=torch.Generator().manual_seed(seed)) * seed
        assert min(reference.contributions(logits.tolist())) > -1e-12


# ---- coins


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 0.9, 1.0], ids=str)
def test_xtc_acts_with_its_probability(probability: float) -> None:
    places = [Place(position, index, seed) for position in range(40) for index in range(20) for seed in range(10)]
    each = build("xtc", xtc_probability=probability)
    acted = apply(each, [of(0.5, 0.3, 0.2)] * len(places), places).isinf().any(-1)
    frequency = acted.double().mean().item()
    assert abs(frequency - probability) <= 4 * math.sqrt(probability * (1 - probability) / len(places))
    if 0 < probability < 1:  # neither neighbours in a text nor samples of a group nor groups share a coin
        grid = acted.reshape(40, 20, 10)
        assert all((grid.roll(1, axis) == grid).double().mean() < 0.99 for axis in range(3))


def test_the_random_number_of_a_row_does_not_depend_on_the_batch() -> None:
    places = [Place(position, index, seed=9) for position in range(8) for index in range(8)]
    each, row = build("xtc"), of(0.5, 0.3, 0.2)
    together = apply(each, [row] * len(places), places)
    assert all(torch.equal(apply(each, [row], [place])[0], new) for place, new in zip(places, together, strict=True))


# ---- what all of them have in common


@pytest.mark.parametrize("name", STATELESS)
def test_rows_do_not_depend_on_each_other(name: str) -> None:
    logits = torch.randn(6, 40) * 4
    places = [Place(position=row % 2, index=row, seed=row, temperature=0.5 + row) for row in range(6)]
    each = build(name)
    together = each.apply(logits, rows_at(places))
    for row, place in enumerate(places):
        alone = each.apply(logits[row : row + 1], rows_at([place]))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-6, atol=0)
    assert not torch.equal(together, logits)


@pytest.mark.parametrize("name", ["top_n_sigma", "fire"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_early_filters_accept_the_model_s_precision(name: str, dtype: torch.dtype) -> None:
    logits = (torch.randn(3, 50) * 3).to(dtype)
    rows = plain_rows(3, position=0)
    each = build(name)
    new, exact = each.apply(logits, rows), each.apply(logits.float(), rows)
    assert new.dtype == dtype
    assert torch.equal(new.isinf(), exact.isinf())
    torch.testing.assert_close(new.float(), exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", STATELESS)
@pytest.mark.parametrize("size", [1, 2, 70_000], ids=str)
def test_vocabularies_of_any_size(name: str, size: int) -> None:
    logits = torch.randn(2, size)
    new = build(name).apply(logits, plain_rows(2, position=0))
    assert new.isfinite().any(-1).all()


@pytest.mark.parametrize("name", STATELESS)
def test_a_non_finite_row_does_not_affect_other_rows(name: str) -> None:
    logits = torch.randn(3, 9)
    logits[1] = math.nan
    each, rows = build(name), plain_rows(3, position=0)
    healthy = each.apply(logits.nan_to_num(), rows)
    assert torch.equal(each.apply(logits, rows)[[0, 2]], healthy[[0, 2]])


@pytest.mark.gpu
@pytest.mark.parametrize("name", STATELESS)
def test_no_filter_synchronises_with_the_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    logits, rows = torch.randn(8, 5000) * 4, plain_rows(8, position=0)
    expected = build(name).apply(logits, rows)
    each = build(name, replace(SHAPE, device=torch.device("cuda")))
    there = Rows(*(getattr(rows, field).cuda() for field in Rows.__dataclass_fields__))
    on_gpu = logits.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        new = each.apply(on_gpu, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(new.cpu(), expected, rtol=1e-5, atol=1e-6)


# ---- settings


def told(name: str, sampling: Sampling | None = None, **options: Any) -> Sampling:
    """What the method makes of the request's settings; doing it twice changes nothing more."""
    method = registry.get(name)
    once = method.sampler(method.options(**options), sampling or Sampling())
    assert method.sampler(method.options(**options), once) == once
    return once


def test_min_p_sets_the_engine_s_min_p() -> None:
    assert told("min_p") == Sampling(min_p=0.1)
    assert told("min_p", Sampling(temperature=0.7, min_p=0.3), p_base=0.3) == Sampling(temperature=0.7, min_p=0.3)
    assert told("min_p", Sampling(temperature=0), p_base=0.3).min_p == 0.3
    with pytest.raises(OptionError, match=r"min_p = 0.2 and p_base = 0.1 .* leave min_p out"):
        told("min_p", Sampling(min_p=0.2))


def test_penalties_set_the_engine_s_penalties() -> None:
    assert told("penalties") == Sampling(presence_penalty=0.5)
    all_three = dict(penalty_presence=-1.0, penalty_frequency=0.25, penalty_repetition=1.3)
    expected = Sampling(presence_penalty=-1.0, frequency_penalty=0.25, repetition_penalty=1.3, top_k=5)
    assert told("penalties", Sampling(top_k=5), **all_three) == expected
    assert told("penalties", Sampling(repetition_penalty=1.05)) == Sampling(
        repetition_penalty=1.05, presence_penalty=0.5
    )
    assert told("penalties", Sampling(presence_penalty=0.7), penalty_presence=0.0).presence_penalty == 0.7
    for kind, value in (("presence", 0.7), ("frequency", 0.1), ("repetition", 1.2)):
        with pytest.raises(OptionError, match=rf"{kind}_penalty = {value} .* leave {kind}_penalty out"):
            told("penalties", Sampling(**{f"{kind}_penalty": value}), **all_three)


@pytest.mark.parametrize("name", ["top_n_sigma", "entropy_adaptive", "vanilla"])
def test_other_filters_do_not_change_the_settings(name: str) -> None:
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(temperature=2.5, top_k=3, min_p=0.2)):
        assert told(name, sampling) == sampling


REFUSED: Mapping[str, tuple[str, Sampling, dict[str, Any], str]] = {
    "greedy xtc": ("xtc", Sampling(temperature=0), {}, "temperature above 0"),
    "greedy fire": ("fire", Sampling(temperature=0), {}, "above 0"),
    "fire no hotter": ("fire", Sampling(temperature=30), {}, "is not above"),
    "lukewarm fire": ("fire", Sampling(temperature=1.5), dict(fire_temperature=1.2), "fire_temperature = 1.2"),
    "greedy esamp with fire": ("esamp+fire", Sampling(temperature=0), {}, "above 0"),
    "two thresholds": ("esamp+min_p", Sampling(min_p=0.5), {}, "two values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradicting_settings_are_refused(case: str) -> None:
    name, sampling, options, message = REFUSED[case]
    with pytest.raises(OptionError, match=message):
        told(name, sampling, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("min_p", dict(p_base=0)),
        ("min_p", dict(p_base=1.1)),
        ("penalties", dict(penalty_presence=2.1)),
        ("penalties", dict(penalty_repetition=0)),
        ("top_n_sigma", dict(n_sigma=0)),
        ("xtc", dict(xtc_probability=1.5)),
        ("xtc", dict(xtc_threshold=0)),
        ("xtc", dict(xtc_threshold=0.51)),
        ("fire", dict(fire_k=1)),
        ("fire", dict(fire_temperature=0)),
        ("entropy_adaptive", dict(entropy_gain=0)),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"option '{next(iter(options))}'"):
        registry.get(name).options(**options)


COMBINE = sorted(
    name
    for name, method in registry.available().items()
    if issubclass(method, DecodeMethod | Filter | Draw) or method.kind == Method.kind
)


@pytest.mark.parametrize("name", COMBINE)
def test_option_names_differ_from_those_of_requests(name: str) -> None:
    own = set(registry.part(name).options.model_fields)
    assert not own & set(Sampling.model_fields)
    assert not own & set(RequestOptions.model_fields)


@pytest.mark.slow
def test_methods_that_combine_have_options_of_different_names() -> None:
    for one, other in combinations(COMBINE, 2):
        try:
            registry.get(f"{one}+{other}")
        except OptionError as error:
            assert "both have an option" not in str(error)


@pytest.mark.parametrize("name", ["vanilla", "min_p", "penalties", *STATELESS])
def test_every_rival_has_a_summary_a_citation_and_described_options(name: str) -> None:
    method = registry.part(name)
    assert method.name == name
    assert method.summary
    assert method.citation
    assert method.__doc__
    for field in method.options.model_fields.values():
        assert field.description
