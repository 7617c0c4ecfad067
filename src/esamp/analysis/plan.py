"""The size of a study: a search for the fewest problems that reach the wanted power (see `esamp.analysis.power`)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

from esamp.analysis.load import load
from esamp.analysis.measures import MEASURES, measures
from esamp.analysis.plan_options import PlanOptions
from esamp.analysis.power import FEWEST, Spread, assumed_spread, block_spread, power
from esamp.errors import OptionError
from esamp.study.config import Study
from esamp.study.run import CellState, TaskProblems, states
from esamp.study.store import Store

MOST = 20_000
"""Largest number of problems that the search tries."""


@dataclass(frozen=True)
class StudySize:
    """The power of one size of study."""

    problems: int
    seeds: int
    power: float
    tokens: float
    """tokens to generate for all arms"""


@dataclass(frozen=True)
class StudyPlan:
    """The power of a block of a study at several sizes, and the sizes that suffice."""

    title: str
    source: str
    var_between: float
    var_within: float
    difference: float
    comparisons: int
    points: tuple[StudySize, ...]
    smallest: tuple[StudySize | None, ...]
    """for each number of seeds, the fewest problems with the wanted power; None beyond `MOST`"""
    visible: float | None
    """smallest difference that the study at its present size detects with the wanted power; None if there is none"""


def requested_difference(options: PlanOptions) -> float:
    """The difference that the study should detect.

    Raises:
        OptionError: there is no such measure, or it has no default difference and the options have none.
    """
    measure = next((known for known in MEASURES if known.name == options.measure), None)
    if measure is None:
        names = ", ".join(known.name for known in MEASURES)
        raise OptionError(f"no measure {options.measure!r}: choose from {names}")
    if options.difference is None and not measure.percent:
        raise OptionError(f"{options.measure} has no default difference: give one (--difference X)")
    if measure.percent and options.difference is not None and options.difference >= 1:
        raise OptionError(f"difference = {options.difference:g} of a share: five points are 0.05")
    return 0.05 if options.difference is None else options.difference


def plans(
    study: Study,
    store: Store,
    problems: Mapping[str, TaskProblems],
    options: PlanOptions,
    tick: Callable[[], None] = lambda: None,
) -> list[StudyPlan]:
    """A plan for each model, task and group size, from the groups in the store or the assumptions in `options`.

    Args:
        study: the study to plan.
        store: has the finished groups of the pilot, if any.
        problems: from `esamp.study.run.load_tasks`.
        options: the measure, the difference and the test.
        tick: called after every simulated power.

    Raises:
        OptionError: there is one arm only, or the measure is unknown, needs a pilot or does not vary in the pilot.
    """
    requested_difference(options)
    if len(study.arms) < 2:
        raise OptionError("a study of one method compares nothing: add a baseline")
    cells: dict[tuple[str, str, int], list[CellState]] = {}
    for state in states(study, store, problems):
        cell = state.cell
        cells.setdefault((cell.model.name, cell.task.name, cell.n), []).append(state)
    has_pilot = any(all(state.done for state in own) for own in cells.values())
    pilots = {(block.model, block.task, block.n): block for block in load(study, store, problems)} if has_pilot else {}
    arm_plans = []
    for (model, task, n), own in cells.items():
        _check_measure(options.measure, task, graded=problems[task].task.graded)
        block = pilots.get((model, task, n))
        if block is not None and len(block.items) >= FEWEST:
            spread = block_spread(block, study.baseline, options.measure)
        else:
            spread = assumed_spread(options, n)
        title = f"{model}, {task}, groups of {n}"
        if spread.variance(1) == 0:
            raise OptionError(
                f"{title}: {options.measure} never differs in the pilot, so its spread cannot be estimated"
            )
        tokens = sum((state.tokens + state.expected) / state.total for state in own if state.total) / len(study.seeds)
        size = (len(problems[task].items), len(study.seeds))
        arm_plans.append(plan(title, spread, size, len(study.arms) - 1, tokens, options, tick))
    return arm_plans


def plan(
    title: str,
    spread: Spread,
    size: tuple[int, int],
    comparisons: int,
    tokens: float,
    options: PlanOptions,
    tick: Callable[[], None] = lambda: None,
) -> StudyPlan:
    """The power at sizes around the smallest that suffices, for one seed, the planned number of seeds and twice that.

    Args:
        title: of the block.
        spread: of the differences.
        size: number of problems and number of seeds of the study at present.
        comparisons: number of arms compared with the baseline.
        tokens: generated for one problem and seed by all arms together.
        options: the difference and the test.
        tick: called after every simulated power.
    """
    difference = requested_difference(options)
    known: dict[tuple[int, int], StudySize] = {}

    def sized(seeds: int, problems: int) -> StudySize:
        if (problems, seeds) not in known:
            reached = power(spread, difference, problems, seeds, comparisons, options)
            known[problems, seeds] = StudySize(problems, seeds, reached, problems * seeds * tokens)
            tick()
        return known[problems, seeds]

    problems, planned = size
    choices = sorted({1, planned, 2 * planned}) if spread.within.size else [planned]
    smallest = tuple(
        _smallest(partial(sized, seeds), _start(spread, difference, seeds, comparisons, options), options.power)
        for seeds in choices
    )
    sized(planned, problems)
    visible = _visible(spread, size, comparisons, options)
    var_within = float(spread.within.var()) if spread.within.size else float("nan")
    points = tuple(known[key] for key in sorted(known, key=lambda key: (key[1], key[0])))
    return StudyPlan(
        title,
        spread.source,
        float(spread.between.var()),
        var_within,
        difference,
        comparisons,
        points,
        smallest,
        visible,
    )


def _check_measure(name: str, task: str, *, graded: bool) -> None:
    names = [measure.name for measure in measures(graded=graded)]
    if name not in names:
        raise OptionError(f"{task} has no right answers, so {name} has no meaning: choose from {', '.join(names)}")


def needed(variance: float, difference: float, comparisons: int, options: PlanOptions) -> float:
    """The number of problems by the normal approximation: (z_{1 - alpha / 2m} + z_power)^2 variance / difference^2."""
    return (_quantiles(comparisons, options) / difference) ** 2 * variance


def _start(spread: Spread, difference: float, seeds: int, comparisons: int, options: PlanOptions) -> int:
    return min(MOST, max(4, math.ceil(needed(spread.variance(seeds), difference, comparisons, options))))


def _smallest(sized: Callable[[int], StudySize], start: int, wanted: float) -> StudySize | None:
    """The fewest problems with the wanted power, to about 3 %, searched from `start`."""
    low, high = start, start
    while sized(high).power < wanted:
        low, high = high, math.ceil(high * 1.15) + 1
        if high > MOST:
            return None
    while low > 4 and sized(low).power >= wanted:
        low, high = max(4, math.floor(low / 1.15) - 1), low
    while high - low > max(1, high // 30):
        middle = (low + high) // 2
        low, high = (low, middle) if sized(middle).power >= wanted else (middle, high)
    return sized(low) if sized(low).power >= wanted else sized(high)


def _visible(spread: Spread, size: tuple[int, int], comparisons: int, options: PlanOptions) -> float | None:
    """The smallest detectable difference, by bisection between 0.5 and 4 times the normal approximation."""
    problems, seeds = size
    about = _quantiles(comparisons, options) * math.sqrt(spread.variance(seeds) / problems)
    low, high = about / 2, about * 4
    if about == 0 or power(spread, high, problems, seeds, comparisons, options) < options.power:
        return None
    for _ in range(8):
        middle = (low + high) / 2
        enough = power(spread, middle, problems, seeds, comparisons, options) >= options.power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _quantiles(comparisons: int, options: PlanOptions) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - options.alpha / (2 * comparisons)) + normal.inv_cdf(options.power)
