"""`esamp bench diversity`: how different the samples of a prompt are, and their perplexity.

Every arm decodes the same prompts to the same length, with the end-of-text token masked, so that length does not
confound the comparison. That is why it calls transformers' `generate` directly: requests to an engine end at that
token. The texts are scored under the undisturbed model at temperature 1. A method that only changes the temperature
moves along the curve of vanilla sampling over temperatures; a method that explores leaves it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from esamp.analysis.statistics import generator
from esamp.compare.arms import esamp_arm, vanilla_arm
from esamp.compare.formatting import finite_or_none
from esamp.engines.hf.explore import explore
from esamp.errors import InactiveMethodError, InputError
from esamp.explorer.config import ESampConfig
from esamp.metrics.embedding import Embed
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.metrics.lexical import ngram_embedding
from esamp.metrics.vendi import mean_cosine, vendi_score
from esamp.sampling import Sampling
from esamp.study.arm import Arm

SEED_STRIDE = 10_007
"""Distance between the generator seeds of the first prompt for neighbouring seeds of the benchmark."""


@dataclass(frozen=True)
class DiversityRow:
    """The result of one arm, averaged over prompts and seeds."""

    arm: str
    vendi: Interval
    cosine: float
    perplexity: float
    """exp of the mean negative log-likelihood of the generated tokens"""
    entropy: float
    """mean entropy of the next-token distribution along the texts, in nats"""
    explained_variance: float
    kl: float

    def as_dict(self) -> dict[str, object]:
        """The row for JSON; None where nothing was measured."""
        return {
            name: finite_or_none(value) if isinstance(value, float) else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class DiversitySettings:
    """The amount of text: `samples` texts of `tokens` tokens for each prompt and seed."""

    prompts: tuple[str, ...]
    samples: int = 16
    tokens: int = 160
    seeds: tuple[int, ...] = (0, 1)


STORY_PROMPTS: tuple[str, ...] = (
    "Once upon a time",
    "One day, a little girl named Lily",
    "There was a big dog",
    "Tom and his mom went to the park",
    "The bird was sad because",
    "In a small house",
    "Ben had a red ball",
    "It was a sunny day",
)


def default_arms() -> list[Arm]:
    """Vanilla at several temperatures, ESamp as published, and variants of ESamp with controls."""
    arms = [vanilla_arm(f"vanilla T {t:g}", Sampling(temperature=t)) for t in (0.8, 0.9, 1.0, 1.2)]
    arms.append(esamp_arm("esamp, as published, beta .25", ESampConfig(preset="paper")))
    arms += [esamp_arm(f"rls, beta {beta:g}", ESampConfig(beta=beta)) for beta in (0.25, 0.5, 1.0)]
    arms.append(esamp_arm("mean, beta .5", ESampConfig(distiller="mean")))
    arms.append(esamp_arm("action, gain 3, 4 waves, T .8", ESampConfig(signal="action"), temperature=0.8))
    arms.append(esamp_arm("both, beta .5, gain 3, 4 waves", ESampConfig(signal="both")))
    return arms


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arms: Sequence[Arm],
    settings: DiversitySettings,
    *,
    embed: Embed | None = None,
    on_arm: Callable[[DiversityRow], None] | None = None,
) -> list[DiversityRow]:
    """Decode and score every arm.

    Args:
        model: decoder-only model in evaluation mode.
        tokenizer: the model's tokenizer.
        arms: vanilla and ESamp arms; of the sampler's settings only the temperature is used.
        settings: prompts, samples, tokens, seeds.
        embed: texts to unit vectors `[n, d]` for Vendi and cosine; by default n-gram counts of the tokens.
        on_arm: called with each finished row.

    Raises:
        InactiveMethodError: an arm should have steered and did not.
        InputError: there is nothing to decode.
    """
    if not settings.prompts or settings.samples < 2 or settings.tokens < 2 or not settings.seeds:
        raise InputError("diversity needs at least one prompt, two samples, two tokens and one seed")
    rows = []
    for arm in arms:
        row = _measure_arm(model, tokenizer, arm, settings, embed)
        rows.append(row)
        if on_arm is not None:
            on_arm(row)
    return rows


def _measure_arm(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arm: Arm,
    settings: DiversitySettings,
    embed: Embed | None,
) -> DiversityRow:
    vendi = np.empty((len(settings.prompts), len(settings.seeds)))
    cosine, surprisal, entropy = np.empty_like(vendi), np.empty_like(vendi), np.empty_like(vendi)
    explained, kl = [], []
    for column, seed in enumerate(settings.seeds):
        prompts = [tokenizer(prompt, return_tensors="pt")["input_ids"] for prompt in settings.prompts]
        for row, prompt in enumerate(prompts):
            ids, telemetry = _decode(model, arm, prompt, settings, seed * SEED_STRIDE + row)
            surprisal[row, column], entropy[row, column] = score(model, ids, prompt.shape[1])
            tokens = ids[:, prompt.shape[1] :]
            vectors = embed(tokenizer.batch_decode(tokens)) if embed is not None else ngram_embedding(tokens.tolist())
            vendi[row, column], cosine[row, column] = vendi_score(vectors), mean_cosine(vectors)
            explained.append(telemetry.get("explained_variance", np.nan))
            kl.append(telemetry.get("kl", np.nan))
    return DiversityRow(
        arm=arm.label,
        vendi=bootstrap_mean(vendi, generator()),
        cosine=float(cosine.mean()),
        perplexity=float(np.exp(surprisal.mean())),
        entropy=float(entropy.mean()),
        explained_variance=float(np.mean(explained)),
        kl=float(np.mean(kl)),
    )


def _decode(
    model: PreTrainedModel, arm: Arm, prompt: Tensor, settings: DiversitySettings, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """The samples of one prompt `[samples, prompt + tokens]`, drawn wave by wave, and the telemetry."""
    arguments: dict[str, Any] = dict(
        inputs=prompt.to(model.device),
        attention_mask=torch.ones_like(prompt, device=model.device),
        do_sample=True,
        temperature=arm.sampling.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings.tokens,
        min_new_tokens=settings.tokens,
    )
    torch.manual_seed(seed)
    options = arm.options
    if not isinstance(options, ESampConfig):
        generate = cast("Callable[..., Tensor]", model.generate)
        return generate(**arguments, num_return_sequences=settings.samples), {}
    waves = min(options.wave_count, settings.samples)
    sizes = [settings.samples // waves + (wave < settings.samples % waves) for wave in range(waves)]
    with explore(model, options, telemetry="full") as run:
        drawn = []
        for size in sizes:
            run.samples_per_prompt = size
            drawn.append(run.generate(**arguments, num_return_sequences=size))
        telemetry = run.telemetry()
    if options.steers and telemetry["rows_steered"] == 0:
        raise InactiveMethodError(f"{arm.label}: no row was steered, so this would be a row of plain sampling")
    return torch.cat(drawn), telemetry


@torch.no_grad()
def score(model: PreTrainedModel, ids: Tensor, start: int) -> tuple[float, float]:
    """Mean surprisal and mean entropy, in nats, of the tokens from `start` on under the model at temperature 1.

    The end-of-text token is masked, as while decoding.

    Args:
        model: decoder-only model.
        ids: token ids `[samples, tokens]`, prompt included.
        start: length of the prompt, in tokens.
    """
    logits = model(ids).logits[:, start - 1 : -1].float()
    eos = model.generation_config.eos_token_id
    if eos is not None:
        logits[..., eos] = -torch.inf
    logp = logits.log_softmax(-1)
    surprisal = -logp.gather(-1, ids[:, start:].unsqueeze(-1))
    entropy = torch.special.entr(logp.exp()).sum(-1)
    return float(surprisal.mean()), float(entropy.mean())
