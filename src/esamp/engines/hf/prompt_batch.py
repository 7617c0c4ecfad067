"""`PromptBatch`: the prompts of a generate call, and which of its rows have the same one."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin

CACHE_NAMES = ("past_key_values", "cache_params")
PER_TOKEN = ("inputs_embeds", "attention_mask", "position_ids")


@dataclass(frozen=True)
class PromptBatch:
    """The prompts of a batch, as far as the model's inputs show them."""

    tokens: Tensor
    """`[B, L]` token ids, or `[B, L, d]` embeddings"""
    lengths: tuple[int, ...] | None
    """tokens of each row without the padding on the left; None if only the padding token marks padding"""
    complete: bool
    """False if the cache already held tokens, which are unknown here"""
    extras: bytes
    """digest of the model's other inputs, such as images"""

    @classmethod
    def read(cls, pieces: Sequence[Tensor], inputs: Mapping[str, Any], *, cached: bool) -> Self:
        """Read the prompts from the inputs of prefill.

        Args:
            pieces: token ids `[B, L]` or embeddings `[B, L, d]` of each forward pass of prefill, in order.
            inputs: the model's inputs in the last of these passes, or those that ``generate`` prepared for it.
            cached: whether the cache held tokens before the first pass.
        """
        tokens = torch.cat(list(pieces), dim=1)
        rows, length = tokens.shape[:2]
        mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        by_position: list[int] | None = None
        if isinstance(positions, Tensor) and positions.dim() == 2 and positions.shape[1] >= length:
            by_position = (positions[:, -1] + 1).expand(rows).tolist()
        lengths: tuple[int, ...] | None = (length,) * rows
        if isinstance(mask, Tensor) and mask.dim() == 2:
            lengths = tuple(int(count) for count in mask[:, -length:].sum(1))
        elif mask is not None:
            lengths = None if by_position is None else tuple(min(count, length) for count in by_position)
        complete = not cached or (by_position is not None and max(by_position) == length)
        return cls(tokens, lengths, complete, _digest_extras(inputs))

    def keys(self, pad: int | None) -> list[Hashable]:
        """A key for each row; equal for equal prompts, however they are padded.

        Args:
            pad: the padding token, which is stripped where `lengths` is None.
        """
        rows = self.tokens.tolist() if self.tokens.dim() == 2 else [_digests(row) for row in self.tokens]
        keys: list[Hashable] = []
        for index, row in enumerate(rows):
            kept = _strip(row, pad) if self.lengths is None else row[len(row) - self.lengths[index] :]
            keys.append((tuple(kept), self.extras))
        return keys


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of prompts of any lengths, `[P, L]` int64 each."""
    length = max(map(len, prompts))
    ids = [[pad] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def token_list(tokens: int | Sequence[int] | None) -> list[int]:
    """A setting such as ``eos_token_id``, which may be one token, several or None, as a list."""
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)


def find_cache(inputs: Mapping[str, Any]) -> object | None:
    """The cache among the model's inputs, under any of its names; None if there is none."""
    return next((inputs[name] for name in CACHE_NAMES if inputs.get(name) is not None), None)


def holds_tokens(cache: object | None) -> bool:
    """Whether `cache` holds any tokens. True for a cache of an unknown class."""
    if not isinstance(cache, Cache):
        return cache is not None
    for layer in cache.layers:
        if isinstance(layer, CacheLayerMixin):
            return int(layer.get_seq_length()) > 0
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            return any(layer.has_previous_state.values())
    return False


def _strip(row: list[Any], pad: int | None) -> list[Any]:
    start = 0
    while pad is not None and start < len(row) - 1 and row[start] == pad:
        start += 1
    return row[start:]


def _digests(embeddings: Tensor) -> list[bytes]:
    """One digest per token of `embeddings` `[L, d]`."""
    return [_digest(token) for token in embeddings.detach().cpu()]


def _digest_extras(inputs: Mapping[str, Any]) -> bytes:
    """Digest of the floating-point tensors that are neither embeddings nor masks: pixels, audio features."""
    extras = [
        name.encode() + _digest(value.detach().cpu())
        for name, value in sorted(inputs.items())
        if name not in PER_TOKEN and isinstance(value, Tensor) and value.is_floating_point()
    ]
    return b"".join(extras)


def _digest(tensor: Tensor) -> bytes:
    data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).digest()
