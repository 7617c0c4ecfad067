"""Beam searches: hand-computed cases, plain references, exact statistics, and real runs through `HFEngine`."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, gumbel_r, kstest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from esamp import Completion, HFEngine, Request, Sampling
from esamp.decoding.randomness import uniform
from esamp.engines.hf.beam_search import CHECK
from esamp.errors import EsampError, OptionError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import Need
from esamp.methods.beams import BeamMethod, Beams, Hypotheses
from esamp.methods.beams.diverse_beam import DiverseBeam, DiverseBeamOptions
from esamp.methods.beams.stochastic_beam import StochasticBeam, StochasticBeamOptions, conditioned
from esamp.methods.purpose import RandomPurpose
from support.hf_models import COMMON, EOS, PAD, VOCAB, small, small_tokenizer

END = 0
"""The token that ends a text of the chains below."""
FILLER = 99

CHAIN = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.3, 0.6]], dtype=torch.float64)
"""``CHAIN[last, next]``: a Markov chain of three tokens; the first row is also how a text begins."""


def ends(tokens: Tensor) -> Tensor:
    return tokens[:, :, -1] == END


def search(
    method: BeamMethod,
    seeds: Sequence[int],
    n: int,
    limit: int,
    chain: Tensor = CHAIN,
    each: Callable[[Beams, Beams, Tensor], None] | None = None,
) -> Beams:
    """Run a method on a Markov chain. `each` sees every step: the searches before and after it, and the parents."""
    beams = method.start(torch.tensor(seeds), n, limit)
    last = torch.zeros(len(seeds), n, dtype=torch.int64)
    for step in range(limit):
        before = beams
        beams, parents = method.advance(beams, chain.log()[last], ends)
        assert beams.step == step + 1
        last = beams.rows.tokens[:, :, step].clamp_max(len(chain) - 1)
        if each is not None:
            each(before, beams, parents)
    assert not beams.live.any()
    return beams


def texts(ranked: Hypotheses, prompt: int = 0) -> list[tuple[int, ...]]:
    """The texts of one search, without empty places."""
    count = int(ranked.exist[prompt].sum())
    assert ranked.exist[prompt, :count].all()
    rows = zip(ranked.tokens[prompt].tolist(), ranked.length[prompt].tolist(), strict=True)
    return [tuple(tokens[:length]) for tokens, length in rows][:count]


def stochastic() -> StochasticBeam:
    return StochasticBeam(StochasticBeamOptions(), pad=FILLER, stops=1)


def diverse(stops: int = 1, **options: Any) -> DiverseBeam:
    return DiverseBeam(DiverseBeamOptions(**options), pad=FILLER, stops=stops)


def all_texts(chain: Tensor, limit: int) -> dict[tuple[int, ...], float]:
    """Every text of at most `limit` tokens and its probability."""
    found: dict[tuple[int, ...], float] = {}
    rows = chain.tolist()
    for length in range(1, limit + 1):
        for text in product(range(len(rows)), repeat=length):
            if END in text[:-1] or (text[-1] != END and length < limit):
                continue
            found[text] = math.prod(rows[last][token] for last, token in zip((0, *text), text, strict=False))
    assert sum(found.values()) == pytest.approx(1)
    return found


# ---- diverse beams


def test_two_groups_by_hand() -> None:
    """Group 1 is greedy: 1 (.5), then 0 (.4) ends it at log .2 / 2; its live rest 1 1 (.175) stays below.

    Group 2 pays lambda = 1 for token 1 at first: ln .5 - 1 < ln .3, so it takes 2, and group 1 went on with 1 in the
    second step, which costs 2 1 nothing it could win by: 2 2 (.18). At the limit it is complete.
    """
    beams = search(diverse(beam_diversity=1.0), [0], 2, 2)
    ranked = diverse().ranked(beams)
    assert texts(ranked) == [(1, 0), (2, 2)]
    assert ranked.log_probability[0].exp().tolist() == pytest.approx([0.2, 0.18])
    assert ranked.score[0].tolist() == pytest.approx([math.log(0.2) / 2, math.log(0.18) / 2])
    # tokens: 1 and 2 at first; then group 1's end and 1 1 beside it, and 2 2
    assert beams.generated.tolist() == [2 + 2]


def test_the_penalty_counts_every_earlier_hypothesis() -> None:
    """All groups would begin with token 1 (.5 against .3 and .2); each of them makes it dearer for the next one."""
    strength = 0.6  # ln .5 - .6 = -1.29 < ln .3 = -1.20 < ln .2 = -1.61
    beams = search(diverse(beam_diversity=strength), [0], 4, 1)
    # group 3: 1 costs .693 + .6, 2 costs 1.204 + .6, 0 costs 1.609, so it takes 1 again; group 4: 1.893, 1.804, 1.609
    assert sorted(texts(diverse().ranked(beams))) == [(0,), (1,), (1,), (2,)]
    assert [row[0] for row in beams.finished.tokens[0].tolist()] == [1, 2, 1, 0]
    assert beams.finished.score[0].tolist() == pytest.approx(
        [math.log(0.5), math.log(0.3), math.log(0.5) - strength, math.log(0.2)]
    )


def test_an_early_complete_hypothesis_is_replaced_by_a_better_one() -> None:
    """Two hypotheses of at most four tokens. 0 is complete at once (ln .45 = -.80), 1 1 1 1 (ln .282 = -1.27) and
    2 2 2 2 (ln .077 = -2.57) at the limit: their means are -.32 and -.64.
    """
    chain = torch.tensor([[0.45, 0.4, 0.15], [0.1, 0.89, 0.01], [0.1, 0.1, 0.8]])
    for penalty, expected in ((1.0, [(1,) * 4, (2,) * 4]), (0.0, [(0,), (1,) * 4])):
        method = diverse(beam_groups=1, beam_length_penalty=penalty)
        assert texts(method.ranked(search(method, [0], 2, 4, chain))) == expected


def test_a_finished_group_takes_no_tokens() -> None:
    """Group 1 is done with 1 0. What its row would have gone on with, 2, costs group 2 nothing in steps 2 and 3."""
    chain = torch.tensor([[0.1, 0.5, 0.4], [0.9, 0.01, 0.09], [0.05, 0.45, 0.5]])
    ranked = diverse().ranked(search(diverse(), [0], 2, 3, chain))
    assert texts(ranked) == [(1, 0), (2, 2, 2)]


def test_a_group_of_one_is_greedy() -> None:
    """Its best continuation ends it, and what is left beside it cannot be better: one end, one token given up."""
    chain = torch.tensor([[0.45, 0.4, 0.15], [0.1, 0.89, 0.01], [0.1, 0.1, 0.8]])
    beams = search(diverse(), [0], 1, 8, chain)
    assert texts(diverse().ranked(beams)) == [(0,)]
    assert int(beams.generated) == 2


def plain_diverse(
    chain: Tensor, n: int, limit: int, *, groups: int, strength: float, penalty: float
) -> list[tuple[int, ...]]:
    """Diverse Beam Search as the paper has it, with the bookkeeping of complete hypotheses in lists."""
    rows, width = chain.double().tolist(), n // groups
    running = [[(0.0, 0.0, ())] for _ in range(groups)]
    complete: list[list[tuple[float, float, tuple[int, ...]]]] = [[] for _ in range(groups)]
    for step in range(1, limit + 1):
        used: Counter[int] = Counter()
        for group in range(groups):
            continued = []
            for score, logp, text in running[group]:
                for token, probability in enumerate(rows[text[-1] if text else 0]):
                    gain = math.log(probability)
                    continued.append((score + gain - strength * used[token], logp + gain, (*text, token)))
            continued = sorted(continued, reverse=True)[: 2 * width]
            going = [each for each in continued if each[2][-1] != END][:width]
            over = [each for each in continued[:width] if each[2][-1] == END or step == limit]
            complete[group] += [(score / step**penalty, logp, text) for score, logp, text in over]
            complete[group] = sorted(complete[group], reverse=True)[:width]
            full = len(complete[group]) == width
            if step < limit and full and (not going or going[0][0] / step**penalty <= complete[group][-1][0]):
                going = []
            used.update(text[-1] for _, _, text in going)
            running[group] = going
    found = [(logp / len(text) ** penalty, text) for group in complete for _, logp, text in group]
    return [text for _, text in sorted(found, key=lambda each: -each[0])]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("n", "groups"), [(1, 1), (4, 1), (4, 2), (6, 3), (3, 3)])
def test_diverse_beams_agree_with_the_paper(n: int, groups: int, strength: float, penalty: float) -> None:
    generator = torch.Generator().manual_seed(5)
    for size in (3, 7):
        chain = (torch.randn(size, size, generator=generator) * 1.5).softmax(-1)
        method = diverse(beam_groups=groups, beam_diversity=strength, beam_length_penalty=penalty)
        ranked = method.ranked(search(method, [0, 1], n, 6, chain))
        expected = plain_diverse(chain, n, 6, groups=groups, strength=strength, penalty=penalty)
        for prompt in range(2):
            assert sorted(texts(ranked, prompt)) == sorted(expected)
        scores = ranked.score[0][ranked.exist[0]]
        assert (scores.diff() <= 0).all()


# ---- stochastic beams


def test_conditioned_gumbels_by_hand() -> None:
    """M = 1, F = (0, -1): Z = 0, so G = (1, -ln(e^-1 - 1 + e))."""
    moved = conditioned(torch.tensor([[0.0, -1.0]]).double(), torch.tensor([1.0]).double())
    assert moved[0].tolist() == pytest.approx([1.0, -math.log(math.exp(-1) - 1 + math.e)], abs=1e-12)


def test_conditioned_gumbels_are_numerically_stable() -> None:
    """Against the formula as it is defined, with 1000 digits, where float64 would cancel or overflow."""
    cases = product([-900.0, -3.0, 0.0, 40.0], [-1200.0, -2.0, 5.0], [1e-13, 1e-6, 0.69, 0.7, 5.0, 400.0])
    for maximum, top, gap in cases:
        free = torch.tensor([top, top - gap], dtype=torch.float64)
        first, second = conditioned(free, torch.tensor(maximum, dtype=torch.float64)).tolist()
        below = Decimal(free[1].item())
        with localcontext(prec=1000, Emax=10**9, Emin=-(10**9)):
            exact = -((-Decimal(maximum)).exp() - (-Decimal(top)).exp() + (-below).exp()).ln()
        assert first == maximum, (maximum, top, gap)
        assert second == pytest.approx(float(exact), rel=1e-10, abs=1e-10)


def test_the_largest_child_has_its_parent_s_value() -> None:
    """Also where tokens were filtered out and where a place is empty."""
    free = torch.randn(50, 9, generator=torch.Generator().manual_seed(1)).double() * 5
    free[:, 4] = -torch.inf
    free[7] = -torch.inf
    maximum = torch.randn(50, generator=torch.Generator().manual_seed(2)).double() * 20
    maximum[3] = -torch.inf
    moved = conditioned(free, maximum)
    expected = maximum.index_fill(0, torch.tensor([7]), -torch.inf)
    assert torch.equal(moved.amax(-1), expected)
    assert torch.equal(moved[[0, 1, 2]].argsort(-1), free[[0, 1, 2]].argsort(-1))
    assert (moved[:, 4] == -torch.inf).all()
    assert not moved.isnan().any()


def test_a_prefix_has_the_largest_value_of_what_follows_it() -> None:
    """With a place for everything, the perturbed score of each hypothesis is the maximum of its children's."""
    seen = []

    def check(before: Beams, after: Beams, parents: Tensor) -> None:
        for prompt in range(len(parents)):
            values = torch.full_like(before.rows.score[prompt], -torch.inf)
            values = values.scatter_reduce(0, parents[prompt], after.rows.score[prompt], "amax")
            held = before.rows.exist[prompt]
            assert torch.allclose(values[held], before.rows.score[prompt][held], atol=1e-5, rtol=0)
            seen.append(int(held.sum()))

    search(stochastic(), range(20), len(all_texts(CHAIN, 4)), 4, each=check)
    assert max(seen) > 10


