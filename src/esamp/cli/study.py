"""`esamp study`: run a grid of models, tasks and methods, show its progress, and report it."""

from pathlib import Path
from typing import Annotated

import typer

from esamp.analysis.plan_options import PlanOptions
from esamp.cli.common_flags import AsJson
from esamp.cli.flags import FlagGroup, with_flags
from esamp.cli.help import Command, CommandGroup
from esamp.cli.study_flags import Data, File, Folder, KeyTo

command = typer.Typer(
    help="Run studies: a TOML file names models, tasks, methods, group sizes and seeds.",
    rich_markup_mode=None,
    cls=CommandGroup,
)


@command.command("run", cls=Command)
def run_study(
    file: File,
    store: Folder = Path("store"),
    data: Data = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="check the study; print its cells and the expected tokens", show_default=False),
    ] = False,
    report_check: Annotated[
        bool,
        typer.Option(
            "--report-check/--no-report-check", help="refuse to start if packages that the report needs are missing"
        ),
    ] = True,
    send_key_to: KeyTo = None,
    json: AsJson = False,
) -> None:
    """Generate the missing groups of a study. After an interruption, the same command continues.

    Several commands may share a store. If a group fails, its reason is stored and the other groups go on; the exit code
    is then 1.
    """
    from esamp.cli import study_run  # imports numpy

    study_run.run_study(
        file, store, data, dry_run=dry_run, report_check=report_check, send_key_to=send_key_to or (), json=json
    )


@command.command("status", cls=Command)
def status(file: File, store: Folder = Path("store"), data: Data = None, json: AsJson = False) -> None:
    """Show for every cell of a study how many groups are finished, and the tokens still to generate."""
    from esamp.cli import study_run  # imports numpy

    study_run.status(file, store, data, json=json)


@command.command("plan", cls=Command)
@with_flags(options=FlagGroup("Plan", PlanOptions))
def plan(
    file: File, options: PlanOptions, store: Folder = Path("store"), data: Data = None, json: AsJson = False
) -> None:
    """Estimate how many problems and seeds a study needs to detect a difference, from the groups finished so far."""
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
        typer.Option(
            "--page-problems",
            min=1,
            help="most problems whose samples are on the page (default: all)",
            show_default=False,
            metavar="N",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure the finished groups and write a report: report.md, CSV files, figures, and index.html with samples."""
    from esamp.cli import study_report  # imports numpy

    study_report.report(file, store, data, out, draw=draw, page_problems=page_problems, json=json)


@command.command("tasks", cls=Command)
def tasks(json: AsJson = False) -> None:
    """List the installed tasks with their sources and options."""
    from esamp.cli import study_tasks  # imports every task

    study_tasks.tasks(json=json)
