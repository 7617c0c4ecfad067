"""The section on the novelty signal: its correlations as Markdown and as CSV."""

import math
from collections.abc import Sequence
from itertools import groupby

from esamp.analysis.novelty import ArmNovelty, Relation
from esamp.analysis.passages import COVARIATES, PASSAGE, SIGNALS, TOKENS
from esamp.metrics.intervals import Interval
from esamp.report.markdown import cell, csv_table, markdown_table

HEAD = ("method", "signal", "distance", "partial", "within", *COVARIATES)
SIGNAL_NAMES = {"novelty": "‖e‖", "residual": "‖hL − y‖", "cosine": "cos(e, w)", "explained": "explained"}


def markdown(results: Sequence[ArmNovelty]) -> str:
    """The section of the report; empty without results."""
    if not results:
        return ""
    parts = ["## Does the novelty signal mean novelty?", READING]
    for title, group in groupby(results, key=lambda each: each.block.title):
        arms = list(group)
        parts += [f"### {cell(title)}", _extent(arms), _table(arms)]
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
    tokens = "every token" if stride == 1 else f"one token in {stride} of every sample"
    counts = ", ".join(f"{cell(arm.arm)} {arm.tokens:,}" for arm in arms)
    return f"{arms[0].problems} problems; {tokens} is looked at, at most {TOKENS} a group. Tokens: {counts}."


def _table(arms: Sequence[ArmNovelty]) -> str:
    rows = [
        (arm.arm, SIGNAL_NAMES[relation.quantity], *map(_shown, _intervals(relation)))
        for arm in arms
        for relation in arm.relations
        if relation.quantity in SIGNALS
    ]
    return markdown_table(HEAD, rows) if rows else "No arm here has a novelty signal."


def _intervals(relation: Relation) -> list[Interval]:
    return [relation.raw, relation.partial, relation.within, *(relation.covariates[name] for name in COVARIATES)]


def csv(results: Sequence[ArmNovelty]) -> str:
    """The correlations as CSV, one per line: those with the distance, and those with the covariates."""
    others = [("distance", "none"), ("distance", "partial"), ("distance", "within")]
    others += [(name, "none") for name in COVARIATES]
    rows = []
    for arm in results:
        block = arm.block
        start = (block.model, block.task, block.n, arm.arm, arm.problems, arm.tokens, arm.stride)
        for relation in arm.relations:
            for other, interval in zip(others, _intervals(relation), strict=True):
                numbers = (interval.estimate, interval.low, interval.high)
                cells = ("" if math.isnan(value) else repr(value) for value in numbers)
                rows.append((*start, relation.quantity, *other, *cells))
    head = ("model", "task", "n", "arm", "problems", "tokens", "stride", "quantity", "with", "control")
    return csv_table((*head, "estimate", "low", "high"), rows)


def _shown(interval: Interval) -> str:
    if math.isnan(interval.estimate):
        return "–"
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
