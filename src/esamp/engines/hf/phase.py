"""Telling prefill from decode by what a model is called with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from esamp.engines.hf.decoding import ASSISTED
from esamp.engines.hf.prompt import Prompt, find_cache, holds_tokens
from esamp.errors import UnsupportedError


class PhaseTracker:
    """Follows the forward calls of ``generate``: prompt (in one piece or in chunks), then one new token per call.

    A call is a decode step when it brings one token to the very cache of the call before, or, without a cache, the
    same rows grown by one token. (A prompt in chunks whose last chunk is a single token cannot be told from that.)
    `Run.generate` knows without guessing: everything after the first sampled token.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []
        self._inputs: Mapping[str, Any] = {}
        self._cached = False
        self._cache: object | None = None
        self._contents: Tensor | None = None
        self._previous: Tensor | None = None
        self._decoding = False
        self._sampled = False

    @property
    def prompt(self) -> Prompt:
        """The prompt of the current call."""
        return Prompt.read(self._pieces, self._inputs, cached=self._cached)

    def begin(self, *, own_call: bool) -> None:
        """A new generate call starts decoding. With `own_call` nothing is sampled yet."""
        self._inputs = {}
        if own_call:
            self._sampled = False

    def sampled(self) -> None:
        """`Run.generate` only: a token was sampled."""
        self._sampled = True

    def enter(self, inputs: Mapping[str, Any], *, own_call: bool) -> bool:
        """Classify a forward call: True for a decode step.

        Raises:
            UnsupportedError: several tokens are verified at once (assisted decoding), or the cache was reordered or cut
                since the step before (beam search).
        """
        cache, ids = find_cache(inputs), inputs.get("input_ids")
        states = ids if isinstance(ids, Tensor) else inputs["inputs_embeds"]
        decoding = self._sampled if own_call else self._continues(cache, states)
        if not own_call and cache is not None and cache is self._cache and _verifies(inputs):
            raise UnsupportedError(ASSISTED)
        if decoding and self._contents is not None and _contents(cache) is not self._contents:
            raise UnsupportedError(
                "the cache was reordered or cut between two decode steps, as beam search and assisted decoding do: "
                "use sampling or greedy decoding (num_beams=1, no assistant_model)"
            )
        if not decoding:
            fresh = self._decoding or cache is None or cache is not self._cache
            self._cached = holds_tokens(cache) if fresh else self._cached
            self._pieces = [states] if fresh else [*self._pieces, states]
            self._inputs = dict(inputs)
            self._contents = None
        self._previous = states if cache is None else states[:, :0]
        self._cache, self._decoding = cache, decoding
        return decoding

    def leave(self) -> None:
        """The decode step is through: remember the cache's contents by identity."""
        self._contents = _contents(self._cache)

    def _continues(self, cache: object | None, states: Tensor) -> bool:
        before = self._previous
        if before is None or states.shape[0] != before.shape[0]:
            return False
        if cache is None:
            return (
                self._cache is None and states.shape[1] == before.shape[1] + 1 and torch.equal(states[:, :-1], before)
            )
        return cache is self._cache and states.shape[1] == 1


def _verifies(inputs: Mapping[str, Any]) -> bool:
    """Whether the model is asked for the logits of several new tokens at once."""
    kept = inputs.get("logits_to_keep")
    return isinstance(kept, int) and kept > 1


def _contents(cache: object | None) -> Tensor | None:
    """A tensor in the first layer of a cache, which is replaced only inside the model's forward pass."""
    if not isinstance(cache, Cache):
        return None
    for layer in cache.layers:
        parts = vars(layer)
        for found in (parts.get("keys"), *parts.get("conv_states", {}).values()):
            if isinstance(found, Tensor) and found.device.type != "mps":
                return found
    return None
