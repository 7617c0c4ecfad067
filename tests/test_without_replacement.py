"""Sampling without replacement: against a plain tree of dictionaries, by enumeration, in waves, through the engine."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep, Rows
from esamp.engines.base import Request
from esamp.engines.hf import HFEngine
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.draws.without_replacement import WithoutReplacement, WithoutReplacementOptions
from esamp.sampling import Sampling
from support.draw_simulation import SHAPE, Model, Row, Text, advance, again, finish, fixed, number, random_model, table

SMALL = {"trie_samples": 16, "trie_nodes": 256}


def without_replacement(slots: int = 1, **options: Any) -> WithoutReplacement:
    return WithoutReplacement.build(WithoutReplacementOptions(**(SMALL | options)), SHAPE, slots=slots)


def one_by_one(draw: WithoutReplacement, rows: Sequence[Row]) -> list[Text]:
    return [finish(draw, [row])[0] for row in rows]


def samples(count: int, seed: int = 0, slot: int = 0, **more: Any) -> list[Row]:
    return [Row(slot, index, seed=seed, count=count, **more) for index in range(count)]


# ---- the reference: the tree of the paper, with the mass that is left at its nodes


@dataclass
class Node:
    """A prefix; the mass is what the model gives to all that begins with it and was not drawn."""

    mass: float
    children: list["Node"] | None = None


@dataclass
class UniqueRandomizer:
    """Sequential sampling without replacement as the paper has it: expand, walk by what is left, subtract."""

    model: Model
    limit: int
    stops: tuple[int, ...] = ()
    root: Node = field(default_factory=lambda: Node(1.0))

    def draw(self, numbers: Sequence[float] | Any) -> Text:
        node, said, path = self.root, (), [self.root]
        while len(said) < self.limit and (not said or said[-1] not in self.stops):
            if node.children is None:
                node.children = [Node(node.mass * p) for p in self.model(said)]
            token = pick([child.mass for child in node.children], numbers(len(said)))
            node = node.children[token]
            said, path = (*said, token), [*path, node]
        drawn = node.mass
        for each in path:
            each.mass = max(each.mass - drawn, 0.0) if each is not node else 0.0
        return said


def pick(weights: Sequence[float], u: float) -> int:
    x = u * math.fsum(weights)
    for token, weight in enumerate(weights):
        if x < weight:
            return token
        x -= weight
    return max(token for token, weight in enumerate(weights) if weight > 0)


def expected(rows: Sequence[Row]) -> list[Text]:
    """What the paper's algorithm draws with the rows' random numbers."""
    tree = UniqueRandomizer(rows[0].model, rows[0].limit, rows[0].stops)
    return [tree.draw(lambda position, row=row: number(3, row, position)) for row in rows]


def probability(model: Model, text: Text) -> float:
    return math.prod(model(text[:position])[token] for position, token in enumerate(text))


# ---- one after another: exact


TREE = table({(): (0.5, 0.3, 0.2), (0,): (0.1, 0.9, 0.0), (1,): (0.25, 0.25, 0.5)})
"""Token 2 ends a text, and so do two tokens: 02 is impossible, 00 has .05, 01 .45, 10 and 11 .075, 12 .15, 2 .2."""


def numbered(index: int, wanted: Sequence[float], tolerance: float = 0.02) -> Row:
    """A row whose first random numbers are about these."""
    seed = 0
    while True:
        row = Row(0, index, TREE, seed, 6, 2, (2,))
        if all(abs(number(3, row, position) - u) < tolerance for position, u in enumerate(wanted)):
            return row
        seed += 1


def test_draws_by_hand() -> None:
    """What is left is computed on paper.

    1. u = .3 of (.5 .3 .2) is token 0; .5 of (.1 .9 0) is 1: the text 01 of .45.
    2. Below 0 a share of .1 is left: weights (.05 .3 .2); .3 of .55 is .165, behind .05: token 1; .6 of (.25 .25 .5)
       is 2: the text 12 of .15.
    3. (.05 .15 .2), .4 of .4 is .16: token 1; (.25 .25 0), .6 of .5 is .3: token 1: the text 11 of .075.
    4. (.05 .075 .2), .1 of .325 is .0325: token 0, where only 00 is left, whatever u is.
    5. (0 .075 .2), .1 of .275 is .0275: token 1, where only 10 is left.
    6. Only 2 is left.
    """
    numbers = [(0.3, 0.5), (0.3, 0.6), (0.4, 0.6), (0.1, 0.9), (0.1, 0.9), (0.1,)]
    rows = [numbered(index, each) for index, each in enumerate(numbers)]
    wanted = [(0, 1), (1, 2), (1, 1), (0, 0), (1, 0), (2,)]
    assert one_by_one(without_replacement(), rows) == wanted
    assert expected([again(row, seed=row.seed) for row in rows]) == wanted


@pytest.mark.parametrize("seed", range(6))
def test_draws_agree_with_the_papers_algorithm(seed: int) -> None:
    """16 of 81 and more texts of up to four tokens; token 2 may end them early."""
    rows = samples(16, seed, model=random_model(seed, 3, 1.5), limit=4, stops=(2,) if seed % 2 else ())
    wanted = expected([again(row) for row in rows])
    assert one_by_one(without_replacement(), rows) == wanted
    assert len(set(wanted)) == 16


def test_orders_have_the_probabilities_of_drawing_without_replacement() -> None:
    """The first three of five texts, over 3000 prompts: P(abc) = p_a p_b / (1 - p_a) p_c / (1 - p_a - p_b)."""
    groups = 3000
    model = table({(): (0.4, 0.6), (0,): (0.5, 0.5), (1,): (0.2, 0.8), (1, 0): (0.5, 0.5), (1, 1): (1.0, 0.0)})

    def rows(index: int) -> list[Row]:
        return [Row(slot, index, ended_after_zero_zero(model), slot, 3, 3, (9,)) for slot in range(groups)]

    draw = without_replacement(groups, trie_samples=4, trie_nodes=64)
    drawn = zip(*(finish(draw, rows(index)) for index in range(3)), strict=True)
    seen = Counter(drawn)
    texts = {(0, 0, 1): 0.2, (0, 1, 1): 0.2, (1, 0, 0): 0.06, (1, 0, 1): 0.06, (1, 1, 0): 0.48}
    orders = [*permutations(texts, 3)]
    chances = [
        texts[a] * texts[b] / (1 - texts[a]) * texts[c] / (1 - texts[a] - texts[b]) * groups for a, b, c in orders
    ]
    assert sum(seen[order] for order in orders) == groups
    often = [place for place, chance in enumerate(chances) if chance >= 5]
    observed = [seen[orders[place]] for place in often]
    observed.append(groups - sum(observed))
    wanted = [chances[place] for place in often]
    wanted.append(groups - sum(wanted))
    assert chisquare(observed, wanted).pvalue > 0.01


def ended_after_zero_zero(model: Model) -> Model:
    """All texts have three tokens; below token 0 the last one is always 1."""
    return lambda said: (0.0, 1.0) if len(said) == 2 and said[0] == 0 else model(said)


@pytest.mark.parametrize("seed", range(3))
def test_all_texts_are_found_and_then_they_repeat(seed: int) -> None:
    """27 texts: 27 samples are all of them; the next ones are drawn as if nothing had been."""
    model = random_model(seed, 3)
    draw = without_replacement(trie_samples=32)
    found = one_by_one(draw, samples(27, seed, model=model, limit=3))
    assert sorted(found) == sorted(product(range(3), repeat=3))
    late = Row(0, 27, model, seed, 27, 3)
    [text] = finish(draw, [late])
    assert [pick(model(text[:place]), number(3, late, place)) for place in range(3)] == [*text]


def test_exhausted_subtrees_are_found_despite_rounding() -> None:
    """Probabilities differ by 3 % at every visit, as those of half precision may: all 8 texts come before any again."""
    for seed in range(20):
        visits = iter(range(10_000))

        def shaken(said: Text, seed: int = seed, visits: Any = visits) -> Sequence[float]:
            exact = torch.tensor(random_model(seed, 2)(said))
            noise = torch.randn(2, generator=torch.Generator().manual_seed(next(visits)))
            return (exact.log() + 0.03 * noise).softmax(0).tolist()

        texts = one_by_one(without_replacement(), samples(8, seed, model=shaken, limit=3))
        assert len(set(texts)) == 8


def test_a_negligible_share_counts_as_exhausted() -> None:
    """Behind a text of all but 1e-14 there is no second one: it comes again. Behind one of all but 1e-9 there is."""
    for rest, texts in ((1e-14, 1), (1e-9, 3)):
        rows = samples(3, model=fixed(1 - rest, rest), limit=2)
        assert len(set(one_by_one(without_replacement(), rows))) == texts


def test_the_last_remaining_texts_are_drawn_before_repeats() -> None:
    rows = samples(3, model=fixed(0.0, 1.0, 0.0), limit=3)
    assert one_by_one(without_replacement(), rows) == [(1, 1, 1)] * 3
    once = table({(): (0.9, 0.1), (0,): (0.0, 1.0), (1,): (1.0, 0.0), (0, 1): (1.0, 0.0), (1, 0): (0.0, 1.0)})
    for seed in range(20):
        texts = one_by_one(without_replacement(), samples(2, seed, model=once, limit=3))
        assert set(texts) == {(0, 1, 0), (1, 0, 1)}


@pytest.mark.slow
def test_long_texts_stay_exact() -> None:
    """Three texts of 2100 tokens that are mostly foreseeable: where each leaves the others is the paper's."""
    model = table_of_long_texts(0.9995)
    rows = samples(3, 5, model=model, limit=2100)
    wanted = expected([again(row) for row in rows])
    texts = one_by_one(without_replacement(trie_nodes=3 * 2100), rows)
    assert texts == wanted
    assert len(set(texts)) == 3
    assert sum(texts[0][:500] == text[:500] for text in texts) > 1  # they do share long prefixes


