"""`esamp bench`: what exploring costs, and what it brings in diversity."""

from typing import Annotated, Literal

import typer

from esamp.cli.flags import FlagGroup, with_flags
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.models import EMBEDDED
from esamp.models.shapes import SHAPES

TOKENS, SHAPE_TOKENS = 128, 32
"""Tokens of each sample by default: of a model, and of a shape, whose steps may take a second on a CPU."""


@with_flags(options=FlagGroup("Method options", ESampConfig))
def command(
    options: ESampConfig,
    what: Annotated[
        Literal["throughput", "diversity"],
        typer.Argument(help="cost in tokens a second, or diversity against perplexity"),
    ] = "throughput",
    engine: Annotated[Literal["hf", "vllm"], typer.Option(help="what runs the model")] = "hf",
    model: Annotated[str, typer.Option(help="hub name, folder, countdown or smollm2")] = EMBEDDED,
    shape: Annotated[
        str | None,
        typer.Option(
            help=f"throughput: made-up weights of this shape instead of a model: {', '.join(SHAPES)}",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    prompts: Annotated[int, typer.Option(min=1, help="throughput: prompts side by side")] = 1,
    samples: Annotated[int, typer.Option("-n", "--samples", min=2, help="samples of each prompt")] = 16,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=2, help=f"tokens of each sample, by default {TOKENS}, or {SHAPE_TOKENS} of a shape", show_default=False
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="throughput: interleaved pairs of runs")] = 5,
    full: Annotated[bool, typer.Option(help="throughput: with the telemetry that costs a second projection")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="diversity: seeds")] = 2,
    embedder: Annotated[
        Literal["auto", "ngram", "minilm"], typer.Option(help="diversity: what texts are compared by")
    ] = "auto",
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="diversity: texts to continue, repeatable; by default stories, or Countdown for the embedded model"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Measure what exploring costs (throughput) or what it brings (diversity).

    throughput: the same decoding on and off in interleaved pairs of equal length; fails if nothing was explored.

    diversity: Vendi Score, cosine, perplexity and entropy of vanilla over temperatures, of ESamp as published and of
    ours; the options given on the command line add an arm of their own.
    """
    if shape is not None and model != EMBEDDED:
        raise OptionError("give --model or --shape, not both")
    if what == "diversity" and (engine != "hf" or shape is not None):
        raise OptionError("diversity is measured on real models and the hf engine: leave out --engine and --shape")
    from esamp.cli import bench_run  # imports torch
    from esamp.study.throughput import Load

    place = bench_run.Place(engine, model, shape, device, dtype)
    length = tokens or (SHAPE_TOKENS if shape else TOKENS)
    if what == "throughput":
        load = Load(prompts, samples, tokens=length)
        bench_run.throughput_of(place, options, load, pairs=pairs, full=full, as_json=json)
    else:
        bench_run.diversity_of(place, options, prompt, samples, length, seeds, embedder=embedder, as_json=json)
