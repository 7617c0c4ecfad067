"""`score`: likelihoods of given samples, from forward passes over the prompt and the samples' tokens."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from esamp.decoding.logits import entropy, surprisal
from esamp.engines import text
from esamp.engines.base import Request, Sample
from esamp.engines.likelihood import Likelihood

MAX_LOGITS = 1 << 26
"""Most logits of one forward pass; a single row may exceed it."""
POSITIONS = 256
"""Number of positions whose logits are converted to float32 at a time."""


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: Request,
    samples: Sequence[Sample],
    *,
    distribution: bool,
) -> list[Likelihood]:
    """`Engine.score` for a transformers model. Equal samples are scored once."""
    prompt = text.encode(tokenizer, request)
    rows = [text.sample_ids(tokenizer, sample) for sample in samples]
    scored: dict[tuple[int, ...], Likelihood] = {(): Likelihood()}
    for batch in _batches(model, {row for row in rows if row}):
        scored.update(zip(batch, _score_batch(model, prompt, batch, distribution), strict=True))
    return [scored[row] for row in rows]


def _batches(model: PreTrainedModel, rows: set[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Batches of rows of similar length, as many as `MAX_LOGITS` allows."""
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    batch: list[tuple[int, ...]] = []
    for row in sorted(rows, key=lambda row: (len(row), row)):
        if batch and (len(batch) + 1) * len(row) * vocabulary > MAX_LOGITS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _score_batch(
    model: PreTrainedModel, prompt: Sequence[int], rows: Sequence[tuple[int, ...]], distribution: bool
) -> list[Likelihood]:
    """Likelihoods of `rows` after the prompt. Padding is on the right, where it does not affect a causal model."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=model.device)  # (rows, T)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    logits = _logits(model, torch.tensor([list(prompt)], device=model.device), ids)
    pieces = zip(logits.split(POSITIONS, 1), ids.split(POSITIONS, 1), strict=True)
    measured = [_measure(*piece, distribution) for piece in pieces]
    columns = [torch.cat(column, 1).double() for column in zip(*measured, strict=True)]  # each (rows, T)
    is_token = torch.arange(longest, device=model.device) < lengths.unsqueeze(1)
    total, certainty, entropies = (torch.where(is_token, column, 0.0).sum(1) for column in columns)
    table = torch.stack([total, total / lengths, certainty / lengths, entropies / lengths]).tolist()
    return [Likelihood(*values) for values in zip(*table, map(len, rows), strict=True)]


def _logits(model: PreTrainedModel, prompt: Tensor, ids: Tensor) -> Tensor:
    """Logits `[R, T, V]` that predict each token of `ids` `[R, T]` after the prompt `[1, P]`.

    The prompt is processed once for all rows if the model's cache can be repeated, and with every row otherwise.
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
    """Log-probability of each target, KL(uniform || model) and entropy, each `[R, T]`, for logits `[R, T, V]`.

    Without `distribution` the last two are NaN.
    """
    logp = logits.float().log_softmax(-1)
    chosen = -surprisal(logp, targets)
    if not distribution:
        nan = torch.full_like(chosen, math.nan)
        return chosen, nan, nan
    return chosen, -math.log(logp.shape[-1]) - logp.mean(-1), entropy(logp)