def table_of_long_texts(p: float) -> Model:
    """Mostly the token that the position asks for."""
    rest = (1 - p) / 3
    rows = [tuple(p if token == best else rest for token in range(4)) for best in range(4)]
    return lambda said: rows[len(said) % 4]


def test_a_certain_chain_of_hundreds_of_tokens_is_exhausted_by_one_sample() -> None:
    """Two texts of 500 tokens without a choice behind the first one; the third sample repeats."""
    model: Model = lambda said: (0.99, 0.01) if not said else (0.0, 1.0) if len(said) % 3 else (1.0, 0.0)  # noqa: E731
    texts = one_by_one(without_replacement(trie_nodes=3 * 500), samples(3, model=model, limit=500))
    assert texts[0] != texts[1]
    assert texts[2] in texts[:2]


# ---- groups, batches, slots


def test_results_do_not_depend_on_groups_and_batches() -> None:
    """Three prompts, each with one sample under way at a time, in any order and pace, say what each says alone."""
    prompts = [samples(5, seed + 20, seed, model=random_model(seed, 3), limit=3 + seed) for seed in range(3)]
    alone = [one_by_one(without_replacement(3), [again(row) for row in rows]) for rows in prompts]
    draw, turns = without_replacement(3), [0, 0, 0]
    while min(turns) < 5:
        under_way = [rows[turn] for rows, turn in zip(prompts, turns, strict=True) if turn < 5]
        order = torch.randperm(len(under_way)).tolist()
        advance(draw, [under_way[place] for place in order], [bool(move) for move in torch.rand(len(order)) < 0.8])
        turns = [sum(row.ended for row in rows) for rows in prompts]
    assert [[tuple(row.tokens) for row in rows] for rows in prompts] == alone


