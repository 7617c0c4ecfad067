"""The section on the primary comparison, and its numbers as CSV."""

import math
from collections.abc import Sequence

from esamp.analysis.load import Block
from esamp.analysis.matching import PlainPoint
from esamp.analysis.plain_curves import SWEPT_SETTINGS, all_curves, setting_words
from esamp.analysis.primary import PrimaryTest, UpperBound, primary_tests
from esamp.metrics.intervals import Interval
from esamp.report.markdown import cell, change, csv_table, equal, head_of, markdown_table, numbers, shown
from esamp.study.claim import Claim
from esamp.study.config import Study


def markdown(study: Study, blocks: Sequence[Block]) -> str:
    """The section: the question, the method, and for each block a table and a sentence with the result."""
    claim = study.primary
    if claim is None:
        return ""
    outcomes = primary_tests(study, blocks)
    parts = ["## Primary comparison", f"*{cell(claim.question)}*", _method(study, claim, len(outcomes))]
    for block in blocks:
        own = [outcome for outcome in outcomes if outcome.block is block]
        title = f"**{cell(block.title)}.** " if len(blocks) > 1 else ""
        parts += [_table(claim, own), title + sentence(claim, own)]
    return "\n\n".join(parts)


def sentence(claim: Claim, outcomes: Sequence[PrimaryTest]) -> str:
    """The result of one block in words: whether its numbers support the claim."""
    better = [outcome for outcome in outcomes if outcome.better]
    worse = [outcome for outcome in outcomes if outcome.significant and not outcome.better]
    undecided = [outcome for outcome in outcomes if outcome.point is not None and not outcome.significant]
    unreached = [outcome for outcome in outcomes if outcome.point is None]
    bounds = [(outcome, bound) for outcome in outcomes for bound in outcome.bounds]
    above = [(outcome, bound) for outcome, bound in bounds if bound.above]
    unmeasured = dict.fromkeys(bound.measure for _, bound in bounds if not bound.measured)
    arm = cell(claim.arm)
    clauses = []
    if better:
        clauses.append(f"{arm} has more {claim.measure} than the best plain sampling at {_levels(claim, better)}")
    if worse:
        clauses.append(f"{arm} has less {claim.measure} than the best plain sampling at {_levels(claim, worse)}")
    if undecided:
        clauses.append(f"no difference in {claim.measure} is shown at {_levels(claim, undecided)}")
    if unreached:
        names = " or ".join(equal(outcome.held_equal) for outcome in unreached)
        clauses.append(
            f"nothing can be said at {names}, which no curve of plain sampling reaches or which is not measured"
        )
    if above:
        clauses.append(f"{arm} has more {_bounds(above)} beyond noise")
    elif bounds and not unmeasured:
        names = " and ".join(dict.fromkeys(bound.measure for _, bound in bounds))
        clauses.append(
            f"in {names} it is not above plain sampling beyond noise (largest difference {_largest(bounds)})"
        )
    if unmeasured:
        clauses.append(f"{' and '.join(unmeasured)} could not be compared")
    complete = len(better) == len(outcomes) and not above and not unmeasured
    verdict = "As claimed" if complete else "Claimed, but shown only in part" if better else "The claim is not shown"
    return f"{verdict}: {'; '.join(clauses)}."


