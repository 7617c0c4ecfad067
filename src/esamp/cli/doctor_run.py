"""The work of `esamp doctor`."""

from collections.abc import Sequence

import typer
from rich.table import Table
from rich.text import Text

from esamp.cli.documents import print_document
from esamp.cli.terminal import console
from esamp.doctor import Check, diagnose
from esamp.quoting import printable


def doctor(*, json: bool) -> None:
    """Diagnose this machine and print the result; exits with 1 if samples cannot be generated."""
    findings = diagnose()
    if json:
        print_document(findings.as_dict(), indent=2)
    else:
        versions = [Check(name, bool(text), text or "not installed") for name, text in findings.versions.items()]
        table = Table.grid(padding=(0, 2))
        _add_section(table, "Versions", versions)
        _add_section(table, "Devices", findings.devices)
        _add_section(table, "Engines", findings.engines)
        _add_section(table, "Models", findings.models)
        _add_section(table, "Optional extras", findings.extras)
        _add_section(table, "Sandbox for a model's code", findings.sandbox)
        console().print(table)
    if not findings.healthy:
        raise typer.Exit(1)


def _add_section(table: Table, title: str, checks: Sequence[Check]) -> None:
    table.add_row(Text(title, "bold"))
    for check in checks:
        mark = Text("  ok", "green") if check.works else Text("  --", "yellow")
        table.add_row(mark, Text(check.name), Text(printable(check.detail), overflow="fold"))