def test_slots_are_cleared_and_grow() -> None:
    model = random_model(1, 3)
    draw = without_replacement()
    first = one_by_one(draw, samples(4, 1, model=model, limit=2))
    draw.grow(3)
    assert one_by_one(draw, samples(4, 1, 2, model=model, limit=2)) == first
    [again_there] = finish(draw, [Row(0, 4, model, 1, 5, 2)])
    assert again_there not in first
    draw.clear(0)
    assert one_by_one(draw, samples(4, 1, model=model, limit=2)) == first
    assert one_by_one(draw, samples(4, 2, 1, model=model, limit=3)) == expected(samples(4, 2, model=model, limit=3))


def test_size_is_what_is_allocated() -> None:
    options = WithoutReplacementOptions()
    draw = WithoutReplacement.build(options, SHAPE, slots=2)
    assert draw.nbytes == WithoutReplacement.size(options, SHAPE, slots=2)
    assert 20 * 131072 < draw.nbytes / 2 < 20 * 131072 + 11_000
    draw.grow(3)
    assert draw.nbytes == WithoutReplacement.size(options, SHAPE, slots=3)


def test_samples_beyond_the_memory_are_ordinary_samples() -> None:
    """Two are remembered: the third one may repeat, and the fourth one is as free as the third."""
    groups = 2000
    draw = without_replacement(groups, trie_samples=2, trie_nodes=64)
    texts = [
        finish(draw, [Row(slot, index, fixed(0.9, 0.1), slot, 4, 1) for slot in range(groups)]) for index in range(4)
    ]
    assert all({*pair} == {(0,), (1,)} for pair in zip(*texts[:2], strict=True))
    for late in texts[2:]:
        assert sum(text == (0,) for text in late) == pytest.approx(0.9 * groups, abs=4 * math.sqrt(0.09 * groups))


