"""What `esamp bench` measures and shows."""

import json as encoder
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from esamp.cli.terminal import Bar, console, hush
from esamp.engines import registry as engines
from esamp.engines.hf import HFEngine
from esamp.engines.hf.loading import load_model, random_model
from esamp.errors import MissingDependencyError
from esamp.explorer.config import ESampConfig
from esamp.metrics.embedding import SentenceEmbedder
from esamp.models import EMBEDDED, resolve
from esamp.models.shapes import write_shape
from esamp.study import diversity, throughput
from esamp.study.throughput_hf import HFSubject
from esamp.tasks.countdown import Countdown


@dataclass(frozen=True)
class Place:
    """Which model runs where."""

    engine: str
    model: str
    shape: str | None
    device: str
    dtype: str


def _texts(model: str) -> tuple[str, ...]:
    stories = diversity.STORY_PROMPTS
    if model != EMBEDDED:
        return stories
    return tuple(item.prompt for item in Countdown().items(limit=len(stories)))


@contextmanager
def _subject(place: Place, options: ESampConfig, load: throughput.Load, *, full: bool) -> Iterator[throughput.Subject]:
    """The model in its engine, freed at the end."""
    entry = engines.ENTRIES[place.engine]
    works, detail = entry.state()
    if not works:
        raise MissingDependencyError(f"engine {place.engine!r}: {detail}")
    with TemporaryDirectory() as folder:
        source = write_shape(place.shape, Path(folder)) if place.shape else resolve(place.model)
        where = dict(device=place.device, dtype=place.dtype)
        subject: throughput.Subject
        if place.engine == "vllm":
            hush("vllm")
            from esamp.study.throughput_vllm import VLLMSubject

            subject = VLLMSubject(source, load, options, **where, dummy=place.shape is not None, full=full)
        elif place.shape:
            subject = HFSubject(random_model(Path(folder), **where), load, full=full)
        else:
            subject = HFSubject(load_model(source, **where)[0], load, full=full)
        with subject:
            yield subject


def throughput_of(
    place: Place, options: ESampConfig, load: throughput.Load, *, pairs: int, full: bool, as_json: bool
) -> None:
    """Measure and print what exploring costs."""
    with Bar((pairs + 1) * 2 * load.rows) as bar, _subject(place, options, load, full=full) as subject:
        bar.generating()

        def done(tokens: int) -> None:
            bar.advance(load.rows, tokens)

        result = throughput.measure(subject, options, pairs=pairs, on_run=done)
    if as_json:
        print(encoder.dumps({"engine": place.engine, "model": place.shape or place.model, **result.as_dict()}))
        return
    table = _table("", "tok/s", "ms/step")
    for name, runs in (("off", result.off), ("on", result.on)):
        rate, step = result.speed(runs)
        table.add_row(name, f"{rate:,.0f}", f"{step:.2f}")
    out = console()
    out.print(table)
    for sentence in _sentences(place, result, pairs):
        out.print(sentence)


def _sentences(place: Place, result: throughput.Throughput, pairs: int) -> Iterator[str]:
    ratio, load, last = result.ratio, result.load, result.on[-1]
    yield (
        f"on/off {ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] over {pairs} interleaved pairs of "
        f"{load.prompts} x {load.samples} samples x {load.tokens} tokens; "
        f"{place.shape or place.model} on {place.engine}"
    )
    if result.split:
        parts = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in result.split.items())
        yield f"ms of a step with exploring: {parts}"
    yield (
        f"bank {last.bank_bytes / 1e6:.1f} MB, buffers {last.buffer_bytes / 1e6:.1f} MB; "
        f"{last.telemetry['rows_steered']:.0f} tokens steered, {last.telemetry['updates']:.0f} updates a run"
    )


def diversity_of(
    place: Place,
    options: ESampConfig,
    prompts: list[str] | None,
    samples: int,
    tokens: int,
    seeds: int,
    *,
    embedder: str,
    as_json: bool,
) -> None:
    """Measure and print what exploring brings; options other than the defaults are an arm of their own."""
    texts = tuple(prompts or _texts(place.model))
    arms = diversity.default_arms()
    if options != ESampConfig():
        arms.append(diversity.Arm("as given", options=options))
    setting = diversity.Setting(texts, samples, tokens, tuple(range(seeds)))
    loaded = HFEngine.load(place.model, device=place.device, dtype=place.dtype)
    _diversity(loaded, arms, setting, _embedder(embedder), as_json=as_json)


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
    out = console()
    out.print(table)
    out.print(
        f"{len(setting.prompts)} prompts, {len(setting.seeds)} seeds, {setting.samples} samples of {setting.tokens} "
        f"tokens; Vendi and cosine over {kernel[0]}; PPL and entropy H under the undisturbed model at T = 1",
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
