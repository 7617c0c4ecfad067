"""Flags that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)]
InputFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--input",
        help='JSONL file of prompts: {"prompt": ...} or {"messages": ...} with an optional "id" on each line; '
        "- reads standard input",
        metavar="FILE",
        show_default=False,
    ),
]
