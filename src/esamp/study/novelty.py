"""Does the novelty signal mean novelty? What was measured at every token, against how new the text there is.

The semantic distance of `esamp.study.passages` is compared with

* the **signals**: ||e||, ||hL - y|| before the gate, cos(e, w) of the token drawn, the row's explained variance;
* the **covariates**, which may be all that a signal is made of: how rare the token is and the one before it, entropy
  and surprisal under the reference distribution, the position in the sample.
"""

import csv as writer
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np

from esamp.methods import registry
from esamp.metrics.intervals import Interval
from esamp.metrics.partial import Pair, intervals
from esamp.study.config import Study
from esamp.study.load import Block
from esamp.study.markdown import cell
from esamp.study.passages import COVARIATES, PASSAGE, SIGNALS, TOKENS, Encode, Table, groups, rarities, tabulate

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


# ---- the report

HEAD = ("method", "signal", "distance", "partial", "within", *COVARIATES)
NAMES = {"novelty": "‖e‖", "residual": "‖hL − y‖", "cosine": "cos(e, w)", "explained": "explained"}


def markdown(found: Sequence[ArmNovelty]) -> str:
    """A section of the report; empty where nothing was found."""
    if not found:
        return ""
    parts = ["## Does the novelty signal mean novelty?", READING]
    for title, arms in groupby(found, key=lambda each: each.block.title):
        own = list(arms)
        parts += [f"### {cell(title)}", _extent(own), *_lines(own)]
    return "\n\n".join(parts) + "\n"


READING = (
    "Spearman correlations over tokens of what the method measured when it drew them, 95 % bootstrap intervals over "
    "problems in brackets, not corrected for their number. distance: one minus the largest cosine between the "
    f"embedding of the last {PASSAGE} tokens before the token and those of passages that other samples of the group "
    "had written by then. partial: with the distance, given rarity of the token and of the one before it (negative log "
    "of its share of all tokens here), entropy, surprisal and position. within: given these, between samples of one "
    "group at the same step alone, so that no difference between problems or steps counts. The other columns are plain "
    "correlations with the covariates.\n\n"
    "A signal that means novelty has partial and within correlations above zero (explained: below zero), in the arm "
    "`esamp_noise` as well, where it is measured and not followed; if only the plain one is, then rarity, difficulty "
    "or position carry it, and if it is as high in `esamp_frozen`, it is not of anything learned. Whether following "
    "the signal helps is another question: compare the diversity of `esamp` with that of `esamp_noise`, and of "
    "`surprisal` and `rarity`, which reweight tokens by these quantities alone."
)


def _extent(arms: Sequence[ArmNovelty]) -> str:
    stride = arms[0].stride
    every = "every token" if stride == 1 else f"one token in {stride} of every sample"
    counts = ", ".join(f"{cell(each.arm)} {each.tokens:,}" for each in arms)
    return f"{arms[0].problems} problems; {every} is looked at, at most {TOKENS} a group. Tokens: {counts}."


def _lines(arms: Sequence[ArmNovelty]) -> list[str]:
    rows = [
        (cell(each.arm), NAMES[relation.quantity], *map(_shown, _intervals(relation)))
        for each in arms
        for relation in each.relations
        if relation.quantity in SIGNALS
    ]
    if not rows:
        return ["No arm here has a novelty signal."]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _intervals(relation: Relation) -> list[Interval]:
    return [relation.raw, relation.partial, relation.within, *(relation.covariates[name] for name in COVARIATES)]


def csv(found: Sequence[ArmNovelty]) -> str:
    """One line for each correlation; those of the covariates with the distance as well."""
    text = io.StringIO()
    lines = writer.writer(text, lineterminator="\n")
    place = ("model", "task", "n", "arm", "problems", "tokens", "stride")
    lines.writerow((*place, "quantity", "with", "control", "estimate", "low", "high"))
    against = [("distance", "none"), ("distance", "partial"), ("distance", "within")]
    against += [(name, "none") for name in COVARIATES]
    for each in found:
        own = (each.block.model, each.block.task, each.block.n, each.arm, each.problems, each.tokens, each.stride)
        for relation in each.relations:
            for other, interval in zip(against, _intervals(relation), strict=True):
                numbers = (interval.estimate, interval.low, interval.high)
                cells = ("" if math.isnan(value) else repr(value) for value in numbers)
                lines.writerow((*own, relation.quantity, *other, *cells))
    return text.getvalue()


def _shown(interval: Interval) -> str:
    if math.isnan(interval.estimate):
        return "–"
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