def test_with_as_many_places_as_texts_all_texts_are_found() -> None:
    for limit in (1, 3, 5):
        space = all_texts(CHAIN, limit)
        for n in (len(space), len(space) + 3):
            ranked = stochastic().ranked(search(stochastic(), [4, 5], n, limit))
            for prompt in (0, 1):
                found = texts(ranked, prompt)
                assert sorted(found) == sorted(space)
                logs = ranked.log_probability[prompt, : len(space)].tolist()
                assert logs == pytest.approx([math.log(space[text]) for text in found], rel=1e-6)


def plain_stochastic(chain: Tensor, seed: int, n: int, limit: int) -> list[tuple[float, float, tuple[int, ...]]]:
    """Algorithm 1 of the paper with its formula as it is written, and the same random numbers."""

    def gumbel(*keys: int) -> float:
        number = uniform(torch.tensor(seed), *(torch.tensor(key) for key in keys)).item()
        return -math.log(-math.log(number))

    rows = chain.double().tolist()
    beam: list[tuple[float, float, tuple[int, ...]]] = [(gumbel(RandomPurpose.BEAM_ROOT), 0.0, ())]
    for step in range(limit):
        following = []
        for place, (value, logp, text) in enumerate(beam):
            if text and text[-1] == END:
                following.append((value, logp, text))
                continue
            sums = [logp + math.log(p) for p in rows[text[-1] if text else 0]]
            free = [total + gumbel(RandomPurpose.BEAM_CHILD, step, place, token) for token, total in enumerate(sums)]
            largest = max(free)
            for token, each in enumerate(free):
                moved = -math.log(math.exp(-value) - math.exp(-largest) + math.exp(-each))
                following.append((moved, sums[token], (*text, token)))
        beam = sorted(following, reverse=True)[:n]
    return beam


