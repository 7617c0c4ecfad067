"""The section on the novelty signal: its correlations as Markdown and as CSV."""

import csv as writer
import io
import math
from collections.abc import Sequence
from itertools import groupby

from esamp.analysis.novelty import ArmNovelty, Relation
from esamp.analysis.passages import COVARIATES, PASSAGE, SIGNALS, TOKENS
from esamp.metrics.intervals import Interval
from esamp.report.markdown import cell

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
