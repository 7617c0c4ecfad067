"""The work of `esamp study run` and `esamp study status`."""

from collections.abc import Collection, Mapping
from pathlib import Path

from esamp.cli.documents import print_document
from esamp.cli.messages import message, warn_torn
from esamp.cli.progress import StudyBars
from esamp.cli.terminal import console, hush, plain_table
from esamp.quoting import first_words, one_line, printable
from esamp.study import config
from esamp.study.check import check
from esamp.study.config import Study
from esamp.study.locations import ErrorLocation
from esamp.study.run import CellState, TaskProblems, failures, load_tasks, run, states
from esamp.study.store import Store

SHOWN = 20
"""Most failed groups that are listed without --json."""
TORN = "its group is done again"
"""What follows from an incomplete line in a store."""


def run_study(
    file: Path,
    store: Path,
    data: list[str] | None,
    *,
    dry_run: bool,
    report_check: bool,
    send_key_to: Collection[str],
    json: bool,
) -> None:
    """Generate the missing groups of a study."""
    study, problems = load_study(file, data)
    with ErrorLocation(str(file)):
        check(study, problems, report=report_check, send_key_to=send_key_to)
    groups = Store(store)
    before = list(states(study, groups, problems))
    if dry_run:
        _print_states(before, problems, json=json)
        return
    for model in study.models:
        hush(model.engine)
    with StudyBars(before) as bars:
        run(
            study,
            groups,
            problems,
            on_cell=bars.cell,
            on_model=bars.model,
            on_torn=lambda path: warn_torn(path, TORN),
            send_key_to=send_key_to,
        )
    after = list(states(study, groups, problems))
    if json:
        print_document(_record(after))
    message(f"{sum(state.done for state in after)} groups are in {store}: esamp study report {file} --store {store}")
    failures(study, after).finish()


def status(file: Path, store: Path, data: list[str] | None, *, json: bool) -> None:
    """Print the state of every cell of a study."""
    study, problems = load_study(file, data)
    _print_states(list(states(study, Store(store), problems)), problems, json=json)


def load_study(file: Path, data: list[str] | None) -> tuple[Study, dict[str, TaskProblems]]:
    """The study and the problems of its tasks; `data` overrides where a task's problems are read from."""
    study = config.read(file, data or ())
    with ErrorLocation(str(file)):
        return study, load_tasks(study)


def _print_states(cells: list[CellState], problems: Mapping[str, TaskProblems], *, json: bool) -> None:
    if json:
        print_document(_record(cells))
        return
    failed = [(state.cell, item, failure) for state in cells for item, failure in state.failed.items()]
    heads = ("cell", "groups", *(["failed"] if failed else []), "tokens", "to come")
    table = plain_table(heads, gap=1, wrap_numbers=True)
    for state in cells:
        counts = (f"{state.done} / {state.total}", *([str(len(state.failed))] if failed else []))
        table.add_row(printable(state.cell.title), *counts, f"{state.tokens:,.0f}", f"{state.expected:,.0f}")
    out = console()
    out.print(table)
    done, total = sum(state.done for state in cells), sum(state.total for state in cells)
    expected = sum(state.expected for state in cells)
    out.print(f"\n{len(cells)} cells, {done} of {total} groups done, about {expected:,.0f} tokens to come")
    if failed:
        retried = sum(failure.retry for _, _, failure in failed)
        out.print(
            f"{len(failed)} groups failed: esamp study run tries {retried} of them again, the others would fail again"
        )
    for cell, item, failure in failed[:SHOWN]:
        words = _words(problems[cell.task.name], item)
        out.print(one_line(f"  {cell.title}, problem {item}{words}: {failure.reason}"), soft_wrap=True)
    if len(failed) > SHOWN:
        out.print(f"  and {len(failed) - SHOWN} more (--json lists all)")


def _words(problems: TaskProblems, item: str) -> str:
    """The first words of a problem in brackets; nothing for private problems, which may not be shown."""
    prompt = next((each.prompt for each in problems.items if each.id == item), "")
    return f" ({first_words(prompt)})" if prompt and not problems.task.private else ""


def _record(cells: list[CellState]) -> dict[str, object]:
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
        for state in cells
    ]
    return {
        "cells": rows,
        "done": sum(state.done for state in cells),
        "total": sum(state.total for state in cells),
        "failed": sum(len(state.failed) for state in cells),
        "expected_tokens": sum(state.expected for state in cells),
    }