def csv(study: Study, blocks: Sequence[Block]) -> str:
    """One line for each test, and one for each measure that must not be above plain sampling at the same point."""
    claim = study.primary
    rows: list[tuple[object, ...]] = []
    for outcome in primary_tests(study, blocks) if claim else ():
        place, block = outcome.point, outcome.block
        point = (place.curve.name, repr(place.value), place.near) if place else ("", "", "")
        start = (block.model, block.task, block.n, len(block.items), claim.arm if claim else "", outcome.held_equal)
        start = (*start, repr(outcome.level), *point)
        test = (repr(outcome.own), repr(outcome.plain), *numbers(outcome.interval))
        rows.append(
            (*start, "compared", claim.measure if claim else "", *test, repr(outcome.p), repr(outcome.adjusted))
        )
        for bound in outcome.bounds:
            difference = (repr(bound.own), repr(bound.plain), *numbers(bound.interval), "", "")
            rows.append((*start, "not above", bound.measure, *difference))
    head = ("model", "task", "n", "problems", "arm", "equal_in", "level", "curve", "setting", "nearest", "role")
    return csv_table((*head, "measure", "arm_mean", "plain_mean", "difference", "low", "high", "p", "p_holm"), rows)


def _method(study: Study, claim: Claim, tests: int) -> str:
    curves = [curve.name for curve in all_curves(study)]
    return (
        f"The study's file declares it: {claim.measure} of {cell(claim.arm)} against plain sampling at equal quality. "
        f"Plain sampling has {len(curves)} curve{'s' * (len(curves) != 1)} ({cell('; '.join(curves))}); where "
        "several have the level, the one with the highest value is compared with, which favours plain sampling. "
        f"{'Levels of perplexity are geometric means over problems. ' * ('perplexity' in claim.at_equal)}"
        "Differences are paired by problem and seed; brackets are 95 % bootstrap intervals over problems; p is from a "
        f"permutation test over problems, corrected by Holm over {tests} test{'s' * (tests != 1)}."
    )


def _table(claim: Claim, outcomes: Sequence[PrimaryTest]) -> str:
    head = ["equal in", "level", "best plain sampling", f"{claim.measure}: method", "plain", "difference"]
    for name in claim.not_above:
        head += [f"{head_of(name)}: method", "plain", "difference"]
    return markdown_table(head, [_row(claim, outcome) for outcome in outcomes])


def _row(claim: Claim, outcome: PrimaryTest) -> list[str]:
    start = [head_of(outcome.held_equal), _number(outcome.held_equal, outcome.level), _point(outcome.point)]
    if outcome.point is None:
        return [*start, _number(claim.measure, outcome.own), *["-"] * (2 + 3 * len(claim.not_above))]
    means = (_number(claim.measure, outcome.own), _number(claim.measure, outcome.plain))
    row = [*start, *means, change(claim.measure, outcome.interval, outcome.adjusted)]
    for bound in outcome.bounds:
        row += [_number(bound.measure, bound.own), _number(bound.measure, bound.plain), _difference(bound)]
    return row


def _point(place: PlainPoint | None) -> str:
    """The point of plain sampling that an arm is compared with."""
    if place is None:
        return "none at this level"
    curve = place.curve
    words = f"{setting_words(curve.setting, place.value)}{f' at {curve.fixed}' if curve.fixed else ''}"
    return (
        f"{words} (nearest, not told apart)"
        if place.near
        else f"{words}, on the curve over {SWEPT_SETTINGS[curve.setting]}"
    )


def _levels(claim: Claim, outcomes: Sequence[PrimaryTest]) -> str:
    """The levels of some outcomes with their differences."""
    names = [f"{equal(each.held_equal)} ({change(claim.measure, each.interval, each.adjusted)})" for each in outcomes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _bounds(bounds: Sequence[tuple[PrimaryTest, UpperBound]]) -> str:
    return ", ".join(
        f"{bound.measure} at {equal(outcome.held_equal)} ({_difference(bound)})" for outcome, bound in bounds
    )


def _largest(bounds: Sequence[tuple[PrimaryTest, UpperBound]]) -> str:
    return _difference(max((bound for _, bound in bounds), key=lambda bound: bound.interval.estimate))


def _difference(bound: UpperBound) -> str:
    return change(bound.measure, bound.interval, None) if bound.measured else "-"


def _number(measure: str, value: float) -> str:
    return "-" if math.isnan(value) else shown(measure, Interval(value, float("nan"), float("nan")))