@pytest.mark.parametrize("n", [1, 2, 5])
def test_stochastic_beams_agree_with_the_paper(n: int) -> None:
    generator = torch.Generator().manual_seed(3)
    for size, limit in ((3, 4), (6, 5)):
        chain = torch.randn(size, size, generator=generator).softmax(-1)
        seeds = [int(seed) for seed in torch.randint(2**62, (8,), generator=generator)]
        ranked = stochastic().ranked(search(stochastic(), seeds, n, limit, chain))
        for prompt, seed in enumerate(seeds):
            expected = plain_stochastic(chain, seed, n, limit)
            assert texts(ranked, prompt) == [text for _, _, text in expected]
            assert ranked.score[prompt].tolist() == pytest.approx([value for value, _, _ in expected], abs=1e-5)
            assert ranked.log_probability[prompt].tolist() == pytest.approx([logp for _, logp, _ in expected], abs=1e-5)


@pytest.fixture(scope="module")
def many() -> tuple[dict[tuple[int, ...], float], list[list[tuple[int, ...]]], Tensor]:
    """All texts of the chain up to length 3, 20,000 searches for three of them, and the perturbed scores."""
    seeds = torch.randint(2**62, (20_000,), generator=torch.Generator().manual_seed(11)).tolist()
    ranked = stochastic().ranked(search(stochastic(), seeds, 3, 3))
    tokens, lengths = ranked.tokens.tolist(), ranked.length.tolist()
    found = [
        [tuple(text[:length]) for text, length in zip(*pair, strict=True)] for pair in zip(tokens, lengths, strict=True)
    ]
    return all_texts(CHAIN, 3), found, ranked.score


