"""Telling prefill from decode by what a model is called with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from esamp.errors import UnsupportedError

CACHE_NAMES = ("past_key_values", "cache_params")


class PhaseTracker:
    """Follows the forward calls of ``generate``: prompt (in one piece or in chunks), then one new token per call.

    A call is a decode step when it brings one token to the very cache of the call before, or, without a cache, the
    same rows grown by one token. `Run.generate` knows without guessing: everything after the first sampled token.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []
        self._cache: object | None = None
        self._keys: Tensor | None = None
        self._shape: tuple[int, int] | None = None
        self._decoding = False
        self._sampled = False

    @property
    def prompt(self) -> Tensor:
        """The prompt `[B, L]` of the current call."""
        return torch.cat(self._pieces, dim=1)

    def begin(self, *, own_call: bool) -> None:
        """A new generate call starts decoding. With `own_call` nothing is sampled yet."""
        if own_call:
            self._sampled = False

    def sampled(self) -> None:
        """`Run.generate` only: a token was sampled."""
        self._sampled = True

    def enter(self, inputs: Mapping[str, Any], *, own_call: bool) -> bool:
        """Classify a forward call: True for a decode step.

        Raises:
            UnsupportedError: the cache was reordered or cut since the step before (beam search, assisted decoding).
        """
        cache = next((inputs[name] for name in CACHE_NAMES if inputs.get(name) is not None), None)
        ids = inputs.get("input_ids")
        states = ids if isinstance(ids, Tensor) else inputs["inputs_embeds"]
        shape = (states.shape[0], states.shape[1])
        decoding = self._sampled if own_call else self._continues(cache, shape)
        if decoding and self._keys is not None and _first_keys(cache) is not self._keys:
            raise UnsupportedError(
                "the cache was reordered or cut between two decode steps, as beam search and assisted decoding do: "
                "use sampling or greedy decoding (num_beams=1, no assistant_model)"
            )
        if not decoding:
            fresh = self._decoding or cache is None or cache is not self._cache
            piece = ids if isinstance(ids, Tensor) else torch.empty(shape[0], 0, dtype=torch.long)
            self._pieces = [piece] if fresh else [*self._pieces, piece]
            self._keys = None
        self._cache, self._shape, self._decoding = cache, shape, decoding
        return decoding

    def leave(self) -> None:
        """The decode step is through: remember the cache's contents by identity."""
        self._keys = _first_keys(self._cache)

    def _continues(self, cache: object | None, shape: tuple[int, int]) -> bool:
        if self._shape is None or shape[0] != self._shape[0]:
            return False
        if cache is None:
            return shape[1] == self._shape[1] + 1
        return cache is self._cache and shape[1] == 1


def _first_keys(cache: object | None) -> Tensor | None:
    """The key tensor of the first attention layer of a cache, which changes only inside the model's forward pass."""
    if not isinstance(cache, Cache):
        return None
    for layer in cache.layers:
        keys = vars(layer).get("keys")
        if isinstance(keys, Tensor) and keys.device.type != "mps":
            return keys
    return None
