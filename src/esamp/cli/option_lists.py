"""Options of a method or a task, for people and for programs."""

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from esamp.options import Options, allowed
from esamp.quoting import one_line


def option_records(options: type[Options]) -> dict[str, dict[str, Any]]:
    """Description, allowed values and default of every option, for JSON."""
    return {
        name: {
            "description": info.description,
            "allowed": allowed(info),
            "default": info.get_default(call_default_factory=True),
        }
        for name, info in options.model_fields.items()
    }


def option_table(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """The same as a table of names and descriptions."""
    table = Table.grid(padding=(0, 2))
    for name, record in records.items():
        values = f"{record['allowed']}; default {json.dumps(record['default'])}"
        description = Text(one_line(f"{record['description']} ({values})"))
        table.add_row(Text(f"  {one_line(name)}", "cyan", no_wrap=True), description)
    return table
