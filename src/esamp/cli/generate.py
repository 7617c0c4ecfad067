"""`esamp generate`: samples for prompts."""

from pathlib import Path
from typing import Annotated

import typer

from esamp.cli.common_flags import InputFile
from esamp.cli.flags import FlagGroup, with_flags
from esamp.methods import registry as methods
from esamp.options import Options
from esamp.runs.job import Job, RunOptions
from esamp.sampling import Sampling


@with_flags(
    run=FlagGroup("Run", RunOptions),
    sampling=FlagGroup("Sampler", Sampling),
    options=FlagGroup(
        "Method options",
        methods.option_classes(),
        choose=lambda parsed: str(dict(parsed["run"])["method"]),
        kind="method",
        hint="esamp methods lists the names",
        by_method=True,
        combined=lambda names: methods.get(names).options,
    ),
)
def command(
    run: RunOptions,
    sampling: Sampling,
    options: Options,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            help="texts to continue; without any, the whole standard input is one prompt",
            metavar="PROMPT",
            show_default=False,
        ),
    ] = None,
    input: InputFile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="append a line of JSON per prompt to this file; after an interruption, the same command continues it",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print a line of JSON per prompt", show_default=False)] = False,
) -> None:
    """Generate samples for prompts, with ESamp or with another method (esamp methods lists them).

    Each method has flags of its own, such as --preset and --beta of esamp.

    Examples:
    esamp generate "Name a fruit." --model smollm2 --preset open --max-tokens 24
    esamp generate "Numbers 3 5 8 9 target 24" -n 2 --beta 0.25
    esamp generate "Numbers 3 5" --method esamp+fire --fire-temperature 10 -n 2
    esamp generate --input prompts.jsonl --output samples.jsonl --preset paper
    """
    from esamp.cli import generate_run  # imports rich

    generate_run.generate(Job(run, sampling, options), prompts or [], input, output, json=json)
