"""Arithmetic sampling: codes by hand and by exact fractions, each sample unbiased, all of them stratified, no end."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from esamp.decoding.randomness import per_group, uniform
from esamp.engines.base import Request
from esamp.engines.hf import HFEngine
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.draws.arithmetic import Arithmetic, ArithmeticOptions, first_codes, van_der_corput
from esamp.sampling import Sampling
from support.draw_simulation import (
    SHAPE,
    Row,
    Text,
    advance,
    again,
    describe,
    finish,
    fixed,
    log_odds,
    number,
    random_model,
    step_of,
    table,
)

TREE = table(
    {
        (): (0.5, 0.3, 0.2),
        (0,): (0.1, 0.6, 0.3),
        (1,): (0.25, 0.25, 0.5),
        (2,): (0.0, 0.7, 0.3),
    }
)


def arithmetic(slots: int = 1, **options: Any) -> Arithmetic:
    return Arithmetic.build(ArithmeticOptions(**options), SHAPE, slots=slots)


def samples(count: int, seed: int = 0, slot: int = 0, **more: Any) -> list[Row]:
    return [Row(slot, index, seed=seed, count=count, **more) for index in range(count)]


def shift(seed: int) -> float:
    return float(uniform(torch.tensor([seed]), 2))


def exact(model: Any, code: Fraction, length: int) -> Text:
    """The text that an exact code is the address of."""
    tokens: list[int] = []
    for _ in range(length):
        weights = [Fraction(p) for p in model(tuple(tokens))]
        low, x = Fraction(0), code * sum(weights)
        for token, weight in enumerate(weights):  # noqa: B007
            if x < low + weight:
                break
            low += weight
        code = (x - low) / weight
        tokens.append(token)
    return tuple(tokens)


# ---- codes


def test_the_first_codes_are_spaced_evenly() -> None:
    rows = describe(samples(4, seed=7, model=TREE))
    u = shift(7)
    assert per_group(rows, 2).tolist() == [u] * 4
    assert first_codes(rows).tolist() == pytest.approx([(i / 4 + u) % 1 for i in range(4)])


def test_with_an_unknown_count_contiguous_codes_are_evenly_spread() -> None:
    rows = [Row(0, index, TREE, seed=7) for index in range(8)]
    u = shift(7)
    wanted = [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]
    assert van_der_corput(torch.arange(8)).tolist() == wanted
    assert first_codes(describe(rows)).tolist() == pytest.approx([(c + u) % 1 for c in wanted])
    assert van_der_corput(torch.tensor([2**31, 2**32 - 1, 2**32])).tolist() == [2**-32, 1 - 2**-32, 0]


def test_samples_beyond_the_count_lie_between_the_others() -> None:
    rows = [Row(0, index, TREE, seed=7, count=2) for index in range(8)]
    codes = (first_codes(describe(rows)) - shift(7)) % 1
    assert codes.tolist() == pytest.approx([0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8])


def test_texts_by_hand() -> None:
    """The code .12 is in 0's [0, .5) and then, as .24, in 1's [.1, .7).

    .37 -> 0, .74 -> 2; .62 is in 1's [.5, .8), .4 -> 1; .87 is in 2's [.8, 1), .35 -> 1.
    """
    seed = next(seed for seed in range(10_000) if abs(shift(seed) - 0.12) < 1e-3)
    assert finish(arithmetic(), samples(4, seed, model=TREE, limit=2)) == [(0, 1), (0, 2), (1, 1), (2, 1)]


@pytest.mark.parametrize("count", [1, 5, 16, 0])
def test_texts_agree_with_exact_codes(count: int) -> None:
    """As long as a float64 code would do: 14 tokens of some 1.5 bits."""
    model = random_model(count, 4)
    rows = [Row(0, index, model, seed=count + 3, count=count, limit=14) for index in range(count or 6)]
    for code, text in zip(first_codes(describe(rows)).tolist(), finish(arithmetic(), rows), strict=True):
        assert text == exact(model, Fraction(code), 14)


# ---- what the samples are


def test_every_sample_has_the_models_distribution() -> None:
    """Sample 2 of 5, over 4000 seeds: 9 texts of two tokens, and the same with a count that nobody told."""
    groups = 4000
    texts = [*product(range(3), repeat=2)]
    expected = torch.tensor([TREE(())[a] * TREE((a,))[b] * groups for a, b in texts])
    possible = expected > 0
    for count in (5, 0):
        rows = [Row(seed, 2, TREE, seed=seed, count=count, limit=2) for seed in range(groups)]
        seen = Counter(finish(arithmetic(groups), rows))
        observed = torch.tensor([seen[text] for text in texts])
        assert observed[~possible].sum() == 0
        assert chisquare(observed[possible], expected[possible].double()).pvalue > 0.01


def test_any_prefix_has_its_share_of_the_samples() -> None:
    """floor(n P) or ceil(n P) of n samples begin with a prefix of probability P, at every depth."""
    for seed in range(12):
        n, model = 7 + 11 * seed, random_model(seed, 3)
        texts = finish(arithmetic(), samples(n, seed, model=model, limit=3))
        for depth in (1, 2, 3):
            for prefix in product(range(3), repeat=depth):
                share = 1.0
                for position, token in enumerate(prefix):
                    share *= model(prefix[:position])[token]
                count = sum(text[:depth] == prefix for text in texts)
                assert count in (floor(n * share), floor(n * share) + 1)


def test_estimates_vary_less_than_those_of_independent_samples() -> None:
    """The share of token 0 among n = 16 samples has variance p (1 - p) / n if they are independent."""
    groups, n, p = 300, 16, 0.41
    rows = [row for seed in range(groups) for row in samples(n, seed, seed, model=fixed(p, 1 - p), limit=1)]
    zeros = torch.tensor([text[0] == 0 for text in finish(arithmetic(groups), rows)]).view(groups, n)
    shares = zeros.double().mean(1)
    assert shares.mean().item() == pytest.approx(p, abs=0.01)
    assert shares.var().item() < 0.1 * p * (1 - p) / n
    one = zeros[:, 3].double()
    assert one.mean().item() == pytest.approx(p, abs=0.08)


def test_a_sample_of_thousands_of_tokens_has_the_same_distribution_at_its_end() -> None:
    """Tokens 1000 to 2200 of 48 samples, 3 of them of one prompt: single tokens, and pairs of neighbours.

    Each token uses up two whole bits of a code, without any rounding: after 27 tokens nothing but fresh bits is left.
    """
    p = torch.full((4,), 0.25)
    logits = torch.zeros(48, 4)
    draw = arithmetic(16)
    rows = [row for seed in range(16) for row in samples(3, seed, seed, model=fixed(*p.tolist()))]
    late, start = [], step_of(rows)
    for position in range(2200):
        step = replace(start, rows=replace(start.rows, position=torch.full((48,), position)))
        tokens = draw.choose(logits, step)
        draw.observe(step, tokens, step.live)
        if position >= 1000:
            late.append(tokens)
    tokens = torch.stack(late, 1)
    singles = tokens.flatten().bincount(minlength=4)
    assert chisquare(singles, p.double() / p.double().sum() * singles.sum()).pvalue > 0.01
    pairs = (4 * tokens[:, ::2] + tokens[:, 1::2]).flatten().bincount(minlength=16)
    chances = torch.outer(p, p).flatten().double()
    assert chisquare(pairs, chances / chances.sum() * pairs.sum()).pvalue > 0.01
    assert len({tuple(row) for row in tokens.tolist()}) == 48
    agreement = (tokens[0] == tokens[1]).double().mean().item()  # long past their common prefix: like strangers
    assert agreement == pytest.approx(p.square().sum().item(), abs=0.05)


def test_certain_tokens_use_no_bits_of_a_code() -> None:
    """A thousand tokens without a choice lie between two with one: codes drift by their last bits at most."""
    choice, none = (0.4, 0.35, 0.25), (0.0, 1.0, 0.0)
    short = finish(arithmetic(), samples(9, 3, model=fixed(*choice), limit=4))
    long = finish(
        arithmetic(),
        samples(9, 3, model=lambda tokens: none if 2 <= len(tokens) < 302 else choice, limit=304),
    )
    assert [(*text[:2], *text[302:]) for text in long] == short
    assert all(set(text[2:302]) == {1} for text in long)


def test_tokens_without_probability_are_never_drawn() -> None:
    rows = [Row(seed, 0, fixed(0.0, 0.2, 0.0, 0.8, 0.0), seed=seed, limit=3) for seed in range(500)]
    assert {token for text in finish(arithmetic(500), rows) for token in text} == {1, 3}


def test_with_one_token_left_by_a_filter_that_token_is_drawn() -> None:
    rows = samples(5, model=fixed(0.0, 1.0), limit=4)
    assert finish(arithmetic(), rows) == [(1, 1, 1, 1)] * 5


# ---- tokens that are others than those chosen


def test_after_a_forced_token_codes_are_still_uniform() -> None:
    """What is left of a code is independent of what it chose: a token that replaces only choices of 0 harms nothing."""
    groups, p = 4000, (0.5, 0.3, 0.2)
    draw, rows = arithmetic(groups), [Row(seed, 0, fixed(*p), seed=seed, limit=2) for seed in range(groups)]
    twins = [again(row) for row in rows]
    finish(arithmetic(groups), twins)
    for row, twin in zip(rows, twins, strict=True):
        row.forced = {0: 2 if twin.tokens[0] == 0 else twin.tokens[0]}
    finish(draw, rows)
    seen = torch.tensor([row.tokens[1] for row in rows if row.tokens[0] == 2]).bincount()
    assert chisquare(seen, torch.tensor(p).double() / sum(p) * seen.sum()).pvalue > 0.01


def test_forced_samples_stay_stratified() -> None:
    """Eight of 16 codes chose token 0; all are given token 1: the rest of their codes is evenly spaced as before."""
    rows = samples(16, 5, model=fixed(0.5, 0.5), limit=3, forced={0: 1})
    finish(arithmetic(), rows)
    after = Counter((row.chosen[0], *row.tokens[1:]) for row in rows)
    assert set(after.values()) == {2}
    assert len(after) == 8


# ---- groups, batches, slots


def test_results_do_not_depend_on_groups_and_batches() -> None:
    """Three prompts side by side, rows in any order and one left out now and then, say what each says alone."""
    models = [random_model(seed, 5) for seed in range(3)]
    alone = [finish(arithmetic(), samples(4, seed + 20, model=models[seed], limit=8)) for seed in range(3)]
    rows = [row for seed in range(3) for row in samples(4, seed + 20, seed, model=models[seed], limit=8)]
    shuffled = [rows[place] for place in torch.randperm(12).tolist()]
    draw = arithmetic(3)
    while not all(row.ended for row in rows):
        advance(draw, shuffled, [bool(move) for move in torch.rand(12) < 0.7])
    assert [[tuple(row.tokens) for row in rows[4 * seed : 4 * seed + 4]] for seed in range(3)] == alone


def test_rows_may_join_and_leave_the_batch() -> None:
    wanted = finish(arithmetic(), samples(4, 1, model=TREE, limit=2))
    draw, rows = arithmetic(), samples(4, 1, model=TREE, limit=2)
    advance(draw, rows[:1])
    advance(draw, [rows[3], rows[0], rows[2]])
    advance(draw, rows[1:])
    advance(draw, [rows[1]])
    assert [tuple(row.tokens) for row in rows] == wanted


def test_slots_are_cleared_and_grow() -> None:
    draw = arithmetic()
    rows = samples(3, 1, model=TREE, limit=2)
    advance(draw, rows)
    draw.grow(4)
    more = samples(3, 2, 3, model=TREE, limit=2)
    assert finish(draw, [*rows, *more])[:3] == finish(arithmetic(), samples(3, 1, model=TREE, limit=2))
    draw.clear(0)
    p = fixed(*[0.01] * 100)
    late = Row(0, 0, p, seed=1, count=3, limit=3, tokens=[0, 0])
    fresh = number(2, late, 2, 1)  # the code is gone with the slot
    advance(draw, [late])
    assert late.tokens[2:] == [*exact(p, Fraction(fresh), 1)]
    assert late.tokens[2:] != [*exact(p, Fraction(left_of(1, 0, 2)), 1)]


def left_of(seed: int, index: int, length: int) -> float:
    """What is left of a code of three behind so many tokens of TREE."""
    code, tokens = (index / 3 + shift(seed)) % 1, ()
    for _ in range(length):
        p = TREE(tokens)
        [token] = exact(fixed(*p), Fraction(code), 1)
        code, tokens = (code - sum(p[:token])) / p[token], (*tokens, token)
    return code


def test_rows_without_a_slot_are_ordinary_samples() -> None:
    groups = 3000
    rows = [Row(None, 0, fixed(0.7, 0.3), seed=seed, limit=2) for seed in range(groups)]
    seen = Counter(finish(arithmetic(), rows))
    wanted = [0.49 * groups, 0.21 * groups, 0.21 * groups, 0.09 * groups]
    assert chisquare([seen[text] for text in product(range(2), repeat=2)], wanted).pvalue > 0.01


def test_more_samples_than_places_are_still_ordinary_samples() -> None:
    """Indices 0 and 2 have one place: the later one keeps its code, the other one goes on with fresh ones."""
    draw, model = arithmetic(codes_kept=2), random_model(0, 4)
    wanted = finish(arithmetic(), samples(3, 4, model=model, limit=8))
    rows = samples(3, 4, model=model, limit=8)
    advance(draw, rows[:2])
    finish(draw, rows)
    assert [tuple(row.tokens) for row in rows[1:]] == wanted[1:]
    groups = 3000
    pairs = [Row(seed, index, fixed(0.7, 0.3), seed, 4, 2) for seed in range(groups) for index in (0, 2)]
    for which in (0, 1):
        seen = Counter(finish(arithmetic(groups, codes_kept=2), [again(row) for row in pairs])[which::2])
        counts = [seen[text] for text in product(range(2), repeat=2)]
        assert chisquare(counts, [0.49 * groups, 0.21 * groups, 0.21 * groups, 0.09 * groups]).pvalue > 0.01


def test_size_is_what_is_allocated() -> None:
    options = ArithmeticOptions(codes_kept=100)
    draw = Arithmetic.build(options, SHAPE, slots=3)
    assert draw.nbytes == Arithmetic.size(options, SHAPE, slots=3) == 16 * 3 * 101
    draw.grow(5)
    assert draw.nbytes == Arithmetic.size(options, SHAPE, slots=5)


def test_greedy_decoding_is_refused() -> None:
    with pytest.raises(OptionError, match="temperature = 0 leaves no choice"):
        Arithmetic.sampler(ArithmeticOptions(), Sampling(temperature=0))
    kept = Sampling(temperature=0.5, stop=("a",))
    assert Arithmetic.sampler(ArithmeticOptions(), kept) is kept


def test_choosing_and_observing_do_not_modify_the_logits() -> None:
    draw, rows = arithmetic(), samples(3, model=TREE, limit=2)
    logits = log_odds(rows)
    before = logits.clone()
    draw.choose(logits, step_of(rows))
    assert torch.equal(logits, before)


# ---- through the engine

PROMPT = "Numbers 3 5 8 9 target 24"
WARM = Sampling(max_tokens=10, temperature=0.9, top_k=20)


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load()


def asked(name: str, **changes: Any) -> Request:
    options = changes.pop("options", {})
    settings = dict(n=6, sampling=WARM, method=name, options=registry.get(name).options(**options)) | changes
    return Request(settings.pop("id", "r"), settings.pop("prompt", PROMPT), **settings)


def drawn_texts(engine: HFEngine, *requests: Request) -> list[list[Text]]:
    return [[sample.token_ids for sample in done.samples] for done in engine.generate(requests)]


def filtered(engine: HFEngine, prompt: str, text: Text, sampling: Sampling) -> torch.Tensor:
    """`[T, V]` float64: the final distributions of a text's tokens, from one pass over the whole of it."""
    ids = engine.tokenizer(prompt)["input_ids"]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([[*ids, *text]])).logits[0, len(ids) - 1 : -1].double()
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    return logits.softmax(-1)


