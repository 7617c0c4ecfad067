"""`esamp study`: run a grid of models, tasks and methods, see how far it is, and report it."""

import json as encoder
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from esamp.cli.bars import StudyBars
from esamp.cli.flags import FlagGroup, with_flags
from esamp.cli.study_flags import AsJson, Data, File, Folder
from esamp.cli.study_plan import Thinking, show_plans
from esamp.cli.study_report import report
from esamp.cli.study_tasks import tasks
from esamp.cli.terminal import hush, message, printable
from esamp.study import config
from esamp.study.plan import plans
from esamp.study.power import PlanOptions
from esamp.study.requirements import check_report
from esamp.study.run import CellState, load_tasks, run, states
from esamp.study.store import Store

command = typer.Typer(help="Run studies: a TOML file names models, tasks, methods, group sizes and seeds.")


@command.command("run")
def run_study(
    file: File,
    store: Folder = Path("store"),
    data: Data = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the cells and the tokens to expect", show_default=False)
    ] = False,
    report_check: Annotated[
        bool,
        typer.Option(
            "--report-check/--no-report-check", help="refuse to start where the report would fail for want of packages"
        ),
    ] = True,
    json: AsJson = False,
) -> None:
    """Do what is missing of a study. The same command goes on after an interruption; several may share a store."""
    study = config.read(file, data or ())
    problems = load_tasks(study)
    place = Store(store)
    if dry_run:
        _show(list(states(study, place, problems)), json=json)
        return
    if report_check:
        check_report(study, texts=not all(each.task.private for each in problems.values()))
    found = list(states(study, place, problems))
    for model in study.models:
        hush(model.engine)
    with StudyBars(found) as bars:
        run(study, place, problems, on_cell=bars.cell, on_model=bars.model)
    left = list(states(study, place, problems))
    if json:
        print(encoder.dumps(_record(left)))
    message(f"{sum(state.done for state in left)} groups are in {store}: esamp study report {file} --store {store}")


@command.command("status")
def status(file: File, store: Folder = Path("store"), data: Data = None, json: AsJson = False) -> None:
    """How far every cell of a study is, and what is still to come."""
    study = config.read(file, data or ())
    _show(list(states(study, Store(store), load_tasks(study))), json=json)


@command.command("plan")
@with_flags(options=FlagGroup("Plan", PlanOptions))
def plan(
    file: File, options: PlanOptions, store: Folder = Path("store"), data: Data = None, json: AsJson = False
) -> None:
    """How many problems and seeds a study needs to see a difference, from the spread of what is finished so far."""
    study = config.read(file, data or ())
    with Thinking() as bar:
        found = plans(study, Store(store), load_tasks(study), options, bar.tick)
    show_plans(found, options, study, json=json)


command.command("report")(report)
command.command("tasks")(tasks)


def _show(found: list[CellState], *, json: bool) -> None:
    if json:
        print(encoder.dumps(_record(found)))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, side in (("cell", "left"), ("groups", "right"), ("tokens", "right"), ("to come", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for state in found:
        row = (f"{state.done} / {state.total}", f"{state.tokens:,.0f}", f"{state.expected:,.0f}")
        table.add_row(printable(state.cell.title), *row)
    console = Console(highlight=False)
    console.print(table)
    done, total = sum(state.done for state in found), sum(state.total for state in found)
    expected = sum(state.expected for state in found)
    console.print(f"\n{len(found)} cells, {done} of {total} groups done, about {expected:,.0f} tokens to come")


def _record(found: list[CellState]) -> dict[str, object]:
    rows = [
        {
            "key": state.cell.key,
            "cell": state.cell.title,
            "done": state.done,
            "total": state.total,
            "tokens": state.tokens,
            "expected_tokens": state.expected,
        }
        for state in found
    ]
    return {
        "cells": rows,
        "done": sum(state.done for state in found),
        "total": sum(state.total for state in found),
        "expected_tokens": sum(state.expected for state in found),
    }
