"""What `esamp study plan` finds and shows."""

import json as encoder
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from esamp.analysis.measures import MEASURES
from esamp.analysis.plan import MOST, StudyPlan, plans
from esamp.analysis.plan_options import PlanOptions
from esamp.cli.study_run import loaded
from esamp.cli.terminal import console
from esamp.quoting import printable
from esamp.study.config import Study
from esamp.study.store import Store

PATIENCE = 2.0
"""Seconds after which the bar appears."""


class Thinking:
    """Counts simulated powers on standard error once it takes a while; silent where that is no terminal."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} sizes simulated"), TimeElapsedColumn())
        self._progress = Progress(
            *columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self._task = self._progress.add_task("", total=None)
        self._begun = monotonic()

    def __enter__(self) -> "Thinking":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tick(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)
        if monotonic() - self._begun > PATIENCE:
            self._progress.start()


def plan(file: Path, options: PlanOptions, store: Path, data: list[str] | None, *, json: bool) -> None:
    """Find and show how many problems and seeds a study needs."""
    study, problems = loaded(file, data)
    with Thinking() as bar:
        found = plans(study, Store(store), problems, options, bar.tick)
    show_plans(found, options, study, json=json)


def show_plans(found: Sequence[StudyPlan], options: PlanOptions, study: Study, *, json: bool) -> None:
    """A table and a few sentences for each model, task and group size, or one JSON document."""
    if json:
        records = [_finite(asdict(plan)) for plan in found]
        print(encoder.dumps({"options": options.model_dump(), "baseline": study.baseline, "plans": records}))
        return
    out = console(soft_wrap=True)
    for plan in found:
        out.print(printable(f"{plan.title}\n{_about(plan, options)}\n"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("problems", "seeds", "power", "tokens"):
            table.add_column(name, justify="right")
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
    wished = f"{options.power:.0%}"
    least = [point for point in plan.smallest if point is not None]
    sizes = " or ".join(f"{point.problems:,} problems x {point.seeds}" for point in least)
    enough = f"{wished} power takes about {sizes} seeds." if least else f"{MOST:,} problems do not give {wished} power."
    seen = (
        f"The study as it stands sees {amount(options.measure, plan.visible)} with {wished} power; less only by luck."
        if plan.visible is not None
        else f"The study as it stands cannot reach {wished} power for any difference: it has too few problems."
    )
    unsure = (
        f"Powers are shares of {options.simulations:,} simulated studies, and no surer than the spread they rest on."
    )
    return f"{enough} {seen}\n{unsure}"


def amount(name: str, difference: float) -> str:
    """``5.0 points`` for shares, the number itself for other measures."""
    percent = any(measure.percent for measure in MEASURES if measure.name == name)
    return f"{100 * difference:.1f} points" if percent else f"a difference of {difference:.3g}"


def _finite(values: dict[str, object]) -> dict[str, object]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