def test_the_first_sample_is_one_of_the_model_s(many: Any) -> None:
    space, found, scores = many
    counts = Counter(each[0] for each in found)
    expected = [space[text] * len(found) for text in space]
    assert chisquare([counts[text] for text in space], expected).pvalue > 0.01
    assert kstest(scores[:, 0].numpy(), gumbel_r.cdf).pvalue > 0.01  # the maximum over all texts: Gumbel(0)


def test_samples_are_drawn_without_replacement(many: Any) -> None:
    """Ordered pairs, ordered triples and inclusion against the exact probabilities of drawing one after another."""
    space, found, _ = many
    assert all(len(set(each)) == 3 for each in found)
    pairs = {
        (one, two): space[one] * space[two] / (1 - space[one]) for one, two in permutations(space, 2) if one != two
    }
    counts = Counter((each[0], each[1]) for each in found)
    assert chisquare([counts[pair] for pair in pairs], [pairs[pair] * len(found) for pair in pairs]).pvalue > 0.01
    inclusion: Counter[tuple[int, ...]] = Counter()
    for (one, two), probability in pairs.items():
        for three in space:
            if three not in (one, two):
                share = probability * space[three] / (1 - space[one] - space[two])
                for text in (one, two, three):
                    inclusion[text] += share
    seen = Counter(text for each in found for text in each)
    for text, share in inclusion.items():
        deviation = math.sqrt(share * (1 - share) / len(found))
        assert seen[text] / len(found) == pytest.approx(share, abs=4 * deviation)


def test_long_improbable_texts_stay_apart_and_finite() -> None:
    """400 tokens of a nearly uniform chain: log p is near -2700, far below every perturbed score."""
    chain = torch.randn(900, 900, generator=torch.Generator().manual_seed(1)).mul(0.1).softmax(-1)
    chain[:, END] = 1e-30
    beams = search(stochastic(), [1, 2], 6, 400, chain)
    ranked = stochastic().ranked(beams)
    assert (ranked.log_probability < -2000).all()
    assert (ranked.score > -50).all()
    assert (ranked.score.diff() < 0).all()
    for prompt in (0, 1):
        assert len(set(texts(ranked, prompt))) == 6
    assert beams.generated.tolist() == [6 * 400] * 2


# ---- both


METHODS = {
    "stochastic": stochastic,
    "diverse": lambda: diverse(beam_groups=2, beam_diversity=0.7),
    "plain": lambda: diverse(beam_groups=1),
}


