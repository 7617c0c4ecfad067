"""The size of a study: from the power of one size (see `power`) to the fewest problems that reach the wished one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

from esamp.analysis.load import load
from esamp.analysis.measures import MEASURES, measures
from esamp.analysis.plan_options import PlanOptions
from esamp.analysis.power import FEWEST, Spread, of_assumptions, of_block, power
from esamp.errors import OptionError
from esamp.study.config import Study
from esamp.study.run import CellState, Problems, states
from esamp.study.store import Store

MOST = 20_000
"""Problems up to which the search goes."""


@dataclass(frozen=True)
class Point:
    """The power of one size of study."""

    problems: int
    seeds: int
    power: float
    tokens: float
    """to be generated for all arms"""


@dataclass(frozen=True)
class Plan:
    """What a block of a study needs."""

    title: str
    source: str
    var_between: float
    var_within: float
    difference: float
    comparisons: int
    points: tuple[Point, ...]
    smallest: tuple[Point | None, ...]
    """for each number of seeds, the fewest problems with the wished power; None beyond `MOST`"""
    visible: float | None
    """smallest difference that the study as it stands sees with the wished power; None where no difference is seen"""


def asked_difference(options: PlanOptions) -> float:
    """The difference to be seen.

    Raises:
        OptionError: no such measure, or one without a usual difference and none is given.
    """
    measure = next((each for each in MEASURES if each.name == options.measure), None)
    if measure is None:
        raise OptionError(f"no measure {options.measure!r}: choose from {', '.join(each.name for each in MEASURES)}")
    if options.difference is None and not measure.percent:
        raise OptionError(f"{options.measure} has no usual difference: give one (--difference X)")
    if measure.percent and options.difference is not None and options.difference >= 1:
        raise OptionError(f"difference = {options.difference:g} of a share: five points are 0.05")
    return 0.05 if options.difference is None else options.difference


def plans(
    study: Study,
    store: Store,
    problems: Mapping[str, Problems],
    options: PlanOptions,
    tick: Callable[[], None] = lambda: None,
) -> list[Plan]:
    """A plan for each model, task and group size, from what the store has of it, or from the options' assumptions.

    Raises:
        OptionError: nothing to compare, an unknown measure, or one that needs a pilot or does not vary in it.
    """
    asked_difference(options)
    if len(study.arms) < 2:
        raise OptionError("a study of one method compares nothing: add a baseline")
    cells: dict[tuple[str, str, int], list[CellState]] = {}
    for state in states(study, store, dict(problems)):
        cell = state.cell
        cells.setdefault((cell.model.name, cell.task.name, cell.n), []).append(state)
    begun = any(all(state.done for state in own) for own in cells.values())
    pilots = {(block.model, block.task, block.n): block for block in load(study, store, problems)} if begun else {}
    found = []
    for place, own in cells.items():
        model, task, n = place
        _check(options.measure, task, graded=problems[task].task.graded)
        block = pilots.get(place)
        if block is not None and len(block.items) >= FEWEST:
            spread = of_block(block, study.baseline, options.measure)
        else:
            spread = of_assumptions(options, n)
        title = f"{model}, {task}, groups of {n}"
        if spread.variance(1) == 0:
            raise OptionError(
                f"{title}: {options.measure} never differs in the pilot, so that it says nothing of spread"
            )
        tokens = sum((state.tokens + state.expected) / state.total for state in own if state.total) / len(study.seeds)
        size = (len(problems[task].items), len(study.seeds))
        found.append(plan(title, spread, size, len(study.arms) - 1, tokens, options, tick))
    return found


def plan(
    title: str,
    spread: Spread,
    size: tuple[int, int],
    comparisons: int,
    tokens: float,
    options: PlanOptions,
    tick: Callable[[], None] = lambda: None,
) -> Plan:
    """Power over a grid of sizes around the smallest that is enough, for as many seeds as planned and twice that.

    Args:
        title: what it is about.
        spread: how differences vary.
        size: problems and seeds of the study as it stands.
        comparisons: arms compared with the baseline.
        tokens: of one group of every arm together.
        options: what is asked.
        tick: called after every simulated power.
    """
    difference = asked_difference(options)
    known: dict[tuple[int, int], Point] = {}

    def point(seeds: int, problems: int) -> Point:
        if (problems, seeds) not in known:
            chance = power(spread, difference, problems, seeds, comparisons, options)
            known[problems, seeds] = Point(problems, seeds, chance, problems * seeds * tokens)
            tick()
        return known[problems, seeds]

    problems, planned = size
    choices = sorted({1, planned, 2 * planned}) if spread.within.size else [planned]
    smallest = tuple(
        _smallest(partial(point, seeds), _start(spread, difference, seeds, comparisons, options), options.power)
        for seeds in choices
    )
    point(planned, problems)
    visible = _visible(spread, size, comparisons, options)
    var_within = float(spread.within.var()) if spread.within.size else float("nan")
    points = tuple(known[key] for key in sorted(known, key=lambda key: (key[1], key[0])))
    return Plan(
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


def _check(name: str, task: str, *, graded: bool) -> None:
    told = [measure.name for measure in measures(graded=graded)]
    if name not in told:
        raise OptionError(f"{task} has no right answers, so that {name} means nothing: choose from {', '.join(told)}")


def needed(variance: float, difference: float, comparisons: int, options: PlanOptions) -> float:
    """Problems by the normal approximation: (z_{1 - alpha / 2m} + z_power)^2 variance / difference^2."""
    return (_quantiles(comparisons, options) / difference) ** 2 * variance


def _start(spread: Spread, difference: float, seeds: int, comparisons: int, options: PlanOptions) -> int:
    return min(MOST, max(4, math.ceil(needed(spread.variance(seeds), difference, comparisons, options))))


def _smallest(point: Callable[[int], Point], start: int, wished: float) -> Point | None:
    """The fewest problems with the wished power, to about 3 %, beginning at `start`."""
    low, high = start, start
    while point(high).power < wished:
        low, high = high, math.ceil(high * 1.15) + 1
        if high > MOST:
            return None
    while low > 4 and point(low).power >= wished:
        low, high = max(4, math.floor(low / 1.15) - 1), low
    while high - low > max(1, high // 30):
        middle = (low + high) // 2
        low, high = (low, middle) if point(middle).power >= wished else (middle, high)
    return point(low) if point(low).power >= wished else point(high)


def _visible(spread: Spread, size: tuple[int, int], comparisons: int, options: PlanOptions) -> float | None:
    """By bisection between half and four times what the normal approximation says."""
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
