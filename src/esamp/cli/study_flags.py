"""Flags that the commands on studies share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

File: TypeAlias = Annotated[
    Path, typer.Argument(help="the study: a TOML file", metavar="FILE.toml", show_default=False)
]
Folder: TypeAlias = Annotated[
    Path, typer.Option("--store", help="folder with the samples of finished groups", metavar="DIR")
]
KeyTo: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--send-key-to",
        metavar="URL",
        help="send the key (OPENAI_API_KEY) also to this server, which the study's file names; may be given several "
        "times",
        show_default=False,
    ),
]
Data: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[TASK=]FILE",
        help="read a task's problems from this file, instead of from the hub or the file that the study names; may be "
        "given several times",
        show_default=False,
    ),
]