@pytest.mark.parametrize("name", METHODS)
def test_searches_do_not_influence_each_other(name: str) -> None:
    method = METHODS[name]()
    together = method.ranked(search(method, range(6), 4, 5))
    for seed in range(6):
        alone = method.ranked(search(method, [seed], 4, 5))
        assert texts(alone) == texts(together, seed)
        assert torch.equal(alone.score[0], together.score[seed])


@pytest.mark.parametrize("name", METHODS)
def test_a_finished_search_does_not_change(name: str) -> None:
    method = METHODS[name]()
    chain = torch.tensor([[0.6, 0.4], [0.7, 0.3]])
    histories: list[Beams] = []
    search(method, [0, 1, 2], 2, 40, chain, each=lambda before, after, parents: histories.append(after))
    over = next(step for step, beams in enumerate(histories) if not beams.live.any())
    assert over < 30
    final, then = method.ranked(histories[-1]), method.ranked(histories[over])
    assert torch.equal(final.tokens, then.tokens)
    assert torch.equal(final.score, then.score)
    assert torch.equal(histories[-1].generated, histories[over].generated)


@pytest.mark.parametrize("name", METHODS)
def test_dead_rows_and_filtered_tokens_are_ignored(name: str) -> None:
    """Garbage in the distributions of dead rows changes nothing, and what has probability 0 is never taken."""
    chain = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.3, 0.0, 0.7], [0.25] * 4])
    method = METHODS[name]()
    results = []
    for garbage in (0.0, float("nan"), 50.0):
        beams = method.start(torch.arange(3), 4, 5)
        for step in range(5):
            last = beams.rows.tokens[:, :, max(step - 1, 0)].clamp_max(3) * (step > 0)
            logp = chain.log()[last]
            if step:
                logp = torch.where(beams.live.unsqueeze(-1), logp, garbage)
            beams, _ = method.advance(beams, logp, ends)
        results.append(method.ranked(beams))
    for each in results[1:]:
        assert torch.equal(each.tokens, results[0].tokens)
        assert torch.equal(each.score, results[0].score)
    for prompt in range(3):
        for text in texts(results[0], prompt):
            assert all(chain[last, token] > 0 for last, token in zip((0, *text), text, strict=False))


class NoWaiting(TorchDispatchMode):
    """Fails at every operation whose result the host has to wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "item", "equal", "unique", "is_nonzero")
        name = func.overloadpacket.__name__
        assert name not in waits, name
        if name in ("index", "index_put", "index_put_"):
            assert not any(each is not None and each.dtype == torch.bool for each in args[1]), "boolean mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METHODS)
def test_no_step_synchronises_with_the_device(name: str) -> None:
    method, seeds, logp = METHODS[name](), torch.arange(3), CHAIN.log()[torch.zeros(3, 4, dtype=torch.int64)]
    with NoWaiting():
        beams = method.start(seeds, 4, 3)
        for _ in range(3):
            beams, _ = method.advance(beams, logp, ends)
        method.described(method.ranked(beams))


def test_the_methods_are_installed_with_their_needs() -> None:
    for name in ("diverse_beam", "stochastic_beam"):
        method = registry.get(name)
        assert issubclass(method, BeamMethod)
        assert method.name == name
        assert method.needs == {Need.BEAMS}
        assert method.kind == "beams"
        assert method.waves(method.options(), 7) == (7,)


# ---- in the engine


SHORT = Sampling(max_tokens=12)


def ask(method: str = "stochastic_beam", prompt: str = "Hello", n: int = 4, **kwargs: Any) -> Request:
    options = kwargs.pop("options", None)
    sampling = kwargs.pop("sampling", SHORT)
    return Request(id=prompt, prompt=prompt, n=n, method=method, options=options, sampling=sampling, **kwargs)


def engine(architecture: str = "llama", **kwargs: Any) -> HFEngine:
    return HFEngine(small(architecture), small_tokenizer(), **kwargs)


def tokens(completion: Completion) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in completion.samples]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba", "lfm2"])
def test_one_group_agrees_with_the_beam_search_of_transformers(
    architecture: str, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tokens end a text, so that some end early; prompts of two lengths share the batch."""
    model = small(architecture)
    monkeypatch.setattr(model.generation_config, "eos_token_id", [EOS, 40])
    options = DiverseBeamOptions(beam_groups=1, beam_diversity=0.0, beam_length_penalty=penalty)
    requests = [ask("diverse_beam", prompt, options=options) for prompt in ("Hello", "a longer prompt")]
    lengths = set()
    for request, completion in zip(requests, engine(architecture).generate(requests), strict=True):
        ids = small_tokenizer()(request.prompt, return_tensors="pt")["input_ids"]
        beams = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=4,
            num_return_sequences=4,
            length_penalty=penalty,
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=PAD,
        )
        rows = beams[:, ids.shape[1] :].tolist()
        cuts = [next((end + 1 for end, token in enumerate(row) if token in (EOS, 40)), None) for row in rows]
        assert tokens(completion) == [tuple(row[:cut]) for row, cut in zip(rows, cuts, strict=True)]
        lengths |= {len(each) for each in tokens(completion)}
    assert max(lengths) == 12


