"""How likely a model finds given tokens, for the engines that can tell."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from esamp.engines import text
from esamp.engines.base import Engine, Request, Sample
from esamp.engines.hf import HFEngine
from esamp.engines.vllm.engine import VLLMEngine
from esamp.errors import UnsupportedError
from esamp.search.likelihood_vllm import token_logprobs

AT_ONCE = 1 << 26
"""Logits that a forward pass may give at most, if it has more than one row."""
LEAST = -1e4
"""Log-probabilities below this are of probability zero, so that they add nothing to an entropy."""
POSITIONS = 256
"""Positions whose logits are worked on in float32 at a time."""

INSTEAD = "use the engine 'hf', or a scorer without logits: length, brevity, function:MODULE:ATTRIBUTE, reward:NAME"


@dataclass(frozen=True)
class Likelihood:
    """Of one sample under the model at temperature 1; NaN where it has no tokens, or was not asked for."""

    total: float
    """sum of the tokens' log-probabilities, in nats"""
    mean: float
    """per token"""
    certainty: float
    """mean over the tokens of KL(uniform || model), in nats"""
    entropy: float = math.nan
    """mean over the tokens of the entropy of the model's distribution, in nats"""
    tokens: int = 0
    """of the sample, as the model counts them"""


NONE = Likelihood(math.nan, math.nan, math.nan)


def likelihoods(
    engine: Engine, request: Request, samples: Sequence[Sample], *, distribution: bool = False
) -> list[Likelihood]:
    """Of each sample, given the request's prompt. Samples without token ids are encoded from their texts.

    With `distribution` also what takes the model's whole distribution at each token: certainty and entropy.

    Raises:
        UnsupportedError: the engine has no means to score given tokens, or not in this way.
    """
    if not isinstance(engine, HFEngine | VLLMEngine):
        raise UnsupportedError(f"{type(engine).__name__} does not tell how likely given tokens are: {INSTEAD}")
    prompt = text.encode(engine.tokenizer, request)
    rows = [_tokens(engine.tokenizer, sample) for sample in samples]
    found = dict.fromkeys(rows, NONE)
    asked = [row for row in found if row]
    if isinstance(engine, HFEngine):
        for batch in _batches(engine, prompt, asked):
            found.update(zip(batch, _forward(engine, prompt, batch, distribution), strict=True))
    elif distribution:
        raise UnsupportedError(f"vLLM does not give the whole distribution of given tokens: {INSTEAD}")
    else:
        for row, logprobs in zip(asked, token_logprobs(engine, prompt, asked), strict=True):
            total = math.fsum(logprobs)
            found[row] = Likelihood(total, total / len(row), math.nan, tokens=len(row))
    return [found[row] for row in rows]


def _tokens(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> tuple[int, ...]:
    if sample.token_ids or not sample.text:
        return tuple(sample.token_ids)
    return tuple(tokenizer(sample.text, add_special_tokens=False).input_ids)


def _batches(engine: HFEngine, prompt: Sequence[int], rows: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Rows of about one length, as many as `AT_ONCE` allows."""
    vocabulary = engine.model.config.get_text_config(decoder=True).vocab_size
    batch: list[tuple[int, ...]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) * vocabulary > AT_ONCE:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _forward(
    engine: HFEngine, prompt: Sequence[int], rows: Sequence[tuple[int, ...]], distribution: bool
) -> list[Likelihood]:
    """Likelihoods of `rows` behind the prompt, padded on the right, which a causal model does not see."""
    longest = max(map(len, rows))
    device = engine.model.device
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    logits = _logits(engine.model, torch.tensor([list(prompt)], device=device), ids)
    pieces = zip(logits.split(POSITIONS, 1), ids.split(POSITIONS, 1), strict=True)
    measured = [_measure(*piece, distribution) for piece in pieces]
    columns = [torch.cat(column, 1).double() for column in zip(*measured, strict=True)]
    counts = torch.arange(longest, device=device) < lengths.unsqueeze(1)
    total, sure, spread = (torch.where(counts, column, 0.0).sum(1) for column in columns)
    table = torch.stack([total, total / lengths, sure / lengths, spread / lengths]).tolist()
    return [Likelihood(*values) for values in zip(*table, map(len, rows), strict=True)]


def _logits(model: PreTrainedModel, prompt: Tensor, ids: Tensor) -> Tensor:
    """Logits `[R, T, V]` that each token of `ids` `[R, T]` was drawn from, behind the prompt `[1, P]`.

    The prompt is read once for all rows where the model's cache allows it, and with every row otherwise.
    """
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        whole = torch.cat([prompt.expand(len(ids), -1), ids], dim=1)
        return model(input_ids=whole, use_cache=False).logits[:, prompt.shape[1] - 1 : -1]  # type: ignore[no-any-return]
    first = model(input_ids=prompt, past_key_values=cache, use_cache=True).logits[:, -1:]
    if ids.shape[1] == 1:
        return first.expand(len(ids), -1, -1)  # type: ignore[no-any-return]
    cache.batch_repeat_interleave(len(ids))
    others = model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True).logits
    return torch.cat([first.expand(len(ids), -1, -1), others], dim=1)


def _measure(logits: Tensor, targets: Tensor, distribution: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of each target, KL(uniform || model) and entropy, each `[R, T]`, for logits `[R, T, V]`."""
    logp = logits.float().log_softmax(-1)
    chosen = logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if not distribution:
        nothing = torch.full_like(chosen, math.nan)
        return chosen, nothing, nothing
    entropy = -(logp.exp() * logp.clamp_min(LEAST)).sum(-1)
    return chosen, -math.log(logp.shape[-1]) - logp.mean(-1), entropy