def test_tokens_beyond_the_memory_are_drawn_from_the_model() -> None:
    """64 cells are four samples of 16 tokens: the masses of whole texts still count, what is behind is ordinary."""
    p = 0.9
    draw = without_replacement(trie_nodes=64)
    certain: Model = lambda said: (1.0, 0.0) if len(said) < 20 else (p, 1 - p)  # noqa: E731
    texts = one_by_one(draw, samples(4, 3, model=certain, limit=21))
    assert {text[:20] for text in texts} == {(0,) * 20}
    groups = 500
    draw = without_replacement(groups, trie_samples=4, trie_nodes=64)
    early: Model = lambda said: (0.5, 0.5) if not said else (1.0, 0.0) if len(said) < 20 else (p, 1 - p)  # noqa: E731
    first, second = (
        finish(draw, [Row(slot, index, early, slot, 4, 21) for slot in range(groups)]) for index in range(2)
    )
    followed = sum(a[0] == b[0] for a, b in zip(first, second, strict=True))
    drawn = [0.5 * probability(fixed(p, 1 - p), text[20:]) for text in first]
    wanted = sum((0.5 - share) / (1 - share) for share in drawn)  # what is left on the first one's side
    assert followed == pytest.approx(wanted, abs=4 * math.sqrt(0.25 * groups))


# ---- waves


def remaining(model: Model, ended: set[Text], prefix: Text, limit: int) -> float:
    """The share of what is below `prefix` that no text in `ended` has drawn, by walking the whole tree."""
    if prefix in ended:
        return 0.0
    if not any(text[: len(prefix)] == prefix for text in ended):
        return 1.0
    chances = model(prefix)
    return sum(p * remaining(model, ended, (*prefix, token), limit) for token, p in enumerate(chances) if p > 0)


def reference_step(rows: Sequence[Row], moving: Sequence[bool], pending: float, done: set[Text]) -> None:
    """One step of rows in any pace, one row after the other, as the class describes it."""
    ahead = [tuple(row.tokens) for row in rows if row.tokens and not row.ended]  # as they stood before this step
    gone: dict[Text, set[int]] = {}
    before = set(done)
    for row, moves in zip(rows, moving, strict=True):
        if row.ended or not moves:
            continue
        said = tuple(row.tokens)
        weights = []
        for token, p in enumerate(row.model(said)):
            child = (*said, token)
            under_way = sum(probability_after(row.model, child, text) for text in ahead if text[: len(child)] == child)
            weight = p * remaining(row.model, before, child, row.limit) * (1 - pending * min(1.0, under_way))
            if token in gone.get(said, ()):
                ends = len(child) == row.limit or token in row.stops
                weight *= 0.0 if ends else 1 - pending
            weights.append(weight)
        if sum(weights) < 1e-12:
            weights = [*row.model(said)]
        token = pick(weights, number(3, row, len(said)))
        gone.setdefault(said, set()).add(token)
        row.tokens.append(token)
        if row.ended:
            done.add(tuple(row.tokens))


