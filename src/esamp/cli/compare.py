"""`esamp compare`: the same prompts, answered with many methods."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from esamp.cli.common_flags import AsJson, InputFile
from esamp.cli.flags import FlagGroup, with_flags
from esamp.runs.job import PlaceOptions
from esamp.sampling import Sampling


class CompareOptions(PlaceOptions):
    """The model, where it runs, and the number of samples."""

    n: int = Field(default=16, ge=1, le=1_000_000)
    """samples of each prompt with each method"""


@with_flags(run=FlagGroup("Run", CompareOptions), sampling=FlagGroup("Sampler", Sampling))
def command(
    run: CompareOptions,
    sampling: Sampling,
    prompt: Annotated[
        str | None, typer.Argument(help="the text to answer", metavar="PROMPT", show_default=False)
    ] = None,
    input: InputFile = None,
    methods: Annotated[
        list[str],
        typer.Option(
            "--methods",
            help="all, or names of methods, which may have options as in esamp:beta=1,signal=action; separated by "
            "spaces, or by repeating the flag",
            metavar="NAMES",
        ),
    ] = ["all"],  # noqa: B006  # typer copies it
    page: Annotated[
        Path | None,
        typer.Option(help="write an HTML page with all samples and search trees", metavar="FILE", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Answer a prompt, or a file of prompts, with many methods; print samples of each method and one table.

    With all, every installed method runs with its default options, and so does plain sampling at the temperatures that
    ESamp may amount to. A method that the engine or the model cannot run is listed with the reason. Countdown prompts
    are graded. The answers to other prompts are measured by sentence embeddings, non-words, loops and topic. From three
    prompts on, means have 95 % intervals.

    Examples:
    esamp compare "Numbers 1 5 6 10 target 21" --methods "vanilla esamp xtc" -n 4
    esamp compare "Name a café." --model smollm2 --methods "vanilla esamp" --max-tokens 16
    esamp compare --input prompts.jsonl --methods "esamp esamp:preset=paper" --max-tokens 64
    """
    from esamp.cli import compare_run  # imports torch

    compare_run.compare(run, sampling, prompt, input, methods, page, json=json)
