"""The novelty analysis: does the novelty signal of a method measure how new a text is?

The semantic distance of `esamp.analysis.passages` is correlated with

* the **signals**: ||e||, ||hL - y|| before the gate, cos(e, w) of the drawn token, the row's explained variance;
* the **covariates** that may explain a signal: the rarity of the token and of the one before it, entropy and surprisal
  under the reference distribution, the position in the sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.passages import COVARIATES, SIGNALS, TOKENS, PassageTable, groups, rarities, tabulate
from esamp.methods import registry
from esamp.metrics.embedding import Embed
from esamp.metrics.intervals import Interval
from esamp.metrics.partial import PartialCorrelation, intervals
from esamp.study.config import Study

RESAMPLES = 1000
FEWEST = 20
"""Arms with fewer tokens have no result."""


@dataclass(frozen=True)
class Relation:
    """Spearman's correlations of one quantity with the semantic distance and with the covariates."""

    quantity: str
    """one of SIGNALS or COVARIATES"""
    raw: Interval
    """with the distance"""
    partial: Interval
    """with the distance, given the covariates, without the quantity itself if it is one"""
    within: Interval
    """the same, only between samples of one group at the same step"""
    covariates: Mapping[str, Interval]
    """with each covariate"""


@dataclass(frozen=True)
class ArmNovelty:
    """The correlations in one arm."""

    block: Block
    arm: str
    problems: int
    tokens: int
    """number of tokens with all quantities measured"""
    stride: int
    """distance between the analysed tokens of a sample, in tokens"""
    relations: tuple[Relation, ...]


def waves(study: Study, block: Block) -> dict[str, tuple[int, ...]]:
    """The sizes of the waves in which each arm starts the samples of a group, by label; for `analyse`."""
    limit = next(model.batch_rows for model in study.models if model.name == block.model)
    sizes_by_arm = {}
    for arm in study.arms:
        sizes = registry.get(arm.method).waves(arm.options, block.n)
        batches = (batch for size in sizes for batch in [limit] * (size // limit) + [size % limit] if batch)
        sizes_by_arm[arm.label] = tuple(batches)
    return sizes_by_arm


def analyse(
    block: Block,
    encode: Embed,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    waves: Mapping[str, Sequence[int]] | None = None,
    resamples: int = RESAMPLES,
) -> list[ArmNovelty]:
    """The correlations of every arm that has traces, texts and a signal. Private tasks have no texts.

    Args:
        block: all arms on one model and task.
        encode: texts to unit vectors; called once per group, with its distinct passages.
        on_progress: called with the number of embedded groups and the number of all groups.
        waves: sizes of each arm's waves, by label; arms that are missing start all samples together.
        resamples: number of bootstrap replicates.
    """
    arms = {label: arm_groups for label in block.arms if (arm_groups := list(groups(block, label)))}
    total = sum(map(len, arms.values()))
    largest = max((group.tokens for arm_groups in arms.values() for group in arm_groups), default=0)
    stride = max(1, math.ceil(largest / TOKENS))
    rarity, done, results = rarities(block), 0, []
    for label, arm_groups in arms.items():
        starts = np.cumsum((waves or {}).get(label, (block.n,)))
        tables = []
        for group in arm_groups:
            tables.append(tabulate(group, starts, stride, encode, rarity))
            done += 1
            on_progress(done, total)
        results.append(_related(block, label, stride, tables, resamples))
    return [result for result in results if result is not None]


def _related(block: Block, arm: str, stride: int, tables: Sequence[PassageTable], resamples: int) -> ArmNovelty | None:
    """The correlations over the tokens with all quantities that the arm measures; None for too few tokens."""
    columns = {name: np.concatenate([part.columns[name] for part in tables]) for name in tables[0].columns}
    names = [name for name, values in columns.items() if np.isfinite(values).any()]
    table = np.column_stack([columns[name] for name in names]) if names else np.empty((0, 0))
    complete = np.isfinite(table).all(axis=1)
    if complete.sum() < FEWEST or not {"distance", *COVARIATES} <= set(names):
        return None
    problems = np.array([part.problem for part in tables for _ in part.cells])[complete]
    cells = list(chain.from_iterable(part.cells for part in tables))
    numbers = {cell: index for index, cell in enumerate(dict.fromkeys(cells))}
    cell = np.array([numbers[key] for key in cells])[complete]
    quantities = [name for name in (*SIGNALS, *COVARIATES) if name in names]
    pairs = [pair for name in quantities for pair in _pairs(name, names)]
    rng = np.random.default_rng(0)
    found = iter(intervals(table[complete], problems, pairs, rng, cells=cell, resamples=resamples))
    relations = tuple(
        Relation(name, next(found), next(found), next(found), {covariate: next(found) for covariate in COVARIATES})
        for name in quantities
    )
    return ArmNovelty(block, arm, len(set(problems)), int(complete.sum()), stride, relations)


def _pairs(name: str, names: Sequence[str]) -> list[PartialCorrelation]:
    """The correlations of a quantity: with the distance raw, partial and within; then with each covariate."""
    x, y = names.index(name), names.index("distance")
    given = tuple(names.index(covariate) for covariate in COVARIATES if covariate != name)
    with_distance = [
        PartialCorrelation(x, y),
        PartialCorrelation(x, y, given),
        PartialCorrelation(x, y, given, within=True),
    ]
    return with_distance + [PartialCorrelation(x, names.index(covariate)) for covariate in COVARIATES]
