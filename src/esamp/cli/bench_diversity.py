"""The work of `esamp bench diversity`: diversity against perplexity, for ESamp and vanilla over temperatures."""

from esamp.bench.options import DIVERSITY_TOKENS, BenchOptions
from esamp.cli.documents import print_document
from esamp.cli.progress import SampleBar
from esamp.cli.terminal import console, plain_table
from esamp.compare import diversity as benchmark
from esamp.compare.arms import esamp_arm
from esamp.engines.hf import HFEngine
from esamp.errors import MissingDependencyError
from esamp.explorer.config import ESampConfig
from esamp.metrics.embedding import Embed, SentenceEmbedder
from esamp.models import EMBEDDED
from esamp.study.arm import Arm
from esamp.tasks.countdown import Countdown


def diversity(run: BenchOptions, options: ESampConfig, *, as_json: bool) -> None:
    """Measure the default arms, and one with `options` if they differ from the defaults."""
    prompts = run.prompt or _default_prompts(run.model)
    arms = benchmark.default_arms()
    if options != ESampConfig():
        arms.append(esamp_arm("as given", options))
    setting = benchmark.DiversitySettings(prompts, run.n, run.tokens or DIVERSITY_TOKENS, tuple(range(run.seeds)))
    engine = HFEngine.load(run.model, device=run.device, dtype=run.dtype)
    _measure(engine, arms, setting, _embedder(run.embedder), as_json=as_json)


def _default_prompts(model: str) -> tuple[str, ...]:
    stories = benchmark.STORY_PROMPTS
    if model != EMBEDDED:
        return stories
    return tuple(item.prompt for item in Countdown().items(limit=len(stories)))


def _measure(
    engine: HFEngine,
    arms: list[Arm],
    setting: benchmark.DiversitySettings,
    kernel: tuple[str, Embed | None],
    *,
    as_json: bool,
) -> None:
    rows = setting.samples * len(setting.prompts) * len(setting.seeds)
    with SampleBar(rows * len(arms)) as bar:
        bar.generating()

        def done(row: benchmark.DiversityRow) -> None:
            bar.advance(rows, rows * setting.tokens)

        results = benchmark.measure(engine.model, engine.tokenizer, arms, setting, embed=kernel[1], on_arm=done)
    if as_json:
        print_document({"kernel": kernel[0], "arms": [row.as_dict() for row in results]})
        return
    table = plain_table(("decoding", "Vendi [95 %]", "cosine", "PPL", "H", "expl. var.", "KL"))
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


def _embedder(name: str) -> tuple[str, Embed | None]:
    if name == "ngram":
        return "token n-grams", None
    try:
        return "MiniLM sentence embeddings", SentenceEmbedder().encode
    except MissingDependencyError:
        if name == "minilm":
            raise
        return "token n-grams", None
