"""`esamp compare`: the same prompts, many methods."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from esamp.cli.flags import FlagGroup, with_flags
from esamp.runs.job import PlaceOptions
from esamp.sampling import Sampling


class CompareOptions(PlaceOptions):
    """What is compared on which model."""

    n: int = Field(16, ge=1, le=1_000_000)
    """samples of each method"""


@with_flags(run=FlagGroup("Run", CompareOptions), sampling=FlagGroup("Sampler", Sampling))
def command(
    run: CompareOptions,
    sampling: Sampling,
    prompt: Annotated[str | None, typer.Argument(help="the text to answer", show_default=False)] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            help='JSONL file with {"prompt": ...} or {"messages": ...} and an optional "id" per line; - is stdin',
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    methods: Annotated[
        list[str],
        typer.Option(
            "--methods",
            help="all, or NAME with options as in esamp:beta=1,signal=action; several by more flags or by spaces",
            metavar="NAMES",
        ),
    ] = ["all"],  # noqa: B006  # typer copies it
    page: Annotated[
        Path | None,
        typer.Option(help="write an HTML page with all samples and trees", metavar="FILE", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Answer a prompt, or a file of prompts, with many methods: samples of each, and one table of what they brought.

    With all, every installed method runs with its default options, beside plain sampling at the temperatures that
    ESamp may amount to; those that the engine or the model cannot run are named with the reason. Countdown prompts are
    graded. The answers to all others are measured by sentence embeddings, non-words, loops and topic. Means over three
    prompts and more have 95 % intervals.

    Examples: esamp compare "Numbers 1 5 6 10 target 21" --methods "vanilla esamp xtc";
    esamp compare "Suggest a name for a small café." --model smollm2 --methods "vanilla esamp" --max-tokens 64;
    esamp compare --input prompts.jsonl --model smollm2 --methods "vanilla esamp esamp:preset=paper"
    """
    from esamp.cli import compare_run  # imports torch

    compare_run.compare(run, sampling, prompt, input, methods, page, json=json)
