"""`esamp study`: run a grid of models, tasks and methods, see how far it is, and report it."""

from pathlib import Path
from typing import Annotated

import typer

from esamp.analysis.plan_options import PlanOptions
from esamp.cli.flags import FlagGroup, with_flags
from esamp.cli.help import Command, Group
from esamp.cli.study_flags import AsJson, Data, File, Folder, KeyTo

command = typer.Typer(
    help="Run studies: a TOML file names models, tasks, methods, group sizes and seeds.",
    rich_markup_mode=None,
    cls=Group,
)


@command.command("run", cls=Command)
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
    from esamp.cli import study_run  # imports numpy

    study_run.run_study(
        file, store, data, dry_run=dry_run, report_check=report_check, send_key_to=send_key_to or (), json=json
    )


@command.command("status", cls=Command)
def status(file: File, store: Folder = Path("store"), data: Data = None, json: AsJson = False) -> None:
    """How far every cell of a study is, and what is still to come."""
    from esamp.cli import study_run  # imports numpy

    study_run.status(file, store, data, json=json)


@command.command("plan", cls=Command)
@with_flags(options=FlagGroup("Plan", PlanOptions))
def plan(
    file: File, options: PlanOptions, store: Folder = Path("store"), data: Data = None, json: AsJson = False
) -> None:
    """How many problems and seeds a study needs to see a difference, from the spread of what is finished so far."""
    from esamp.cli import study_plan  # imports numpy

    study_plan.plan(file, options, store, data, json=json)


@command.command("report", cls=Command)
def report(
    file: File,
    store: Folder = Path("store"),
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the report", metavar="DIR")] = Path("report"),
    draw: Annotated[bool, typer.Option("--figures/--no-figures", help="draw figures, which needs matplotlib")] = True,
    page_problems: Annotated[
        int | None,
        typer.Option("--page-problems", min=1, help="only so many problems' samples on the page", show_default="all"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure what is finished, and write it up: report.md, CSV files, figures, and index.html to read samples in."""
    from esamp.cli import study_report  # imports numpy

    study_report.report(file, store, data, out, draw=draw, page_problems=page_problems, json=json)


@command.command("tasks", cls=Command)
def tasks(json: AsJson = False) -> None:
    """List the installed tasks: what they ask, where from, and their options."""
    from esamp.cli import study_tasks  # imports every task

    study_tasks.tasks(json=json)
