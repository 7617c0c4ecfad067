"""The work of `esamp study tasks`."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from esamp.cli.documents import print_document
from esamp.cli.option_lists import option_records, option_table
from esamp.cli.terminal import LISTING_WIDTH, console, show_broken
from esamp.quoting import one_line
from esamp.tasks import registry
from esamp.tasks.base import Task


def tasks(*, json: bool) -> None:
    """Print the installed tasks."""
    broken = registry.broken()
    records = [_record(registry.get(name)) for name in registry.names() if name not in broken]
    if json:
        errors = {name: {"name": name, "error": reason} for name, reason in broken.items()}
        print_document({record["name"]: record for record in records} | errors, indent=2)
        return
    out = console(width=None if sys.stdout.isatty() else LISTING_WIDTH)
    for record in records:
        _print_task(out, record)
    show_broken(out, broken)


def _record(task: type[Task]) -> dict[str, Any]:
    return {
        "name": task.name,
        "summary": task.summary,
        "source": task.source,
        "graded": task.graded,
        "private": task.private,
        "chat": task.chat,
        "options": option_records(task.options),
    }


def _print_task(out: Console, record: dict[str, Any]) -> None:
    remarks = [word for word, holds in (("not graded", not record["graded"]), ("private", record["private"])) if holds]
    title = (one_line(record["name"]), "bold cyan")
    out.print(Text.assemble(title, f"  ({', '.join(remarks)})" if remarks else ""))
    for text in (record["summary"], f"Source: {record['source']}"):
        out.print(f"  {one_line(text)}")
    out.print(option_table(record["options"]))
    out.print()
