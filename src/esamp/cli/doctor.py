"""`esamp doctor`: what is installed and what works."""

from __future__ import annotations

import json as encoder
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from esamp.cli.terminal import console
from esamp.quoting import printable

if TYPE_CHECKING:
    from esamp.doctor import Check


def command(
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Say what is installed, which devices and engines work, and what to install for the others.

    The exit code is 0 if samples can be generated here, else 1.
    """
    from esamp.doctor import Check, diagnose  # imports safetensors

    found = diagnose()
    if json:
        print(encoder.dumps(found.as_dict(), indent=2))
    else:
        versions = [Check(name, bool(text), text or "not installed") for name, text in found.versions.items()]
        table = Table.grid(padding=(0, 2))
        _section(table, "Versions", versions)
        _section(table, "Devices", found.devices)
        _section(table, "Engines", found.engines)
        _section(table, "Models", found.models)
        _section(table, "Optional extras", found.extras)
        _section(table, "Sandbox for a model's code", found.sandbox)
        console().print(table)
    if not found.healthy:
        raise typer.Exit(1)


def _section(table: Table, title: str, checks: list[Check] | tuple[Check, ...]) -> None:
    table.add_row(Text(title, "bold"))
    for check in checks:
        mark = Text("  ok", "green") if check.works else Text("  --", "yellow")
        table.add_row(mark, Text(check.name), Text(printable(check.detail), overflow="fold"))
