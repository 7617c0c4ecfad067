"""The work of `esamp study plan`."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from esamp.analysis.measures import MEASURES
from esamp.analysis.plan import MOST, StudyPlan, plans
from esamp.analysis.plan_options import PlanOptions
from esamp.cli.documents import print_document
from esamp.cli.progress import SimulationCounter
from esamp.cli.study_run import load_study
from esamp.cli.terminal import console, plain_table
from esamp.quoting import printable
from esamp.study.config import Study
from esamp.study.store import Store


def plan(file: Path, options: PlanOptions, store: Path, data: list[str] | None, *, json: bool) -> None:
    """Compute and print how many problems and seeds a study needs."""
    study, problems = load_study(file, data)
    with SimulationCounter() as counter:
        rows = plans(study, Store(store), problems, options, counter.tick)
    print_plans(rows, options, study, json=json)


def print_plans(found: Sequence[StudyPlan], options: PlanOptions, study: Study, *, json: bool) -> None:
    """Print a table and a few sentences for each model, task and group size, or one JSON document."""
    if json:
        records = [asdict(plan) for plan in found]
        print_document({"options": options.model_dump(), "baseline": study.baseline, "plans": records})
        return
    out = console(soft_wrap=True)
    for plan in found:
        out.print(printable(f"{plan.title}\n{_about(plan, options)}\n"))
        table = plain_table(("problems", "seeds", "power", "tokens"), texts=0, wrap_numbers=True)
        for point in plan.points:
            table.add_row(f"{point.problems:,}", str(point.seeds), f"{point.power:.0%}", f"{point.tokens:,.0f}")
        out.print(table)
        out.print(f"\n{_verdict(plan, options)}\n")


def _about(plan: StudyPlan, options: PlanOptions) -> str:
    within = "unknown, as one seed cannot tell" if math.isnan(plan.var_within) else f"{math.sqrt(plan.var_within):.3g}"
    return (
        f"To see {amount(options.measure, plan.difference)} in {options.measure} at level {options.alpha:g} with "
        f"{plan.comparisons} comparison{'s' * (plan.comparisons > 1)} (Holm), all others being like the baseline.\n"
        f"Differences spread by {math.sqrt(plan.var_between):.3g} between problems and {within} between seeds "
        f"({plan.source})."
    )


def _verdict(plan: StudyPlan, options: PlanOptions) -> str:
    power = f"{options.power:.0%}"
    least = [point for point in plan.smallest if point is not None]
    sizes = " or ".join(f"{point.problems:,} problems x {point.seeds}" for point in least)
    needed = f"{power} power takes about {sizes} seeds." if least else f"{MOST:,} problems do not give {power} power."
    detectable = (
        f"The study as it stands sees {amount(options.measure, plan.visible)} with {power} power; less only by luck."
        if plan.visible is not None
        else f"The study as it stands cannot reach {power} power for any difference: it has too few problems."
    )
    caution = (
        f"Powers are shares of {options.simulations:,} simulated studies, and no surer than the spread they rest on."
    )
    return f"{needed} {detectable}\n{caution}"


def amount(name: str, difference: float) -> str:
    """A difference in words: ``5.0 points`` for shares, the number itself for other measures."""
    percent = any(measure.percent for measure in MEASURES if measure.name == name)
    return f"{100 * difference:.1f} points" if percent else f"a difference of {difference:.3g}"
