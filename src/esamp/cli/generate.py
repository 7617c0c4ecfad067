"""`esamp generate`: prompts in, samples out."""

from pathlib import Path
from typing import Annotated

import typer

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
            help="texts to continue; without any, standard input is one prompt",
            metavar="[PROMPTS]...",
            show_default=False,
        ),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            help='JSONL file with {"prompt": ...} or {"messages": ...} and an optional "id" per line; - is stdin',
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="append a JSON line per prompt to this file; the same command continues it after an interruption",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print a JSON line per prompt", show_default=False)] = False,
) -> None:
    """Sample answers to prompts, explored by ESamp unless --method says otherwise (esamp methods lists them all).

    Examples: esamp generate "Numbers 3 5 8 9 target 24" -n 8;
    esamp generate "Numbers 3 5 8 9 target 24" --method esamp+fire --fire-temperature 10;
    esamp generate --input prompts.jsonl --output samples.jsonl --preset paper
    """
    from esamp.cli import generate_run  # imports rich

    generate_run.generate(Job(run, sampling, options), prompts or [], input, output, json=json)
