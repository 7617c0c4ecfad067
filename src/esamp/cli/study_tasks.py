"""`esamp study tasks`: what a study can ask."""

import json as encoder
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from esamp.cli.terminal import console, show_broken
from esamp.options import allowed
from esamp.quoting import one_line
from esamp.tasks import registry
from esamp.tasks.base import Task


def tasks(*, json: bool) -> None:
    """List the installed tasks."""
    broken = registry.broken()
    records = [_record(registry.get(name)) for name in registry.names() if name not in broken]
    if json:
        failed = {name: {"name": name, "error": reason} for name, reason in broken.items()}
        print(encoder.dumps({record["name"]: record for record in records} | failed, indent=2))
        return
    out = console(width=None if sys.stdout.isatty() else 100)
    for record in records:
        _tell(out, record)
    show_broken(out, broken)


def _record(task: type[Task]) -> dict[str, Any]:
    return {
        "name": task.name,
        "summary": task.summary,
        "source": task.source,
        "graded": task.graded,
        "private": task.private,
        "chat": task.chat,
        "options": {
            option: {
                "description": info.description,
                "allowed": allowed(info),
                "default": info.get_default(call_default_factory=True),
            }
            for option, info in task.options.model_fields.items()
        },
    }


def _tell(out: Console, record: dict[str, Any]) -> None:
    marks = [word for word, there in (("not graded", not record["graded"]), ("private", record["private"])) if there]
    out.print(Text.assemble((one_line(record["name"]), "bold cyan"), f"  ({', '.join(marks)})" if marks else ""))
    for text in (record["summary"], f"Source: {record['source']}"):
        out.print(f"  {one_line(text)}")
    listing = Table.grid(padding=(0, 2))
    for option, about in record["options"].items():
        value = f"{about['allowed']}; default {encoder.dumps(about['default'])}"
        words = one_line(f"{about['description']} ({value})")
        listing.add_row(Text(f"  {one_line(option)}", "cyan", no_wrap=True), Text(words))
    out.print(listing)
    out.print()
