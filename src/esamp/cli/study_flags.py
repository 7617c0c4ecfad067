"""What all commands about studies take, and what they warn of."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from esamp.cli.messages import message


def torn(path: Path) -> None:
    """Warn of a file whose last line was cut off."""
    message(f"warning: the last line of {path} was cut off by an interruption, its group is done again")


File: TypeAlias = Annotated[
    Path, typer.Argument(help="the study, a TOML file", metavar="FILE.toml", show_default=False)
]
Folder: TypeAlias = Annotated[Path, typer.Option("--store", help="folder of all finished groups", metavar="DIR")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)]
KeyTo: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--send-key-to",
        metavar="URL",
        help="let the key (OPENAI_API_KEY) go to this server, which only the study's file names; may be repeated",
        show_default=False,
    ),
]
Data: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[TASK=]FILE",
        help="read a task's problems from this file instead of the hub or of what the study names; may be repeated",
        show_default=False,
    ),
]