def probability_after(model: Model, prefix: Text, text: Text) -> float:
    return math.prod(model(text[:place])[text[place]] for place in range(len(prefix), len(text)))


@pytest.mark.parametrize("pending", [0.0, 0.5, 0.9])
def test_waves_at_any_pace_agree_with_the_description(pending: float) -> None:
    """Twelve samples of one prompt with 64 texts, two to four under way at a time, in lockstep or not."""
    for seed in range(6):
        model = random_model(seed, 4, 2.0)
        ours = samples(12, seed, model=model, limit=3)
        theirs = [again(row) for row in ours]
        draw, done = without_replacement(draw_pending=pending), set[Text]()
        start = 0
        while start < 12:
            wave = slice(start, start + 2 + seed % 3)
            while not all(row.ended for row in theirs[wave]):
                chances = torch.rand(len(theirs[wave])) < (1.0 if seed < 3 else 0.6)
                moving = [bool(move) for move in chances]
                reference_step(theirs[wave], moving, pending, done)
                advance(draw, ours[wave], moving)
                assert [row.tokens for row in ours[wave]] == [row.tokens for row in theirs[wave]]
            start = wave.stop


def test_rows_at_one_node_draw_in_the_order_of_their_indices() -> None:
    """At the last token all rows of a step draw without replacement, whatever their order in the batch."""
    for seed in range(10):
        model = fixed(0.05, 0.5, 0.25, 0.15, 0.05)
        wanted = expected(samples(5, seed, model=model, limit=1))
        rows = samples(5, seed, model=model, limit=1)
        finish(without_replacement(), [rows[place] for place in torch.randperm(5).tolist()])
        assert [tuple(row.tokens) for row in rows] == wanted
        assert len(set(wanted)) == 5


def test_a_likely_token_stays_likely_in_a_wave() -> None:
    """16 rows at a node with (.999, .001): the unlikely token has .002 of what is left with half pending, not all."""
    groups = 200
    rows = [row for slot in range(groups) for row in samples(16, slot, slot, model=fixed(0.999, 0.001), limit=50)]
    draw = without_replacement(groups, trie_nodes=1024)
    advance(draw, rows)
    unlikely = sum(row.tokens == [1] for row in rows)
    assert unlikely == pytest.approx(groups * (0.001 + 15 * 0.002), abs=4 * math.sqrt(groups * 0.031))


def test_a_wave_draws_no_finished_text_while_any_is_left_below_its_node() -> None:
    """All rows of a wave end at one node: each takes another end, until there is none."""
    model = table({(): (1.0, 0.0, 0.0), (0,): (0.98, 0.015, 0.005)})
    for pending in (0.0, 0.5):
        draw = without_replacement(draw_pending=pending)
        texts = finish(draw, samples(4, 1, model=model, limit=2))
        assert sorted(texts[:3]) == [(0, 0), (0, 1), (0, 2)]
        assert texts[3] in texts[:3]


def test_a_text_drawn_twice_is_removed_once() -> None:
    """Two rows of a wave go to 00 (p = .6 * .9), where there is one text: .06 is left on that side of .46 in all."""
    groups = 1500
    model = table(
        {(): (0.6, 0.4), (0,): (0.9, 0.1), (1,): (0.5, 0.5)} | dict.fromkeys(product(range(2), repeat=2), (1.0, 0.0))
    )
    draw = without_replacement(groups, draw_pending=0.0, trie_samples=3, trie_nodes=64)
    firsts = finish(draw, [Row(slot, index, model, slot, 3, 3) for slot in range(groups) for index in (0, 1)])
    third = finish(draw, [Row(slot, 2, model, slot, 3, 3) for slot in range(groups)])
    twice = [slot for slot in range(groups) if firsts[2 * slot] == firsts[2 * slot + 1] == (0, 0, 0)]
    assert len(twice) > 300
    again_there = sum(third[slot] == (0, 1, 0) for slot in twice)
    share = 0.06 / 0.46
    assert again_there == pytest.approx(share * len(twice), abs=3 * math.sqrt(share * (1 - share) * len(twice)))
    assert not any(third[slot] == (0, 0, 0) for slot in twice)


