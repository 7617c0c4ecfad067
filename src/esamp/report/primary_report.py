"""The primary comparison in words, as a table and as CSV."""

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
    """A section with the question, a table for each block, and a sentence that says what the numbers say."""
    claim = study.primary
    if claim is None:
        return ""
    found = primary_tests(study, blocks)
    parts = ["## Primary comparison", f"*{cell(claim.question)}*", _method(study, claim, len(found))]
    for block in blocks:
        own = [each for each in found if each.block is block]
        title = f"**{cell(block.title)}.** " if len(blocks) > 1 else ""
        parts += [_table(claim, own), title + sentence(claim, own)]
    return "\n\n".join(parts)


def sentence(claim: Claim, found: Sequence[PrimaryTest]) -> str:
    """What the numbers of one block say about the claim."""
    better = [each for each in found if each.better]
    worse = [each for each in found if each.significant and not each.better]
    undecided = [each for each in found if each.point is not None and not each.significant]
    lost = [each for each in found if each.point is None]
    bounds = [(each, bound) for each in found for bound in each.bounds]
    above = [(each, bound) for each, bound in bounds if bound.above]
    unknown = dict.fromkeys(bound.measure for _, bound in bounds if not bound.measured)
    arm = cell(claim.arm)
    said = []
    if better:
        said.append(f"{arm} has more {claim.measure} than the best plain sampling at {_each(claim, better)}")
    if worse:
        said.append(f"{arm} has less {claim.measure} than the best plain sampling at {_each(claim, worse)}")
    if undecided:
        said.append(f"no difference in {claim.measure} is shown at {_each(claim, undecided)}")
    if lost:
        names = " or ".join(equal(each.held_equal) for each in lost)
        said.append(
            f"nothing can be said at {names}, which no curve of plain sampling reaches or which is not measured"
        )
    if above:
        said.append(f"{arm} has more {_bounds(above)} beyond noise")
    elif bounds and not unknown:
        names = " and ".join(dict.fromkeys(bound.measure for _, bound in bounds))
        said.append(f"in {names} it is not above plain sampling beyond noise (largest difference {_largest(bounds)})")
    if unknown:
        said.append(f"{' and '.join(unknown)} could not be compared")
    whole = len(better) == len(found) and not above and not unknown
    verdict = "As claimed" if whole else "Claimed, but shown only in part" if better else "The claim is not shown"
    return f"{verdict}: {'; '.join(said)}."


def csv(study: Study, blocks: Sequence[Block]) -> str:
    """One line for each test, and one for each measure that is bounded at the same point of plain sampling."""
    claim = study.primary
    rows: list[tuple[object, ...]] = []
    for each in primary_tests(study, blocks) if claim else ():
        where = each.point
        block = each.block
        at = (where.curve.name, repr(where.value), where.near) if where else ("", "", "")
        start = (block.model, block.task, block.n, len(block.items), claim.arm if claim else "", each.held_equal)
        start = (*start, repr(each.level), *at)
        tests = (repr(each.own), repr(each.plain), *numbers(each.interval), repr(each.p), repr(each.adjusted))
        rows.append((*start, "compared", claim.measure if claim else "", *tests))
        for bound in each.bounds:
            own = (repr(bound.own), repr(bound.plain), *numbers(bound.interval), "", "")
            rows.append((*start, "not above", bound.measure, *own))
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


def _table(claim: Claim, found: Sequence[PrimaryTest]) -> str:
    head = ["equal in", "level", "best plain sampling", f"{claim.measure}: method", "plain", "difference"]
    for name in claim.not_above:
        head += [f"{head_of(name)}: method", "plain", "difference"]
    return markdown_table(head, [_row(claim, each) for each in found])


def _row(claim: Claim, each: PrimaryTest) -> list[str]:
    start = [head_of(each.held_equal), _number(each.held_equal, each.level), _where(each.point)]
    if each.point is None:
        return [*start, _number(claim.measure, each.own), *["-"] * (2 + 3 * len(claim.not_above))]
    own = (_number(claim.measure, each.own), _number(claim.measure, each.plain))
    row = [*start, *own, change(claim.measure, each.interval, each.adjusted)]
    for bound in each.bounds:
        row += [_number(bound.measure, bound.own), _number(bound.measure, bound.plain), _difference(bound)]
    return row


def _where(place: PlainPoint | None) -> str:
    if place is None:
        return "none at this level"
    curve = place.curve
    words = f"{setting_words(curve.setting, place.value)}{f' at {curve.fixed}' if curve.fixed else ''}"
    return (
        f"{words} (nearest, not told apart)"
        if place.near
        else f"{words}, on the curve over {SWEPT_SETTINGS[curve.setting]}"
    )


def _each(claim: Claim, found: Sequence[PrimaryTest]) -> str:
    told = [f"{equal(each.held_equal)} ({change(claim.measure, each.interval, each.adjusted)})" for each in found]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _bounds(found: Sequence[tuple[PrimaryTest, UpperBound]]) -> str:
    return ", ".join(f"{bound.measure} at {equal(each.held_equal)} ({_difference(bound)})" for each, bound in found)


def _largest(found: Sequence[tuple[PrimaryTest, UpperBound]]) -> str:
    return _difference(max((bound for _, bound in found), key=lambda bound: bound.interval.estimate))


def _difference(bound: UpperBound) -> str:
    return change(bound.measure, bound.interval, None) if bound.measured else "-"


def _number(measure: str, value: float) -> str:
    return "-" if math.isnan(value) else shown(measure, Interval(value, float("nan"), float("nan")))