ARCHITECTURES = ("llama", "gemma2", "mistral", "mixtral", "gpt_neox", "mamba", "falcon_h1", "bamba", "lfm2")


def retold(model: Any, prompt: str, text: Sequence[int], change: Callable[[Tensor, list[int]], Tensor]) -> float:
    """log p of `text`, read in one pass without a cache."""
    ids = small_tokenizer()(prompt)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids + list(text)]), use_cache=False).logits[0].double()
    total = 0.0
    for place, token in enumerate(text):
        scores = change(logits[len(ids) - 1 + place].clone(), list(text[:place]))
        total += scores.log_softmax(-1)[token].item()
    return total


@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_row_keeps_its_own_past(architecture: str, method: str) -> None:
    """The probabilities that the search added up are those of the texts, so caches followed their hypotheses."""
    requests = [ask(method, prompt) for prompt in ("Hello", "a longer prompt")]
    for request, completion in zip(requests, engine(architecture).generate(requests), strict=True):
        told = completion.details["log_probability"]
        for text, logp in zip(tokens(completion), told, strict=True):
            again = retold(small(architecture), str(request.prompt), text, lambda logits, _: logits)
            assert logp == pytest.approx(again, abs=2e-3)
        assert completion.telemetry["log_probability_best"] == max(told)
        assert completion.telemetry["log_probability_mean"] == pytest.approx(sum(told) / len(told))
        assert completion.telemetry["distinct"] == len(set(tokens(completion)))


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
def test_a_request_does_not_depend_on_its_neighbours(architecture: str, method: str) -> None:
    alone = [next(engine(architecture).generate([ask(method, prompt)])) for prompt in ("Hello", "a much longer")]
    together = list(engine(architecture).generate([ask(method, p) for p in ("xyz", "Hello", "a much longer", "Q")]))
    for mine, theirs in zip(together[1:3], alone, strict=True):
        assert tokens(mine) == tokens(theirs)
        assert mine.cost.tokens == theirs.cost.tokens
        for name, values in mine.details.items():
            assert values == pytest.approx(theirs.details[name], abs=1e-3)
    assert [c.request.prompt for c in together] == ["xyz", "Hello", "a much longer", "Q"]


def test_the_seed_affects_stochastic_beams_and_not_diverse_ones() -> None:
    first, again, other = (tokens(next(engine().generate([ask(seed=seed)]))) for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)
    one, two = (tokens(next(engine().generate([ask("diverse_beam", seed=seed)]))) for seed in (3, 4))
    assert one == two


def test_hypotheses_are_ordered_and_described() -> None:
    drawn = next(engine().generate([ask(n=8)]))
    assert drawn.details["perturbed"] == sorted(drawn.details["perturbed"], reverse=True)
    assert len(set(tokens(drawn))) == 8
    assert [sample.index for sample in drawn.samples] == list(range(8))
    options = DiverseBeamOptions(beam_groups=4, beam_length_penalty=2.0)
    found = next(engine().generate([ask("diverse_beam", n=8, options=options)]))
    assert found.details["score"] == sorted(found.details["score"], reverse=True)
    lengths = [len(each) for each in tokens(found)]
    scores = [logp / length**2 for logp, length in zip(found.details["log_probability"], lengths, strict=True)]
    assert found.details["score"] == pytest.approx(scores)


def test_diverse_groups_start_with_different_tokens() -> None:
    together, apart = (
        next(engine().generate([ask("diverse_beam", options=DiverseBeamOptions(beam_diversity=strength))]))
        for strength in (0.0, 100.0)
    )
    assert len(set(tokens(together))) == 1
    assert together.telemetry["distinct"] == 1
    for column in zip(*tokens(apart), strict=False):
        assert len(set(column)) == 4


