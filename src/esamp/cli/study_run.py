"""What `esamp study run` and `esamp study status` do and show."""

import json as encoder
from collections.abc import Collection
from pathlib import Path

from rich.table import Table

from esamp.cli.bars import StudyBars
from esamp.cli.messages import message
from esamp.cli.study_flags import torn
from esamp.cli.terminal import console, hush
from esamp.quoting import one_line, printable
from esamp.study import config
from esamp.study.check import check
from esamp.study.config import Study
from esamp.study.locations import ErrorLocation
from esamp.study.run import CellState, TaskProblems, failures, load_tasks, run, states
from esamp.study.store import Store

SHOWN = 20
"""Failed groups that are listed for people."""


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
    """Do what is missing of a study."""
    study, problems = loaded(file, data)
    with ErrorLocation(str(file)):
        check(study, problems, report=report_check, send_key_to=send_key_to)
    place = Store(store)
    found = list(states(study, place, problems))
    if dry_run:
        _show(found, json=json)
        return
    for model in study.models:
        hush(model.engine)
    with StudyBars(found) as bars:
        run(study, place, problems, on_cell=bars.cell, on_model=bars.model, on_torn=torn, send_key_to=send_key_to)
    left = list(states(study, place, problems))
    if json:
        print(encoder.dumps(_record(left)))
    message(f"{sum(state.done for state in left)} groups are in {store}: esamp study report {file} --store {store}")
    failures(study, left).finish()


def status(file: Path, store: Path, data: list[str] | None, *, json: bool) -> None:
    """Show how far a study is."""
    study, problems = loaded(file, data)
    _show(list(states(study, Store(store), problems)), json=json)


def loaded(file: Path, data: list[str] | None) -> tuple[Study, dict[str, TaskProblems]]:
    """The study and the problems of its tasks."""
    study = config.read(file, data or ())
    with ErrorLocation(str(file)):
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
