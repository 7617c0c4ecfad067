"""Diversity against quality: how different the samples of one prompt are, and at what perplexity.

Every arm decodes the same prompts to the same length (the end-of-text token is masked), so that length is no confound.
The texts are then scored by the undisturbed model at temperature 1. A method that only cools or heats the distribution
moves along the curve of the vanilla temperatures; one that explores leaves it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from esamp.engines.hf.explore import explore
from esamp.errors import InactiveMethodError, InputError
from esamp.explorer.config import ESampConfig
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.metrics.lexical import ngram_embedding
from esamp.metrics.vendi import mean_cosine, vendi_score

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Arm:
    """One way to decode: plain sampling when `options` is None."""

    name: str
    temperature: float = 1.0
    options: ESampConfig | None = None


@dataclass(frozen=True)
class Row:
    """One arm's result, averaged over prompts and seeds."""

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
        """For JSON: None where nothing was measured."""
        numbers = asdict(self)
        return {name: None if value != value else value for name, value in numbers.items()}


@dataclass(frozen=True)
class Setting:
    """What is decoded: `samples` texts of `tokens` tokens for each prompt and seed."""

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
    """Vanilla over temperatures, ESamp as published, and ours at three strengths, with the controls beside it."""
    arms = [Arm(f"vanilla T {t:g}", t) for t in (0.8, 0.9, 1.0, 1.2)]
    arms.append(Arm("esamp, as published, beta .25", options=ESampConfig(preset="paper")))
    arms += [Arm(f"rls, beta {b:g}", options=ESampConfig(beta=b)) for b in (0.25, 0.5, 1.0)]
    arms.append(Arm("mean, beta .5", options=ESampConfig(distiller="mean")))
    arms.append(Arm("action, gain 3, 4 waves, T .8", 0.8, ESampConfig(signal="action")))
    arms.append(Arm("both, beta .5, gain 3, 4 waves", options=ESampConfig(signal="both")))
    return arms


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arms: Sequence[Arm],
    setting: Setting,
    *,
    embed: Embed | None = None,
    on_arm: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Decode and score every arm.

    Args:
        model: decoder-only model in evaluation mode.
        tokenizer: its tokenizer.
        arms: what to compare.
        setting: prompts, samples, tokens, seeds.
        embed: texts to unit vectors `[n, d]` for Vendi and cosine; by default n-gram counts of the tokens.
        on_arm: called with each finished row.

    Raises:
        InactiveMethodError: an arm that should steer never did.
        InputError: nothing to decode.
    """
    if not setting.prompts or setting.samples < 2 or setting.tokens < 2 or not setting.seeds:
        raise InputError("diversity needs at least one prompt, two samples, two tokens and one seed")
    rows = []
    for arm in arms:
        row = _measure_arm(model, tokenizer, arm, setting, embed)
        rows.append(row)
        if on_arm is not None:
            on_arm(row)
    return rows


def _measure_arm(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: Arm, setting: Setting, embed: Embed | None
) -> Row:
    vendi = np.empty((len(setting.prompts), len(setting.seeds)))
    cosine, surprisal, entropy = np.empty_like(vendi), np.empty_like(vendi), np.empty_like(vendi)
    explained, kl = [], []
    for column, seed in enumerate(setting.seeds):
        prompts = [tokenizer(prompt, return_tensors="pt")["input_ids"] for prompt in setting.prompts]
        for place, prompt in enumerate(prompts):
            ids, telemetry = _decode(model, arm, prompt, setting, seed * 10_007 + place)
            surprisal[place, column], entropy[place, column] = score(model, ids, prompt.shape[1])
            tokens = ids[:, prompt.shape[1] :]
            vectors = embed(tokenizer.batch_decode(tokens)) if embed is not None else ngram_embedding(tokens.tolist())
            vendi[place, column], cosine[place, column] = vendi_score(vectors), mean_cosine(vectors)
            explained.append(telemetry.get("explained_variance", np.nan))
            kl.append(telemetry.get("kl", np.nan))
    return Row(
        arm=arm.name,
        vendi=bootstrap_mean(vendi, np.random.default_rng(0)),
        cosine=float(cosine.mean()),
        perplexity=float(np.exp(surprisal.mean())),
        entropy=float(entropy.mean()),
        explained_variance=float(np.mean(explained)),
        kl=float(np.mean(kl)),
    )


def _decode(
    model: PreTrainedModel, arm: Arm, prompt: Tensor, setting: Setting, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """`samples` texts of one prompt, `[samples, prompt + tokens]`, wave by wave."""
    arguments: dict[str, Any] = dict(
        inputs=prompt.to(model.device),
        attention_mask=torch.ones_like(prompt, device=model.device),
        do_sample=True,
        temperature=arm.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=setting.tokens,
        min_new_tokens=setting.tokens,
    )
    torch.manual_seed(seed)
    if arm.options is None:
        generate = cast("Callable[..., Tensor]", model.generate)
        return generate(**arguments, num_return_sequences=setting.samples), {}
    waves = min(arm.options.wave_count, setting.samples)
    sizes = [setting.samples // waves + (wave < setting.samples % waves) for wave in range(waves)]
    with explore(model, arm.options, telemetry="full") as run:
        parts = []
        for size in sizes:
            run.samples_per_prompt = size
            parts.append(run.generate(**arguments, num_return_sequences=size))
        telemetry = run.telemetry()
    if arm.options.steers and telemetry["rows_steered"] == 0:
        raise InactiveMethodError(f"{arm.name}: no row was steered, so this would be a row of plain sampling")
    return torch.cat(parts), telemetry


@torch.no_grad()
def score(model: PreTrainedModel, ids: Tensor, start: int) -> tuple[float, float]:
    """Mean surprisal and mean entropy, in nats, of the tokens from `start` on under the model at temperature 1.

    The end-of-text token, which the decoding masked, is masked here as well.
    """
    logits = model(ids).logits[:, start - 1 : -1].float()
    eos = model.generation_config.eos_token_id
    if eos is not None:
        logits[..., eos] = -torch.inf
    logp = logits.log_softmax(-1)
    surprisal = -logp.gather(-1, ids[:, start:].unsqueeze(-1))
    entropy = torch.special.entr(logp.exp()).sum(-1)
    return float(surprisal.mean()), float(entropy.mean())