def changed(sampling: Sampling) -> Callable[[Tensor, list[int]], Tensor]:
    """Penalties, temperature, top-k and min-p as documented, for one position of the prompt "Hello"."""
    prompt = small_tokenizer()("Hello")["input_ids"]

    def change(logits: Tensor, before: list[int]) -> Tensor:
        for token, count in Counter(before).items():
            logits[token] -= sampling.presence_penalty + count * sampling.frequency_penalty
        seen = torch.tensor(sorted({*prompt, *before}))
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        logits = logits / sampling.temperature
        if sampling.top_k:
            logits[logits < logits.topk(sampling.top_k).values[-1]] = -torch.inf
        probabilities = logits.softmax(-1)
        logits[probabilities < sampling.min_p * probabilities.max()] = -torch.inf
        return logits

    return change


@pytest.mark.parametrize(
    ("method", "sampling"),
    [
        ("stochastic_beam", Sampling(max_tokens=12, temperature=0.6)),
        ("stochastic_beam", Sampling(max_tokens=12, temperature=1.5, top_k=5, min_p=0.05)),
        ("stochastic_beam", Sampling(max_tokens=12, presence_penalty=1.5, frequency_penalty=0.5)),
        ("stochastic_beam", Sampling(max_tokens=12, repetition_penalty=1.7, top_k=30)),
        ("diverse_beam", Sampling(max_tokens=12, top_k=3)),
        ("diverse_beam", Sampling(max_tokens=12, presence_penalty=2.0, frequency_penalty=1.0)),
    ],
    ids=["cold", "filtered", "counted", "repetition", "diverse-top-k", "diverse-counted"],
)
def test_the_sampler_s_settings_shape_the_distribution(method: str, sampling: Sampling) -> None:
    completion = next(engine().generate([ask(method, n=6, sampling=sampling)]))
    plain = next(engine().generate([ask(method, n=6)]))
    assert tokens(completion) != tokens(plain)
    for text, logp in zip(tokens(completion), completion.details["log_probability"], strict=True):
        assert logp == pytest.approx(retold(small("llama"), "Hello", text, changed(sampling)), abs=2e-3)


@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
def test_a_stop_text_ends_a_hypothesis_and_is_cut_off(method: str) -> None:
    stop = ("e", "x_", "|u")
    sampling = Sampling(max_tokens=24, stop=stop)
    completion = next(engine().generate([ask(method, n=8, sampling=sampling)]))
    assert any(sample.finish_reason == "stop" for sample in completion.samples)
    for sample in completion.samples:
        told = small_tokenizer().decode(sample.token_ids, skip_special_tokens=True)
        assert not any(text in sample.text for text in stop)
        assert told.startswith(sample.text)
        assert (len(sample.token_ids) < 24) <= (sample.finish_reason == "stop")
    # had the tokens behind a stop text been drawn as well, they would be in the sum
    for text, logp in zip(tokens(completion), completion.details["log_probability"], strict=True):
        assert logp == pytest.approx(retold(small("llama"), "Hello", text, lambda logits, _: logits), abs=2e-3)


@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
def test_progress_and_cost_count_every_token(method: str) -> None:
    told: list[tuple[int, int]] = []
    requests = [ask(method, prompt, sampling=Sampling(max_tokens=30)) for prompt in ("Hello", "xyz")]
    completions = list(engine().generate(requests, progress=lambda samples, new: told.append((samples, new))))
    assert sum(samples for samples, _ in told) == 8
    assert sum(new for _, new in told) == sum(c.cost.tokens for c in completions)
    assert len(told) > 3
    for completion in completions:
        assert completion.cost.calls == 4
        assert completion.cost.prompt_tokens == completion.prompt_tokens
        assert completion.cost.seconds == completion.seconds
        assert sum(map(len, tokens(completion))) <= completion.cost.tokens <= 2 * 4 * 30


