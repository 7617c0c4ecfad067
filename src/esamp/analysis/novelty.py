"""Does the novelty signal mean novelty? What was measured at every token, against how new the text there is.

The semantic distance of `esamp.analysis.passages` is compared with

* the **signals**: ||e||, ||hL - y|| before the gate, cos(e, w) of the token drawn, the row's explained variance;
* the **covariates**, which may be all that a signal is made of: how rare the token is and the one before it, entropy
  and surprisal under the reference distribution, the position in the sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from esamp.analysis.load import Block
from esamp.analysis.passages import COVARIATES, SIGNALS, TOKENS, Encode, Table, groups, rarities, tabulate
from esamp.methods import registry
from esamp.metrics.intervals import Interval
from esamp.metrics.partial import Pair, intervals
from esamp.study.config import Study

RESAMPLES = 1000
FEWEST = 20
"""With fewer tokens nothing is said of an arm."""


@dataclass(frozen=True)
class Relation:
    """How one quantity goes with the semantic distance and with the covariates: Spearman's correlations."""

    quantity: str
    """one of SIGNALS or COVARIATES"""
    raw: Interval
    """with the distance"""
    partial: Interval
    """the same, given the covariates (the other ones, if it is one itself)"""
    within: Interval
    """given them, and only between samples of one group that are at the same step"""
    covariates: Mapping[str, Interval]
    """with each covariate"""


@dataclass(frozen=True)
class ArmNovelty:
    """What was found in one arm."""

    block: Block
    arm: str
    problems: int
    tokens: int
    """with all of the quantities measured"""
    stride: int
    """every so many tokens of a sample one was looked at"""
    relations: tuple[Relation, ...]


def waves(study: Study, block: Block) -> dict[str, tuple[int, ...]]:
    """How many samples of a group each arm starts together, wave by wave; for `analyse`."""
    limit = next(model.batch_rows for model in study.models if model.name == block.model)
    found = {}
    for arm in study.arms:
        sizes = registry.get(arm.method).waves(arm.options, block.n)
        cut = (part for size in sizes for part in [limit] * (size // limit) + [size % limit] if part)
        found[arm.label] = tuple(cut)
    return found


def analyse(
    block: Block,
    encode: Encode,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    waves: Mapping[str, Sequence[int]] | None = None,
    resamples: int = RESAMPLES,
) -> list[ArmNovelty]:
    """Look at every arm of a block that has a signal, traces and texts; of private tasks there are no texts.

    Args:
        block: all arms on one model and task.
        encode: texts to unit vectors; called once a group with its different passages.
        on_progress: told how many groups of how many are embedded.
        waves: sizes of each arm's waves, by its label; an arm that is not in it decodes all samples together.
        resamples: replicates of the bootstrap.
    """
    arms = {label: found for label in block.arms if (found := list(groups(block, label)))}
    total = sum(map(len, arms.values()))
    largest = max((group.tokens for found in arms.values() for group in found), default=0)
    stride = max(1, math.ceil(largest / TOKENS))
    rarity, done, results = rarities(block), 0, []
    for label, found in arms.items():
        starts = np.cumsum((waves or {}).get(label, (block.n,)))
        parts = []
        for group in found:
            parts.append(tabulate(group, starts, stride, encode, rarity))
            done += 1
            on_progress(done, total)
        results.append(_related(block, label, stride, parts, resamples))
    return [result for result in results if result is not None]


def _related(block: Block, arm: str, stride: int, parts: Sequence[Table], resamples: int) -> ArmNovelty | None:
    """The correlations over all tokens that have everything measured that the arm measures at all."""
    every = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    names = [name for name, values in every.items() if np.isfinite(values).any()]
    table = np.column_stack([every[name] for name in names]) if names else np.empty((0, 0))
    whole = np.isfinite(table).all(axis=1)
    if whole.sum() < FEWEST or not {"distance", *COVARIATES} <= set(names):
        return None
    problems = np.array([part.problem for part in parts for _ in part.cells])[whole]
    cells = list(chain.from_iterable(part.cells for part in parts))
    number = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    cell = np.array([number[each] for each in cells])[whole]
    asked = [name for name in (*SIGNALS, *COVARIATES) if name in names]
    pairs = [pair for name in asked for pair in _pairs(name, names)]
    found = iter(intervals(table[whole], problems, pairs, np.random.default_rng(0), cells=cell, resamples=resamples))
    relations = tuple(
        Relation(name, next(found), next(found), next(found), {each: next(found) for each in COVARIATES})
        for name in asked
    )
    return ArmNovelty(block, arm, len(set(problems)), int(whole.sum()), stride, relations)


def _pairs(name: str, names: Sequence[str]) -> list[Pair]:
    """With the distance: raw, partial, within; then with each covariate."""
    x, y = names.index(name), names.index("distance")
    given = tuple(names.index(each) for each in COVARIATES if each != name)
    own = [Pair(x, y), Pair(x, y, given), Pair(x, y, given, within=True)]
    return own + [Pair(x, names.index(each)) for each in COVARIATES]
