"""`esamp judge`: blind comparison of groups of samples by chat models."""

from pathlib import Path
from typing import Annotated

import typer

from esamp.cli.common_flags import AsJson
from esamp.cli.flags import FlagGroup, with_flags
from esamp.judge.options import JudgeOptions


@with_flags(options=FlagGroup("Judging", JudgeOptions))
def command(
    options: JudgeOptions,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="a study's TOML file, or two or more files of esamp generate --output",
            metavar="FILE",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="append the verdicts to this file; verdicts in it are not repeated", metavar="FILE"),
    ] = Path("verdicts.jsonl"),
    store: Annotated[
        Path, typer.Option("--store", help="folder with the study's finished groups", metavar="DIR")
    ] = Path("store"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="send nothing; print the number of requests", show_default=False)
    ] = False,
    json: AsJson = False,
) -> None:
    """Let chat models compare groups of samples. They are not told which method wrote which group.

    The judge sees the problem and the groups under letters. The groups are shown in random orders, so that each group
    is shown equally often at each place. After an interruption, the same command continues.

    Examples:
    esamp judge esamp.jsonl vanilla.jsonl --judge MODEL --base-url http://127.0.0.1:8000/v1 --dry-run
    esamp judge study.toml --judge MODEL --base-url http://127.0.0.1:8000/v1
    """
    from esamp.cli import judge_run  # imports numpy

    judge_run.judge(options, files, out, store, dry_run=dry_run, json=json)