@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
def test_a_batch_stops_soon_after_its_last_hypothesis(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    monkeypatch.setattr(model.generation_config, "eos_token_id", list(range(VOCAB)))
    passes: list[None] = []
    hook = model.register_forward_hook(lambda *_: passes.append(None))
    try:
        completion = next(engine().generate([ask(method, sampling=Sampling(max_tokens=100))]))
    finally:
        hook.remove()
    assert all(len(text) == 1 for text in tokens(completion))
    assert len(passes) <= CHECK


def test_a_search_without_stop_tokens_costs_all_its_tokens() -> None:
    """Nothing ends: four rows, seven tokens each, whatever was given up on the way."""
    sampling = Sampling(max_tokens=7, top_k=4)
    model = small("llama")
    completion = next(HFEngine(model, small_tokenizer()).generate([ask(sampling=sampling)]))
    assert EOS not in {token for text in tokens(completion) for token in text}
    assert completion.cost.tokens == 4 * 7


@pytest.mark.parametrize(
    ("method", "options"),
    [("stochastic_beam", None), ("diverse_beam", DiverseBeamOptions(beam_groups=1))],
    ids=["stochastic", "diverse"],
)
def test_fewer_texts_than_places_are_repeated(method: str, options: Any) -> None:
    """Two tokens of choice, one token of room: five samples of two texts, and the telemetry says two."""
    sampling = Sampling(max_tokens=1, top_k=2)
    completion = next(engine().generate([ask(method, n=5, options=options, sampling=sampling)]))
    found = tokens(completion)
    assert len(found) == 5
    assert completion.telemetry["distinct"] == 2
    assert found[0] != found[1]
    assert found == [found[place % 2] for place in range(5)]
    assert completion.details["log_probability"][:2] * 2 == completion.details["log_probability"][:4]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask(n=9), r"n = 9 hypotheses .* batch_rows = 8: set batch_rows \(--batch-rows\) to 9"),
        (ask("diverse_beam", n=9), "batch_rows = 8"),
        (ask("diverse_beam", n=5, options=DiverseBeamOptions(beam_groups=2)), "does not divide n = 5"),
        (ask("diverse_beam", sampling=Sampling(temperature=0.7)), "temperature = 0.7: diverse_beam draws no tokens"),
        (ask(sampling=Sampling(temperature=0)), "one text to draw"),
        (ask("stochastic_beam+esamp"), r"cannot be combined"),
    ],
    ids=["rows", "rows-diverse", "groups", "warm", "cold", "combined"],
)
def test_invalid_requests_are_refused(request_: Request, message: str) -> None:
    with pytest.raises(EsampError, match=message) as caught:
        list(engine(batch_rows=8).generate([request_]))
    assert isinstance(caught.value, OptionError)


@pytest.mark.parametrize("architecture", ["rwkv", "recurrent_gemma"])
def test_a_model_whose_state_cannot_be_moved_is_refused(architecture: str) -> None:
    """RWKV hands its state around as tensors of its own, RecurrentGemma keeps it in its modules."""
    shape = dict(attention_hidden_size=64, lru_width=64, num_attention_heads=4, head_dim=16, intermediate_size=96)
    config = AutoConfig.for_model(architecture, **COMMON, **shape, num_hidden_layers=3)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UnsupportedError, match="keeps no cache that can follow"):
        next(HFEngine(model, small_tokenizer()).generate([ask()]))


def test_temperature_zero_does_not_change_a_diverse_beam() -> None:
    """With filters too, which greedy decoding by transformers would leave out."""
    plain, cold = (
        tokens(next(engine().generate([ask("diverse_beam", sampling=Sampling(temperature=t, max_tokens=8, top_k=2))])))
        for t in (1, 0)
    )
    assert cold == plain


def test_requests_share_batches_only_with_the_same_settings() -> None:
    requests = [ask(prompt="a"), ask("diverse_beam", "b"), ask(prompt="c", n=6), ask("vanilla", "d"), ask(prompt="e")]
    completions = list(engine(batch_rows=7).generate(requests))
    assert [c.request for c in completions] == requests
    assert [len(c.samples) for c in completions] == [4, 4, 6, 4, 4]
    assert completions[3].spent is None
    assert completions[3].details == {}


@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
def test_a_trained_model_tells_different_stories(shared: Path, method: str) -> None:
    loaded = HFEngine.load(shared / "models" / "stories260K")
    completion = next(loaded.generate([ask(method, "Once upon a time", n=6, sampling=Sampling(max_tokens=40))]))
    assert len({sample.text for sample in completion.samples}) == 6
    assert all(-4 * 40 < logp < 0 for logp in completion.details["log_probability"])


@pytest.mark.parametrize("method", ["stochastic_beam", "diverse_beam"])
def test_the_embedded_model_solves_in_different_ways(method: str) -> None:
    """Its tokenizer knows whole words only, so stop texts are found by decoding."""
    prompt, n = "Numbers 3 5 8 9 target 24", 6
    free, cut = (
        next(HFEngine.load().generate([ask(method, prompt, n, sampling=Sampling(max_tokens=60, stop=stop))]))
        for stop in ((), ("left 8",))
    )
    assert free.telemetry["distinct"] == n
    assert any("left 8" in sample.text for sample in free.samples)
    assert any(sample.finish_reason == "stop" for sample in cut.samples)
    assert not any("left 8" in sample.text for sample in cut.samples)
