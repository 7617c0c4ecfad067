"""Many samples of a prompt at temperature 1, as fast as a plain transformers model allows: for evaluating the model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A KV-cache layer that writes into spare room instead of copying everything for each token."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, new, head size); returns all keys and values."""
        rows, heads, new, size = key_states.shape
        old = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        room = self._room
        if room is None or room[0].data_ptr() != self.keys.data_ptr() or room[0].shape[2] < old + new:
            shape = (rows, heads, 2 * (old + new), size)
            room = self._room = (key_states.new_empty(shape), value_states.new_empty(shape))
            if old:
                room[0][:, :, :old], room[1][:, :, :old] = self.keys, self.values
        keys, values = room
        keys[:, :, old : old + new], values[:, :, old : old + new] = key_states, value_states
        self.keys, self.values = keys[:, :, : old + new], values[:, :, : old + new]
        return self.keys, self.values


def growing_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache of growing layers."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() for _ in range(model.config.num_hidden_layers)]
    return cache


@torch.inference_mode()
def sample(model: PreTrainedModel, prompts: Tensor, max_length: int, generator: torch.Generator) -> list[list[int]]:
    """One sample per row of `prompts` (rows, prompt length; none padded), drawn from the full softmax.

    Returns the new token ids of each row, the end token included where it came before `max_length` tokens in all.
    Rows leave the batch when they end.
    """
    end = model.config.eos_token_id
    texts: list[list[int]] = [[] for _ in range(len(prompts))]
    rows = torch.arange(len(prompts))
    cache = growing_cache(model)
    tokens = prompts.to(model.device)
    for _ in range(max_length - prompts.shape[1]):
        logits = model(input_ids=tokens, past_key_values=cache, logits_to_keep=1).logits[:, -1]  # (rows, vocab)
        tokens = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)
        for row, token in zip(rows.tolist(), tokens[:, 0].tolist(), strict=True):
            texts[row].append(token)
        going = tokens[:, 0] != end
        if going.sum() <= 0.9 * len(rows):
            keep = going.nonzero()[:, 0]
            rows, tokens = rows[keep.cpu()], tokens[keep]
            cache.batch_select_indices(keep)
        if not len(rows):
            break
    return [text[: text.index(end) + 1] if end in text else text for text in texts]
