"""Telling the forward passes of a generate call from all others by nothing but what the model is called with."""

import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from typing_extensions import TypeIs

from esamp.engines.hf.decoding import ASSISTED
from esamp.engines.hf.prompt import Prompt, find_cache, holds_tokens
from esamp.errors import UnsupportedError

REMEMBERED = 4
"""Earlier generate calls (or passes by hand) to which a forward pass may turn out to return."""

BEAMS = (
    "the rows changed places between two decode steps, as beam search and assisted decoding do: use sampling or "
    "greedy decoding (num_beams=1, no assistant_model)"
)
INTERRUPTED = (
    "within a generate call, the model was called for something else: classifier-free guidance (guidance_scale), a "
    "logits processor or stopping criterion that calls the model, or a generate call in another thread. explore() "
    "cannot tell such calls apart from outside: use run.generate(...), which takes the same arguments"
)
TUPLE = (
    "this model keeps its cache in a tuple, which is another one at every step, so that explore() cannot follow its "
    "calls from outside: use run.generate(...), which takes the same arguments"
)


class Pass(Enum):
    """What a forward pass is."""

    PROMPT = "a prompt, or the first piece of one"
    PIECE = "a further piece of the prompt"
    STEP = "a decode step"


@dataclass
class _Stream:
    """The forward passes of one generate call."""

    cache: "weakref.ref[object] | None"
    """None where the model is called without a cache, with whole texts"""
    pieces: list[Tensor]
    """of the prompt, token ids `[B, L]` or embeddings `[B, L, d]`"""
    inputs: Mapping[str, Any]
    """of the prompt's last piece"""
    cached: bool
    """whether the cache held tokens before"""
    steps: int = 0
    text: Tensor | None = None
    """what the model read last, where there is no cache"""
    contents: Tensor | None = field(default=None, repr=False)
    """a tensor of the cache after the latest pass"""

    def continues(self, cache: object | None, states: Tensor) -> bool:
        """Whether a pass with this cache and input `[B, T]` brings one new token to each row of this stream.

        Raises:
            UnsupportedError: it does, but the rows have changed places.
        """
        if self.cache is not None:
            return self.cache() is cache and states.shape[1] == 1
        before = self.text
        if cache is not None or before is None or states.shape[:2] != (before.shape[0], before.shape[1] + 1):
            return False
        if torch.equal(states[:, :-1], before):
            return True
        if self.steps and _moved(states[:, :-1], before):
            raise UnsupportedError(BEAMS)
        return False

    def reads_on(self, cache: object | None) -> bool:
        """Whether a pass of several tokens with this cache is another piece of the prompt."""
        return cache is not None and not self.steps and self.cache is not None and self.cache() is cache


class Streams:
    """Follows the forward passes of ``generate``: a prompt (in one piece or in several), then one token at a time.

    A pass is a decode step if it brings one token to the cache of the pass before, or, without a cache, the same rows
    grown by one token. Passes that return to an earlier call show that two are interleaved, which is refused.
    """

    def __init__(self) -> None:
        self._current: _Stream | None = None
        self._earlier: deque[_Stream] = deque(maxlen=REMEMBERED)

    @property
    def prompt(self) -> Prompt:
        """The prompt of the current call."""
        assert self._current is not None
        return Prompt.read(self._current.pieces, self._current.inputs, cached=self._current.cached)

    def enter(self, inputs: Mapping[str, Any]) -> Pass:
        """Classify a forward pass.

        Raises:
            UnsupportedError: it belongs to beam search, assisted decoding, continuous batching, or to a generate call
                that other passes have interrupted.
        """
        _refuse_paged(inputs)
        cache, ids = find_cache(inputs), inputs.get("input_ids")
        states = ids if isinstance(ids, Tensor) else inputs["inputs_embeds"]
        if isinstance(cache, tuple):
            raise UnsupportedError(TUPLE)
        if cache is not None and _verifies(inputs):
            raise UnsupportedError(ASSISTED)
        current = self._current
        if current is not None and current.continues(cache, states):
            if _is_last_piece(current, inputs):
                return self._add_piece(current, states, inputs)
            if current.contents is not None and _contents(cache) is not current.contents:
                self._current = None
                raise UnsupportedError(BEAMS)
            current.steps += 1
            current.text = states if cache is None else None
            return Pass.STEP
        if current is not None and current.reads_on(cache):
            return self._add_piece(current, states, inputs)
        self._refuse_return(cache, states)
        self._begin(cache, states, inputs)
        return Pass.PROMPT

    def leave(self) -> None:
        """The pass is over: remember the contents of the cache by identity."""
        current = self._current
        if current is not None and current.cache is not None:
            current.contents = _contents(current.cache())

    def _begin(self, cache: object | None, states: Tensor, inputs: Mapping[str, Any]) -> None:
        if self._current is not None:
            self._current.contents, self._current.inputs = None, {}
            self._earlier.append(self._current)
        self._current = _Stream(
            cache=None if cache is None else weakref.ref(cache),
            pieces=[states],
            inputs=dict(inputs),
            cached=holds_tokens(cache),
            text=states if cache is None else None,
        )

    @staticmethod
    def _add_piece(stream: _Stream, states: Tensor, inputs: Mapping[str, Any]) -> Pass:
        stream.pieces.append(states)
        stream.inputs = dict(inputs)
        return Pass.PIECE

    def _refuse_return(self, cache: object | None, states: Tensor) -> None:
        for stream in self._earlier:
            if stream.continues(cache, states):
                self._current = None
                self._earlier.clear()
                raise UnsupportedError(INTERRUPTED)


def _moved(rows: Tensor, before: Tensor) -> bool:
    """Whether every one of `rows` `[B, L]` was another row of `before` `[B, L]`."""
    same = (rows.unsqueeze(1) == before.unsqueeze(0)).flatten(2).all(-1)
    return bool(same.any(1).all())


def _is_last_piece(stream: _Stream, inputs: Mapping[str, Any]) -> bool:
    """Whether a pass of one token is the end of a prompt that comes in pieces, and not a decode step.

    ``generate`` cuts the attention masks and positions of the pieces from tensors for the whole prompt, and makes new
    ones for each decode step.

    Raises:
        UnsupportedError: the prompt came in pieces, and nothing tells whether this is another one.
    """
    if stream.steps:
        return False
    pairs = [(stream.inputs.get(name), inputs.get(name)) for name in ("attention_mask", "position_ids")]
    known = [_same_memory(a, b) for a, b in pairs if _per_token(a) and _per_token(b)]
    if not known and len(stream.pieces) > 1:
        raise UnsupportedError(
            "the prompt comes in pieces, and this model is given nothing that tells its last piece from a decode step: "
            "leave prefill_chunk_size out, or use run.generate(...), which takes the same arguments"
        )
    return any(known)


def _per_token(tensor: object) -> TypeIs[Tensor]:
    """Whether this is a tensor `[B, T]` with an entry for each token."""
    return isinstance(tensor, Tensor) and tensor.dim() == 2


def _same_memory(first: Tensor, second: Tensor) -> bool:
    return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def _refuse_paged(inputs: Mapping[str, Any]) -> None:
    if "cu_seq_lens_q" in inputs and inputs.get("cache") is not None:
        raise UnsupportedError(
            "generate_batch (continuous batching, cache_implementation='paged') runs many prompts as one row, which "
            "explore() cannot follow: call model.generate, or use esamp's vLLM engine"
        )


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
