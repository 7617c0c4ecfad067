"""Tables of tokens for the novelty analysis: measurements at a token, and the semantic distance of the text before it.

The semantic distance of a token is one minus the largest cosine between the embedding of the passage before it (the
last `PASSAGE` tokens of its sample) and the embeddings of the passages that other samples of the group had written by
then: up to the same step for samples of the same wave, and all passages for samples of earlier waves.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.load import Block
from esamp.metrics.embedding import Embed
from esamp.study.records import SampleRecord

SIGNALS = ("novelty", "residual", "cosine", "explained")
"""Series of a trace that come from the prediction error of a method."""
COVARIATES = ("rarity", "rarity read", "entropy", "surprisal", "position")
"""Quantities that may explain a signal."""
PASSAGE = 40
"""Tokens of a passage: about 30 words."""
TOKENS = 128
"""Largest number of tokens of a group in its table: every S-th token of each sample, with one stride S per block."""


@dataclass(frozen=True)
class TracedGroup:
    """The samples of one problem and seed, all with traces."""

    problem: str
    seed: int
    samples: tuple[SampleRecord, ...]

    @property
    def tokens(self) -> int:
        """The number of tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)


@dataclass(frozen=True)
class _Passage:
    """The token that a sample drew when it had `step` tokens, and the passage before it."""

    sample: SampleRecord
    wave: int
    step: int
    passage: str


def groups(block: Block, label: str) -> Iterator[TracedGroup]:
    """The arm's groups if all of its samples have traces and texts and some token has a signal; otherwise nothing."""
    found = [
        TracedGroup(item, seed, records[item].samples)
        for seed, records in block.arms[label].items()
        for item in block.items
    ]
    samples = [sample for group in found for sample in group.samples]
    if block.n > 1 and all(map(_traced, samples)) and any(map(_has_signal, samples)):
        yield from found


def _traced(sample: SampleRecord) -> bool:
    return not (sample.trace is None or sample.pieces is None or sample.token_ids is None)


def _has_signal(sample: SampleRecord) -> bool:
    trace = sample.trace or {}
    return any(value is not None for name in SIGNALS for value in trace.get(name, ()))


def rarities(block: Block) -> dict[int, float]:
    """The rarity of each token: -log of its share of all tokens generated in the block, in nats."""
    counts: Counter[int] = Counter()
    for records in chain.from_iterable(arm.values() for arm in block.arms.values()):
        for item in block.items:
            for sample in records[item].samples:
                counts.update(sample.token_ids or ())
    total = counts.total()
    return {token: -math.log(count / total) for token, count in counts.items()}


@dataclass(frozen=True)
class PassageTable:
    """Quantities at some tokens of one group."""

    problem: str
    columns: Mapping[str, NDArray[np.float64]]
    """`[tokens]` for each quantity, including "distance"; NaN where not measured"""
    cells: Sequence[tuple[int, str, int, int]]
    """seed, problem, wave and step of each token"""


def tabulate(
    group: TracedGroup, starts: NDArray[np.int_], stride: int, encode: Embed, rarity: Mapping[int, float]
) -> PassageTable:
    """The table of every `stride`-th token of each sample.

    Args:
        group: the samples.
        starts: for each wave, the number of samples in it and in earlier waves.
        stride: distance between tokens of the table, in tokens.
        encode: called once, with the distinct passages of the group.
        rarity: from `rarities`.
    """
    rows = [
        _Passage(sample, int(np.searchsorted(starts, sample.index, side="right")), step, passage)
        for sample in group.samples
        for step in range(stride, sample.tokens, stride)
        if (passage := "".join((sample.pieces or ())[max(0, step - PASSAGE) : step]).strip())
    ]
    columns: dict[str, list[float]] = {name: [] for name in (*SIGNALS, *COVARIATES)}
    for row in rows:
        trace, ids = row.sample.trace or {}, row.sample.token_ids or ()
        for name in (*SIGNALS, "entropy", "surprisal"):
            value = trace[name][row.step] if name in trace else None
            columns[name].append(math.nan if value is None else value)
        columns["rarity"].append(rarity[ids[row.step]])
        columns["rarity read"].append(rarity[ids[row.step - 1]])
        columns["position"].append(row.step)
    found = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    cells = [(group.seed, group.problem, row.wave, row.step) for row in rows]
    return PassageTable(group.problem, {**found, "distance": _distances(rows, encode)}, cells)


def _distances(rows: Sequence[_Passage], encode: Embed) -> NDArray[np.float64]:
    """The semantic distance of each passage; NaN where no other sample had written anything."""
    if not rows:
        return np.empty(0)
    texts = list(dict.fromkeys(row.passage for row in rows))
    number = {text: index for index, text in enumerate(texts)}
    vectors = encode(texts)[[number[row.passage] for row in rows]].astype(np.float64)
    sample, wave, step = np.array([(row.sample.index, row.wave, row.step) for row in rows]).T
    earlier = wave[None, :] < wave[:, None]
    together = (wave[None, :] == wave[:, None]) & (step[None, :] <= step[:, None])
    written = (sample[None, :] != sample[:, None]) & (earlier | together)
    nearest = np.where(written, vectors @ vectors.T, -np.inf).max(axis=1)
    return np.where(written.any(axis=1), 1 - nearest, np.nan)
