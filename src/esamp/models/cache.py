"""`growing_cache`: a KV cache that is not copied for every token, which takes most of a small model's time on a CPU."""

from __future__ import annotations

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A KV-cache layer that writes into spare room, where `DynamicLayer` copies all keys and values for each token."""

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


def growing_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache of growing layers; None if the model's own cache has layers other than plain `DynamicLayer`.

    It takes up to twice the memory of the keys and values in it.
    """
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [GrowingLayer() for _ in cache.layers]
    return cache
