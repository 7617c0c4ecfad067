"""`esamp bench`: what exploring costs, and what it brings in diversity."""

import json as encoder
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from esamp.cli.flags import FlagGroup, with_flags
from esamp.cli.terminal import Bar
from esamp.engines.hf import HFEngine
from esamp.errors import MissingDependencyError
from esamp.explorer.config import ESampConfig
from esamp.metrics.embedding import SentenceEmbedder
from esamp.models import EMBEDDED
from esamp.study import diversity, throughput
from esamp.tasks.countdown import Countdown


@with_flags(options=FlagGroup("Method options", ESampConfig))
def command(
    options: ESampConfig,
    what: Annotated[
        Literal["throughput", "diversity"],
        typer.Argument(help="cost in tokens a second, or diversity against perplexity"),
    ] = "throughput",
    model: Annotated[str, typer.Option(help="hub name or folder")] = EMBEDDED,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    prompts: Annotated[int, typer.Option(min=1, help="throughput: prompts side by side")] = 1,
    samples: Annotated[int, typer.Option("-n", "--samples", min=2, help="samples of each prompt")] = 16,
    tokens: Annotated[int, typer.Option(min=2, help="tokens of each sample")] = 128,
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
    if what == "throughput":
        load = throughput.Load(prompts, samples, tokens=tokens)
        _throughput(_engine(model, device, dtype), options, load, pairs=pairs, full=full, as_json=json)
        return
    texts = diversity.STORY_PROMPTS
    if model == EMBEDDED:
        texts = tuple(item.prompt for item in Countdown().items(limit=len(texts)))
    setting = diversity.Setting(tuple(prompt) if prompt else texts, samples, tokens, tuple(range(seeds)))
    arms = diversity.default_arms()
    if options != ESampConfig():
        arms.append(diversity.Arm("as given", options=options))
    _diversity(_engine(model, device, dtype), arms, setting, _embedder(embedder), as_json=json)


def _engine(model: str, device: str, dtype: str) -> HFEngine:
    return HFEngine.load(None if model == EMBEDDED else model, device=device, dtype=dtype)


def _throughput(
    engine: HFEngine, options: ESampConfig, load: throughput.Load, *, pairs: int, full: bool, as_json: bool
) -> None:
    with Bar((pairs + 1) * 2 * load.rows) as bar:
        bar.generating()

        def done(tokens: int) -> None:
            bar.advance(2 * load.rows, tokens)

        result = throughput.measure(engine.model, options, load, pairs=pairs, full=full, on_run=done)
    numbers = result.as_dict()
    if as_json:
        print(encoder.dumps(numbers))
        return
    table = _table("", "tok/s", "ms/step")
    for name, key in (("off", "off"), ("on", "on")):
        rate, step = numbers[f"tokens_per_second_{key}"], numbers[f"ms_per_step_{key}"]
        table.add_row(name, f"{rate:,.0f}", f"{step:.2f}")
    ratio = result.ratio
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"on/off {ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] over {pairs} interleaved pairs of "
        f"{load.prompts} x {load.samples} samples x {load.tokens} tokens; bank {result.bank_bytes / 1e6:.1f} MB; "
        f"{result.telemetry['rows_steered']:.0f} tokens steered, {result.telemetry['updates']:.0f} updates a run",
        markup=False,
    )


def _diversity(
    engine: HFEngine,
    arms: list[diversity.Arm],
    setting: diversity.Setting,
    kernel: tuple[str, diversity.Embed | None],
    *,
    as_json: bool,
) -> None:
    rows = setting.samples * len(setting.prompts) * len(setting.seeds)
    with Bar(rows * len(arms)) as bar:
        bar.generating()

        def done(row: diversity.Row) -> None:
            bar.advance(rows, rows * setting.tokens)

        results = diversity.measure(engine.model, engine.tokenizer, arms, setting, embed=kernel[1], on_arm=done)
    if as_json:
        print(encoder.dumps({"kernel": kernel[0], "arms": [row.as_dict() for row in results]}))
        return
    table = _table("decoding", "Vendi [95 %]", "cosine", "PPL", "H", "expl. var.", "KL")
    for row in results:
        vendi = f"{row.vendi.estimate:.2f} [{row.vendi.low:.2f}, {row.vendi.high:.2f}]"
        rest = (row.cosine, row.perplexity, row.entropy, row.explained_variance, row.kl)
        table.add_row(row.arm, vendi, *("-" if value != value else f"{value:.2f}" for value in rest))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{len(setting.prompts)} prompts, {len(setting.seeds)} seeds, {setting.samples} samples of {setting.tokens} "
        f"tokens; Vendi and cosine over {kernel[0]}; PPL and entropy H under the undisturbed model at T = 1",
        markup=False,
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def _embedder(name: str) -> tuple[str, diversity.Embed | None]:
    if name == "ngram":
        return "token n-grams", None
    try:
        return "MiniLM sentence embeddings", SentenceEmbedder().encode
    except MissingDependencyError:
        if name == "minilm":
            raise
        return "token n-grams", None
