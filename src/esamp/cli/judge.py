"""`esamp judge`: groups of samples compared by chat models that do not know which method wrote which."""

from pathlib import Path
from typing import Annotated

import typer

from esamp.cli.flags import FlagGroup, with_flags
from esamp.judge.options import JudgeOptions


@with_flags(options=FlagGroup("Judging", JudgeOptions))
def command(
    options: JudgeOptions,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="a study's TOML file, or two and more files of esamp generate --output",
            metavar="FILE...",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="append each verdict to this file, and continue it")] = Path(
        "verdicts.jsonl"
    ),
    store: Annotated[Path, typer.Option("--store", help="folder of the study's groups", metavar="DIR")] = Path("store"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="ask nothing, say how much there is to ask", show_default=False)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Let chat models compare groups of samples without knowing which method wrote which.

    The judge sees the problem and the groups under letters, in orders that are drawn, each group at each place. The
    same command goes on after an interruption.

    Example: esamp judge study.toml --judge some-model --base-url http://127.0.0.1:8000/v1
    """
    from esamp.cli import judge_run  # imports numpy

    judge_run.judge(options, files, out, store, dry_run=dry_run, json=json)
