"""For some tokens of a group's samples: what was measured there, and how new the text before them is.

The semantic distance of a token is one minus the largest cosine between the embedding of the passage before it (the
last `PASSAGE` tokens of its sample) and the embeddings of all passages that other samples of the group had written by
then: of samples of the same wave up to the same step, of samples of earlier waves all.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.load import Block
from esamp.study.records import SampleRecord

Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit vectors `[texts, d]`, such as `esamp.metrics.embedding.SentenceEmbedder.encode`."""

SIGNALS = ("novelty", "residual", "cosine", "explained")
"""Series of a trace that a method's error gives."""
COVARIATES = ("rarity", "rarity read", "entropy", "surprisal", "position")
"""What a signal may be made of."""
PASSAGE = 40
"""Tokens of a passage: about 30 words."""
TOKENS = 128
"""Most tokens of a group that are looked at: every S-th of each sample, with one S for a whole block."""


@dataclass(frozen=True)
class Group:
    """The samples of one problem and seed, all of them traced."""

    problem: str
    seed: int
    samples: tuple[SampleRecord, ...]

    @property
    def tokens(self) -> int:
        """Of all samples."""
        return sum(sample.tokens for sample in self.samples)


@dataclass(frozen=True)
class _Row:
    """One token that is looked at, drawn at `step` when its sample had so many tokens."""

    sample: SampleRecord
    wave: int
    step: int
    passage: str


def groups(block: Block, label: str) -> Iterator[Group]:
    """The arm's groups, if all of its samples have traces and texts, and some token has a signal."""
    found = [
        Group(item, seed, records[item].samples) for seed, records in block.arms[label].items() for item in block.items
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
    """-log of each token's share of all tokens that any arm of the block generated, in nats."""
    counts: Counter[int] = Counter()
    for records in chain.from_iterable(arm.values() for arm in block.arms.values()):
        for item in block.items:
            for sample in records[item].samples:
                counts.update(sample.token_ids or ())
    total = counts.total()
    return {token: -math.log(count / total) for token, count in counts.items()}


@dataclass(frozen=True)
class Table:
    """The tokens of one group that are looked at."""

    problem: str
    columns: Mapping[str, NDArray[np.float64]]
    """`[tokens]` by quantity, "distance" among them; NaN where not measured"""
    cells: Sequence[tuple[int, str, int, int]]
    """seed, problem, wave and step of each"""


def tabulate(group: Group, starts: NDArray[np.int_], stride: int, encode: Encode, rarity: Mapping[int, float]) -> Table:
    """Look at every `stride`-th token of each sample.

    Args:
        group: whose samples.
        starts: of each wave, the number of samples in it and in those before it.
        stride: in tokens.
        encode: called once, with the group's different passages.
        rarity: of `rarities`.
    """
    rows = [
        _Row(sample, int(np.searchsorted(starts, sample.index, side="right")), step, passage)
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
    return Table(group.problem, {**found, "distance": _distances(rows, encode)}, cells)


def _distances(rows: Sequence[_Row], encode: Encode) -> NDArray[np.float64]:
    """Semantic distance of each row's passage; NaN where no other sample had written anything."""
    if not rows:
        return np.empty(0)
    texts = list(dict.fromkeys(row.passage for row in rows))
    place = {text: number for number, text in enumerate(texts)}
    vectors = encode(texts)[[place[row.passage] for row in rows]].astype(np.float64)
    sample, wave, step = np.array([(row.sample.index, row.wave, row.step) for row in rows]).T
    earlier = wave[None, :] < wave[:, None]
    together = (wave[None, :] == wave[:, None]) & (step[None, :] <= step[:, None])
    written = (sample[None, :] != sample[:, None]) & (earlier | together)
    nearest = np.where(written, vectors @ vectors.T, -np.inf).max(axis=1)
    return np.where(written.any(axis=1), 1 - nearest, np.nan)