def test_the_engines_texts_agree_with_exact_codes(engine: HFEngine) -> None:
    request = asked("arithmetic", n=6)
    [texts] = drawn_texts(engine, request)
    for index, text in enumerate(texts):
        model = filtered(engine, PROMPT, text, WARM)
        code = Fraction((index / 6 + shift(request.own_seed)) % 1)
        assert exact(lambda prefix, model=model: model[len(prefix)].tolist(), code, len(text)) == text
    assert len(set(texts)) > 1


def test_texts_do_not_depend_on_the_batch(engine: HFEngine) -> None:
    requests = [asked("arithmetic", id=str(seed), seed=seed) for seed in range(2)]
    together = drawn_texts(engine, *requests)
    narrow = HFEngine(engine.model, engine.tokenizer, batch_rows=4)
    assert drawn_texts(narrow, *requests) == together
    assert together[0] != together[1]


def test_with_a_filter_the_samples_are_stratified_over_the_remaining_tokens(engine: HFEngine) -> None:
    """One standard deviation below the best keeps few tokens: the first ones have their shares of the 12 samples."""
    name = "arithmetic+top_n_sigma"
    sampling = Sampling(max_tokens=4)
    [texts] = drawn_texts(engine, asked(name, n=12, sampling=sampling, options={"n_sigma": 3.0}))
    ids = engine.tokenizer(PROMPT)["input_ids"]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([ids])).logits[0, -1].double()
    p = logits.masked_fill(logits < logits.max() - 3 * logits.std(), -torch.inf).softmax(-1)
    for token, count in Counter(text[0] for text in texts).items():
        assert count in (floor(12 * p[token].item()), floor(12 * p[token].item()) + 1)


def test_temperature_0_is_refused_by_the_engine(engine: HFEngine) -> None:
    with pytest.raises(OptionError, match="temperature"):
        drawn_texts(engine, asked("arithmetic", sampling=Sampling(temperature=0)))