def followers(draw: WithoutReplacement, first: Sequence[Row], limit: int) -> float:
    """In what share of the groups the next sample starts as the first one did."""
    seconds = finish(draw, [again(row, index=1, limit=limit) for row in first])
    return sum(row.tokens[0] == text[0] for row, text in zip(first, seconds, strict=True)) / len(first)


def test_a_restarted_sample_is_a_new_sample() -> None:
    """An index that comes anew, at position 0, does not avoid what it said before, and what it says counts once.

    One text of four has been drawn: the next sample goes its way with (.5 - .25) / .75.
    """
    groups = 1000
    draw = without_replacement(groups, trie_samples=4, trie_nodes=64)
    first = [Row(slot, 0, fixed(0.5, 0.5), slot, 4, 2) for slot in range(groups)]
    once = finish(draw, first)
    first = [again(row) for row in first]
    assert finish(draw, first) == once
    assert followers(draw, first, 2) == pytest.approx(1 / 3, abs=0.045)


def test_sampled_tokens_are_recorded_and_not_chosen_ones() -> None:
    """A grammar gives the first sample the text 11: it is this one that is not drawn again."""
    for seed in range(10):
        model = random_model(seed, 2)
        draw = without_replacement()
        finish(draw, [Row(0, 0, model, seed, 4, 2, forced={0: 1, 1: 1})])
        texts = one_by_one(draw, [Row(0, index, model, seed, 4, 2) for index in (1, 2, 3)])
        assert set(texts) == {(0, 0), (0, 1), (1, 0)}


def test_a_row_with_a_missing_token_is_not_stored() -> None:
    """Its text is not known, so nothing of it is taken: the next sample goes its way with .5."""
    groups = 1000
    draw = without_replacement(groups, draw_pending=0.0, trie_samples=4, trie_nodes=64)
    first = [Row(slot, 0, fixed(0.5, 0.5), slot, 4, 3) for slot in range(groups)]
    advance(draw, first)
    for row in first:
        row.tokens.append(0)  # told to nobody
    finish(draw, first)
    assert followers(draw, first, 3) == pytest.approx(0.5, abs=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["arithmetic", "without_replacement"])
def test_a_gpu_draws_the_same_without_synchronising(method: str) -> None:
    own: Any = registry.part(method)
    texts = []
    for device in ("cpu", "cuda"):
        draw = own.build(own.options(), replace(SHAPE, device=torch.device(device)), slots=2)
        rows = [row for slot in range(2) for row in samples(4, slot, slot, model=random_model(slot, 5), limit=6)]
        texts.append(finish(OnDevice(draw, device), rows))
    assert texts[0] == texts[1]


