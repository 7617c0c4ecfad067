"""The report of a study as one Markdown page, and its numbers as CSV files."""

import math
from collections.abc import Iterable, Mapping, Sequence

from esamp.analysis.controls import ArmControls, MatchedDifference, controls, matched_differences
from esamp.analysis.load import Block
from esamp.analysis.measures import measures
from esamp.analysis.plain_curves import SWEPT_SETTINGS, curves, setting_words
from esamp.analysis.statistics import Difference, Estimate, differences, estimates
from esamp.report.glance import at_a_glance
from esamp.report.markdown import cell, change, csv_table, equal, head_of, markdown_table, numbers, shown
from esamp.study.claim import LEVEL_MEASURES
from esamp.study.config import Study

CORRECTNESS = ("pass@1", "solved", "majority", "distinct")
DIVERSITY = ("Vendi", "Vendi30", "cosine", "n-gram Vendi", "n-gram cosine", "distinct-2", "self-BLEU")
QUALITY = ("perplexity", "second perplexity", "entropy", "non-words", "loops", "on topic")
COST = ("tokens", "parsed", "empty", "cut", "spent", "seconds")
"""Columns of the four Markdown tables of a block."""
LEVEL = 0.05
"""Corrected p-values below it count as beyond chance."""


def markdown(
    study: Study,
    blocks: Sequence[Block],
    figures: Mapping[str, str] | None = None,
    *,
    primary: str = "",
    novelty: str = "",
) -> str:
    """The report as one Markdown page.

    Args:
        study: the study that was run.
        blocks: its finished blocks.
        figures: Markdown of each block's figures, by the block's title.
        primary: the section on the primary comparison; it comes first.
        novelty: the section on the novelty signal; it comes last.
    """
    parts = [f"# {study.name}", primary, _introduction(study)]
    for block in blocks:
        parts += [f"## {cell(block.title)}", _extent(study, block), at_a_glance(study, block)]
        parts += [*_estimates(block), _differences(study, block)]
        parts += [_controls(study, block), (figures or {}).get(block.title, "")]
    parts += [novelty, "## What the columns are", _legend(blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def estimates_csv(blocks: Sequence[Block]) -> str:
    """One line for each block, arm and measure."""
    rows = [
        (*_place(block), len(block.items), each.arm, each.measure, *numbers(each.interval))
        for block in blocks
        for each in estimates(block)
    ]
    return csv_table(("model", "task", "n", "problems", "arm", "measure", "estimate", "low", "high"), rows)


def differences_csv(study: Study, blocks: Sequence[Block]) -> str:
    """One line for each block, arm and tested measure."""
    rows = [
        (*_place(block), each.arm, study.baseline, each.measure, *_tested(each))
        for block in blocks
        for each in differences(block, study.baseline)
    ]
    head = ("model", "task", "n", "arm", "baseline", "measure", "difference", "low", "high", "p", "p_holm")
    return csv_table(head, rows)


def matched_csv(study: Study, blocks: Sequence[Block]) -> str:
    """One line for each block, arm, vanilla curve, matched quality, and tested measure."""
    rows = [
        (*_place(block), each.arm, each.setting, each.held_equal, each.value, each.measure, *_tested(each))
        for block in blocks
        for each in matched_differences(study, block)
    ]
    head = ("model", "task", "n", "arm", "vanilla_over", "matched_by", "vanilla_at", "measure", "difference")
    return csv_table((*head, "low", "high", "p", "p_holm"), rows)


def _legend(blocks: Sequence[Block]) -> str:
    """A list that explains the measures in the tables."""
    shown_measures = {
        each.measure for block in blocks for each in estimates(block) if not math.isnan(each.interval.estimate)
    }
    return "\n".join(
        f"* **{measure.name}**: {measure.summary}."
        for measure in measures(graded=True)
        if measure.name in shown_measures
    )


def _introduction(study: Study) -> str:
    return (
        f"{len(study.arms)} ways to decode, {len(study.seeds)} seed{'s' * (len(study.seeds) != 1)}. Brackets are 95 % "
        "bootstrap intervals over problems, each with its seeds. Differences are paired by problem and seed "
        f"against {cell(study.baseline)}; p-values are paired permutation tests over problems, corrected by Holm over "
        "the methods compared on a measure. solved is pass@k of groups of exactly k samples; pass@k (subset of n) is "
        "the estimator from larger groups, which assumes that samples do not know of each other."
    )


def _extent(study: Study, block: Block) -> str:
    return f"{len(block.items)} problems. {cell(block.left_out)}".rstrip()


def _estimates(block: Block) -> list[str]:
    found = {(each.arm, each.measure): each for each in estimates(block)}
    subsets = [each.measure for each in found.values() if "subset" in each.measure]
    tables = []
    for names in ((*CORRECTNESS, *dict.fromkeys(subsets)), DIVERSITY, QUALITY, COST):
        columns = [name for name in names if not _empty(found.values(), name)]
        rows = [[arm, *(shown(name, found[arm, name].interval) for name in columns)] for arm in block.arms]
        if columns:
            tables.append(markdown_table(["method", *map(head_of, columns)], rows))
    return tables


def _differences(study: Study, block: Block) -> str:
    rows = differences(block, study.baseline)
    if not rows:
        return ""
    return f"Against {cell(study.baseline)}:\n\n{_comparison(rows)}\n\n{_verdict(rows)}"


def _controls(study: Study, block: Block) -> str:
    """Every arm against plain sampling at equal quality, and the controls that the study has or lacks."""
    matched = matched_differences(study, block)
    parts = []
    for curve in curves(study):
        for by in LEVEL_MEASURES:
            own = [
                each
                for each in matched
                if each.setting == curve.setting and each.held_equal == by and each.value is not None
            ]
            if own:
                parts.append(f"Against plain sampling at the {SWEPT_SETTINGS[curve.setting]} with {equal(by)}:")
                parts.append(
                    _comparison(own, {each.arm: setting_words(curve.setting, each.value or 0.0) for each in own})
                )
                parts.append(_verdict(own))
    rows = controls(study, matched)
    if rows:
        head = ["method", "vanilla at T", "at T / (1 + beta)", *(f"at {equal(by)}" for by in rows[0].reached)]
        parts.append("Controls that this study has for a claim about a method:")
        parts.append(markdown_table(head, [_control(each) for each in rows]))
    return "\n\n".join(["### More than another temperature?", *parts]) if parts else ""


def _control(each: ArmControls) -> list[str]:
    def word(present: bool | None) -> str:
        return {True: "yes", False: "**missing**", None: "-"}[present]

    return [each.arm, *map(word, (each.same_temperature, each.cooled, *each.reached.values()))]


def _comparison(compared: Sequence[Difference | MatchedDifference], at: Mapping[str, str] | None = None) -> str:
    """A row for each arm, a column for each measure; `at` has the settings of plain sampling by arm."""
    names = list(dict.fromkeys(each.measure for each in compared))
    by_arm: dict[str, dict[str, Difference | MatchedDifference]] = {}
    for each in compared:
        by_arm.setdefault(each.arm, {})[each.measure] = each
    rows = [
        [
            arm,
            *([at[arm]] if at else []),
            *(change(name, own[name].interval, own[name].adjusted) if name in own else "" for name in names),
        ]
        for arm, own in by_arm.items()
    ]
    return markdown_table(["method", *(["plain sampling at"] if at else []), *map(head_of, names)], rows)


def _verdict(found: Sequence[Difference | MatchedDifference]) -> str:
    sure = [each for each in found if each.adjusted < LEVEL]
    words = "; ".join(
        f"{cell(each.arm)} in {each.measure} ({change(each.measure, each.interval, each.adjusted)})" for each in sure
    )
    return f"Beyond chance after correction: {words}." if sure else "Nothing differs beyond chance after correction."


def _empty(found: Iterable[Estimate], name: str) -> bool:
    return all(math.isnan(each.interval.estimate) for each in found if each.measure == name)


def _place(block: Block) -> tuple[str, str, int]:
    return block.model, block.task, block.n


def _tested(each: Difference | MatchedDifference) -> tuple[str, ...]:
    return (*numbers(each.interval), repr(each.p), repr(each.adjusted))
