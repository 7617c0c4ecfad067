"""Lexical diversity: n-grams of token ids or words, without a model.

A sample is a sequence of tokens of any hashable type. A string is the sequence of its characters, so split it into
words first. Numbers are comparable only between samples of the same tokenizer.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from esamp.errors import InputError

Tokens = Sequence[Hashable]


def distinct_n(samples: Sequence[Tokens], n: int) -> float:
    """Distinct-n (Li et al., 2016): the number of different n-grams over the number of all, pooled over the samples.

    In (0, 1]; NaN when no sample has n tokens. It decreases with the length of texts, so compare equal lengths.
    """
    counts = [_ngrams(sample, n) for sample in samples]
    total = sum(count.total() for count in counts)
    return len(set().union(*counts)) / total if total else float("nan")


def self_bleu(samples: Sequence[Tokens], max_n: int = 4) -> float:
    """Self-BLEU (Zhu et al., 2018): the mean BLEU of each sample against all others as its references.

    In [0, 1]; 1 for copies, 0 where no word is shared; NaN for fewer than two samples. This is sentence BLEU: orders
    for which the sample is too short are excluded, orders without a match count as 1/2, 1/4, ... matches, and the
    brevity penalty uses the reference of the closest length (the shorter of two equally close ones). An empty sample
    has a BLEU of 0.
    """
    if len(samples) < 2:
        return float("nan")
    lengths = [len(sample) for sample in samples]
    matched = np.zeros((len(samples), max_n), dtype=np.int64)
    for order in range(1, max_n + 1):
        matched[:, order - 1] = _matches([_ngrams(sample, order) for sample in samples])
    scores = []
    for index, length in enumerate(lengths):
        others = lengths[:index] + lengths[index + 1 :]
        reference = min(others, key=lambda other: (abs(other - length), other))
        scores.append(_bleu(matched[index].tolist(), length, reference))
    return sum(scores) / len(scores)


def ngram_embedding(samples: Sequence[Tokens], max_n: int = 4) -> NDArray[np.float64]:
    """Embedding whose cosine kernel is the n-gram kernel of the Vendi paper, for `vendi_score` and `mean_cosine`.

    For each order 1..max_n the vectors of n-gram counts are scaled to norm 1, so that all orders have the same weight:
    for samples of at least max_n tokens the kernel is the mean of the orders' cosine kernels. N-grams that occur in
    only one sample share one column per sample and order, which leaves all scalar products unchanged.

    Returns:
        `[samples, features]` float64; a row is zero for an empty sample.
    """
    blocks = [_count_block([_ngrams(sample, order) for sample in samples]) for order in range(1, max_n + 1)]
    return np.hstack(blocks) if blocks else np.zeros((len(samples), 0))


def _ngrams(tokens: Tokens, n: int) -> Counter[tuple[Hashable, ...]]:
    if n < 1:
        raise InputError(f"n = {n}: an n-gram has at least one token")
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _matches(counts: list[Counter[tuple[Hashable, ...]]]) -> list[int]:
    """For each sample, its n-grams that occur in others, each clipped at its largest count in any other sample."""
    best: dict[tuple[Hashable, ...], tuple[int, int, int]] = {}  # largest count, its sample, largest count elsewhere
    for owner, count in enumerate(counts):
        for gram, times in count.items():
            first, holder, second = best.get(gram, (0, owner, 0))
            best[gram] = (times, owner, first) if times > first else (first, holder, max(second, times))
    matches = [0] * len(counts)
    for owner, count in enumerate(counts):
        for gram, times in count.items():
            first, holder, second = best[gram]
            matches[owner] += min(times, second if holder == owner else first)
    return matches


def _bleu(matched: list[int], length: int, reference: int) -> float:
    """BLEU of one sample from its matches by order, its length and its reference's length in tokens."""
    if not any(matched):
        return 0.0
    logs, smoothing = [], 1.0
    for order, hits in enumerate(matched, start=1):
        total = length - order + 1
        if total <= 0:
            break
        if hits == 0:
            smoothing *= 2
        logs.append(log((hits or 1 / smoothing) / total))
    brevity = 1.0 if length >= reference else exp(1 - reference / length)
    return brevity * exp(sum(logs) / len(logs))


def _count_block(counts: list[Counter[tuple[Hashable, ...]]]) -> NDArray[np.float64]:
    """Rows of norm 1: a column for each shared n-gram, then one per sample for the n-grams that only it has."""
    holders = Counter(gram for count in counts for gram in count)
    columns = {gram: column for column, gram in enumerate(gram for gram, rows in holders.items() if rows > 1)}
    block = np.zeros((len(counts), len(columns) + len(counts)))
    for row, count in enumerate(counts):
        unshared = 0
        for gram, times in count.items():
            if gram in columns:
                block[row, columns[gram]] = times
            else:
                unshared += times * times
        block[row, len(columns) + row] = sqrt(unshared)
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    return np.asarray(block / np.where(norms > 0, norms, 1.0), dtype=np.float64)
