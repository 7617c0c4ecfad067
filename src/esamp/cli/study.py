"""`esamp study`: run a grid of models, tasks and methods, see how far it is, and report it."""

import json as encoder
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from esamp.cli.bars import StudyBars
from esamp.cli.flags import FlagGroup, with_flags
from esamp.cli.study_flags import AsJson, Data, File, Folder, KeyTo, torn
from esamp.cli.study_plan import Thinking, show_plans
from esamp.cli.study_report import report
from esamp.cli.study_tasks import tasks
from esamp.cli.terminal import console, hush, message
from esamp.quoting import one_line, printable
from esamp.study import config
from esamp.study.check import check
from esamp.study.config import Study
from esamp.study.places import at
from esamp.study.plan import plans
from esamp.study.power import PlanOptions
from esamp.study.run import CellState, Problems, failures, load_tasks, run, states
from esamp.study.store import Store

SHOWN = 20
"""Failed groups that are listed for people."""

command = typer.Typer(help="Run studies: a TOML file names models, tasks, methods, group sizes and seeds.")


@command.command("run")
def run_study(
    file: File,
    store: Folder = Path("store"),
    data: Data = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="check all of it, print the cells and the tokens to expect", show_default=False),
    ] = False,
    report_check: Annotated[
        bool,
        typer.Option(
            "--report-check/--no-report-check", help="refuse a study whose report would fail for want of packages"
        ),
    ] = True,
    send_key_to: KeyTo = None,
    json: AsJson = False,
) -> None:
    """Do what is missing of a study. The same command goes on after an interruption; several may share a store.

    A group that fails is written down with its reason, and the others go on: the exit code is then 1.
    """
    study, problems = _loaded(file, data)
    with at(str(file)):
        check(study, problems, report=report_check, send_key_to=send_key_to or ())
    place = Store(store)
    found = list(states(study, place, problems))
    if dry_run:
        _show(found, json=json)
        return
    for model in study.models:
        hush(model.engine)
    with StudyBars(found) as bars:
        run(study, place, problems, on_cell=bars.cell, on_model=bars.model, on_torn=torn, send_key_to=send_key_to or ())
    left = list(states(study, place, problems))
    if json:
        print(encoder.dumps(_record(left)))
    message(f"{sum(state.done for state in left)} groups are in {store}: esamp study report {file} --store {store}")
    failures(study, left).finish()


@command.command("status")
def status(file: File, store: Folder = Path("store"), data: Data = None, json: AsJson = False) -> None:
    """How far every cell of a study is, and what is still to come."""
    study, problems = _loaded(file, data)
    _show(list(states(study, Store(store), problems)), json=json)


@command.command("plan")
@with_flags(options=FlagGroup("Plan", PlanOptions))
def plan(
    file: File, options: PlanOptions, store: Folder = Path("store"), data: Data = None, json: AsJson = False
) -> None:
    """How many problems and seeds a study needs to see a difference, from the spread of what is finished so far."""
    study, problems = _loaded(file, data)
    with Thinking() as bar:
        found = plans(study, Store(store), problems, options, bar.tick)
    show_plans(found, options, study, json=json)


command.command("report")(report)
command.command("tasks")(tasks)


def _loaded(file: Path, data: list[str] | None) -> tuple[Study, dict[str, Problems]]:
    """The study and its problems."""
    study = config.read(file, data or ())
    with at(str(file)):
        return study, load_tasks(study)


def _show(found: list[CellState], *, json: bool) -> None:
    if json:
        print(encoder.dumps(_record(found)))
        return
    failed = [(state.cell.title, item, each) for state in found for item, each in state.failed.items()]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("cell")
    for name in ("groups", *(["failed"] if failed else []), "tokens", "to come"):
        table.add_column(name, justify="right")
    for state in found:
        counts = (f"{state.done} / {state.total}", *([str(len(state.failed))] if failed else []))
        table.add_row(printable(state.cell.title), *counts, f"{state.tokens:,.0f}", f"{state.expected:,.0f}")
    out = console()
    out.print(table)
    done, total = sum(state.done for state in found), sum(state.total for state in found)
    expected = sum(state.expected for state in found)
    out.print(f"\n{len(found)} cells, {done} of {total} groups done, about {expected:,.0f} tokens to come")
    if failed:
        again = sum(each.retry for _, _, each in failed)
        out.print(
            f"{len(failed)} groups failed: esamp study run tries {again} of them again, the others would fail again"
        )
    for title, item, each in failed[:SHOWN]:
        out.print(one_line(f"  {title}, problem {item}: {each.reason}"), soft_wrap=True)
    if len(failed) > SHOWN:
        out.print(f"  and {len(failed) - SHOWN} more (--json lists all)")


def _record(found: list[CellState]) -> dict[str, object]:
    rows = [
        {
            "key": state.cell.key,
            "cell": state.cell.title,
            "done": state.done,
            "total": state.total,
            "tokens": state.tokens,
            "expected_tokens": state.expected,
            "failed": [{"item": item, **failure.as_json()} for item, failure in state.failed.items()],
        }
        for state in found
    ]
    return {
        "cells": rows,
        "done": sum(state.done for state in found),
        "total": sum(state.total for state in found),
        "failed": sum(len(state.failed) for state in found),
        "expected_tokens": sum(state.expected for state in found),
    }