class OnDevice:
    """Hands steps to a draw on a device, where it is an error if anything waits for the host."""

    def __init__(self, draw: Any, device: str) -> None:
        self.draw, self.device = draw, device

    def choose(self, logits: torch.Tensor, step: DecodeStep) -> torch.Tensor:
        layout = RowLayout(step.layout.slots.to(self.device), step.layout.place.to(self.device), step.layout.lanes)
        rows = Rows(**{name: value.to(self.device) for name, value in vars(step.rows).items()})
        self.step = replace(step, layout=layout, rows=rows, live=step.live.to(self.device))
        logits = logits.to(self.device)
        with self.watched():
            chosen = self.draw.choose(logits, self.step)
        return chosen.cpu()

    def observe(self, step: DecodeStep, tokens: torch.Tensor, live: torch.Tensor) -> None:
        tokens = tokens.to(self.device)
        with self.watched():
            self.draw.observe(self.step, tokens, self.step.live)

    @contextmanager
    def watched(self) -> Iterator[None]:
        if self.device != "cuda":
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_waves_are_even_and_too_many_samples_are_refused() -> None:
    waves = WithoutReplacement.waves
    assert waves(WithoutReplacementOptions(), 5) == (1, 1, 1, 1, 1)
    assert waves(WithoutReplacementOptions(draw_waves=3), 8) == (3, 3, 2)
    assert waves(WithoutReplacementOptions(draw_waves=9), 2) == (1, 1)
    with pytest.raises(OptionError, match="set trie_samples = 257"):
        waves(WithoutReplacementOptions(), 257)
    with pytest.raises(OptionError, match="set trie_nodes = 65"):
        waves(WithoutReplacementOptions(trie_nodes=64), 65)
    with pytest.raises(OptionError, match="temperature = 0"):
        WithoutReplacement.sampler(WithoutReplacementOptions(), Sampling(temperature=0))
    with pytest.raises(OptionError, match="leave out stop"):
        WithoutReplacement.sampler(WithoutReplacementOptions(), Sampling(stop=("a",)))


# ---- through the engine

PROMPT = "Numbers 3 5 8 9 target 24"
FEW = Sampling(max_tokens=3, temperature=0.9, top_k=4)


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load()


def asked(name: str = "without_replacement", **changes: Any) -> Request:
    options = changes.pop("options", {})
    settings = dict(n=6, sampling=FEW, method=name, options=registry.get(name).options(**options)) | changes
    return Request(settings.pop("id", "r"), settings.pop("prompt", PROMPT), **settings)


def said(engine: HFEngine, *requests: Request) -> list[list[Text]]:
    return [[sample.token_ids for sample in done.samples] for done in engine.generate(requests)]


def model_of(engine: HFEngine, prompt: str, sampling: Sampling) -> Model:
    """Final distributions by prefix, each from a pass over the whole text."""
    ids, known = engine.tokenizer(prompt)["input_ids"], dict[Text, list[float]]()

    def probabilities(said: Text) -> list[float]:
        if said not in known:
            with torch.inference_mode():
                logits = engine.model(torch.tensor([[*ids, *said]])).logits[0, -1].double() / sampling.temperature
            low = logits.topk(sampling.top_k).values[-1]
            known[said] = logits.masked_fill(logits < low, -torch.inf).softmax(-1).tolist()
        return known[said]

    return probabilities


def test_the_engines_texts_agree_with_the_paper(engine: HFEngine) -> None:
    request = asked()
    [texts] = said(engine, request)
    ends = engine.model.generation_config.eos_token_id
    stops = tuple(ends) if isinstance(ends, list) else (ends,)
    model = model_of(engine, PROMPT, FEW)
    assert texts == expected(samples(6, request.own_seed, model=model, limit=3, stops=stops))
    assert len(set(texts)) == 6


def test_texts_do_not_depend_on_the_batch(engine: HFEngine) -> None:
    requests = [asked(id=str(seed), seed=seed) for seed in range(2)]
    together = said(engine, *requests)
    narrow = HFEngine(engine.model, engine.tokenizer, batch_rows=1)
    assert said(narrow, *requests) == together
    assert [len(set(texts)) for texts in together] == [6, 6]


def test_waves_combine_with_a_method_of_states(engine: HFEngine) -> None:
    longer = Sampling(max_tokens=10)
    [waves] = said(engine, asked(options={"draw_waves": 2}, sampling=longer))
    assert len(set(waves)) == 6
    [steered] = said(engine, asked("esamp+without_replacement", options={"beta": 1.0}, sampling=FEW))
    assert len(set(steered)) == 6


def test_invalid_requests_are_refused_by_the_engine(engine: HFEngine) -> None:
    with pytest.raises(OptionError, match="temperature"):
        said(engine, asked(sampling=Sampling(temperature=0)))
    with pytest.raises(OptionError, match="leave out stop"):
        said(engine, asked(sampling=Sampling(stop=("left",))))
    with pytest.raises(OptionError, match="set trie_samples = 300"):
        said(engine, asked(n=300))
