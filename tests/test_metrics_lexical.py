from collections import Counter
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import InputError
from esamp.metrics.lexical import distinct_n, ngram_embedding, self_bleu
from esamp.metrics.vendi import mean_cosine, vendi_score

# A text is a sequence of tokens too: its characters.
SAMPLES = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=2, max_size=6)


def test_distinct_n_matches_hand_computed_values() -> None:
    samples = ["abab", "abc", "a"]
    assert distinct_n(samples, 1) == pytest.approx(3 / 8)
    assert distinct_n(samples, 2) == pytest.approx(3 / 5)  # ab, ba, bc among ab ba ab, ab bc
    assert np.isnan(distinct_n(samples, 5))
    with pytest.raises(InputError):
        distinct_n(samples, 0)


def test_self_bleu_matches_hand_computed_values() -> None:
    copies = ["abcadb"] * 3
    assert self_bleu(copies) == pytest.approx(1)
    assert self_bleu(["ab", "cd"]) == 0
    # a b c against a b d: 2/3 of the words, 1/2 of the pairs, no triple: half a match of 1
    assert self_bleu(["abc", "abd"]) == pytest.approx((2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3))
    # the first is shorter than its reference: brevity exp(1 - 4/2); the second holds 2 of 4 words and 1 of 3 pairs
    short = exp(-1)
    long = (2 / 4 * 1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** (1 / 4)
    assert self_bleu(["ab", "abcd"]) == pytest.approx((short + long) / 2)
    assert np.isnan(self_bleu(["a"]))


def test_matches_are_clipped_at_the_largest_count_in_one_reference() -> None:
    # "a" three times against references with two and one: clipped at 2, not at 2 + 1
    score = self_bleu(["aaa", "aab", "abb"], max_n=1)
    assert score == pytest.approx((2 / 3 + 3 / 3 + 2 / 3) / 3)


@given(SAMPLES)
def test_self_bleu_agrees_with_sacrebleu(samples: list[list[int]]) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics", reason="pip install sacrebleu to compare with it")
    bleu = metrics.BLEU(tokenize="none", effective_order=True)
    texts = [" ".join(map(str, sample)) for sample in samples]
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score / 100 for i, text in enumerate(texts)]
    assert self_bleu(samples) == pytest.approx(sum(scores) / len(scores), abs=1e-9)


@given(SAMPLES, st.integers(1, 4))
def test_ngram_kernel_equals_the_mean_cosine_of_counts(samples: list[list[int]], max_n: int) -> None:
    def counts(sample: list[int], order: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(sample[i : i + order]) for i in range(len(sample) - order + 1))

    def cosine(a: Counter[tuple[int, ...]], b: Counter[tuple[int, ...]]) -> float:
        norm = sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(a[gram] * b[gram] for gram in a) / norm if norm else 0.0

    rows = ngram_embedding(samples, max_n)
    expected = [
        [sum(cosine(counts(a, n), counts(b, n)) for n in range(1, max_n + 1)) for b in samples] for a in samples
    ]
    np.testing.assert_allclose(rows @ rows.T, expected, atol=1e-12)


def test_vendi_score_of_ngram_embeddings_matches_hand_computed_values() -> None:
    assert vendi_score(ngram_embedding([[1, 2, 3, 4]] * 3)) == pytest.approx(1)
    assert vendi_score(ngram_embedding([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]])) == pytest.approx(3)
    assert vendi_score(ngram_embedding([[], [], [1, 2]])) == pytest.approx(np.exp(np.log(3) - 2 / 3 * np.log(2)))
    # one of two words and none of the pairs are shared: cosine (1/2 + 0) / 2
    assert mean_cosine(ngram_embedding(["ab", "ac"], max_n=2)) == pytest.approx(1 / 4)


def test_long_samples_need_columns_for_shared_ngrams_only() -> None:
    samples = [list(range(start, start + 5000)) for start in (0, 4990, 20_000)]
    assert ngram_embedding(samples).shape == (3, (10 + 3) + (9 + 3) + (8 + 3) + (7 + 3))
