"""`PassTracker`: classifies forward passes as prefill or decode steps by what the model is called with."""

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

from esamp.engines.hf.generate import ASSISTED
from esamp.engines.hf.prompt_batch import PromptBatch, find_cache, holds_tokens
from esamp.errors import UnsupportedError

REMEMBERED = 4
"""Earlier generate calls (or single passes) that are kept, to detect that a forward pass continues one of them."""

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
    """The kinds of forward passes."""

    PROMPT = "a prompt, or the first piece of one"
    PIECE = "a further piece of the prompt"
    STEP = "a decode step"


@dataclass
class _Call:
    """The forward passes of one generate call."""

    cache: "weakref.ref[object] | None"
    """None if the model is called without a cache, with prompt and sample at every step"""
    pieces: list[Tensor]
    """the passes' token ids `[B, L]` or embeddings `[B, L, d]` at prefill"""
    inputs: Mapping[str, Any]
    """the model's inputs in the last pass of prefill"""
    cached: bool
    """whether the cache held tokens before prefill"""
    steps: int = 0
    """decode steps so far"""
    text: Tensor | None = None
    """the latest input `[B, T]` if there is no cache"""
    cache_tensor: Tensor | None = field(default=None, repr=False)
    """a tensor of the cache after the latest pass"""

    def continues(self, cache: object | None, states: Tensor) -> bool:
        """Whether a pass with this cache and input `[B, T]` adds one token to each row of this call.

        Raises:
            UnsupportedError: it does, but the rows have been reordered.
        """
        if self.cache is not None:
            return self.cache() is cache and states.shape[1] == 1
        before = self.text
        if cache is not None or before is None or states.shape[:2] != (before.shape[0], before.shape[1] + 1):
            return False
        if torch.equal(states[:, :-1], before):
            return True
        if self.steps and _is_reordered(states[:, :-1], before):
            raise UnsupportedError(BEAMS)
        return False

    def is_in_prefill(self, cache: object | None) -> bool:
        """Whether a pass of several tokens with this cache is another piece of the prompt."""
        return cache is not None and not self.steps and self.cache is not None and self.cache() is cache


class PassTracker:
    """Follows the forward passes of ``generate``: a prompt (in one piece or in several), then one token at a time.

    A pass is a decode step if it adds one token to the cache of the previous pass, or, without a cache, has the
    previous input with one more token per row. A pass that continues an earlier call shows that two calls are
    interleaved, which is refused.
    """

    def __init__(self) -> None:
        self._current: _Call | None = None
        self._earlier: deque[_Call] = deque(maxlen=REMEMBERED)

    @property
    def prompts(self) -> PromptBatch:
        """The prompts of the current call."""
        assert self._current is not None
        return PromptBatch.read(self._current.pieces, self._current.inputs, cached=self._current.cached)

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
        if cache is not None and _verifies_draft(inputs):
            raise UnsupportedError(ASSISTED)
        current = self._current
        if current is not None and current.continues(cache, states):
            if _is_last_piece(current, inputs):
                return self._add_piece(current, states, inputs)
            if current.cache_tensor is not None and _cache_tensor(cache) is not current.cache_tensor:
                self._current = None
                raise UnsupportedError(BEAMS)
            current.steps += 1
            current.text = states if cache is None else None
            return Pass.STEP
        if current is not None and current.is_in_prefill(cache):
            return self._add_piece(current, states, inputs)
        self._refuse_return(cache, states)
        self._begin(cache, states, inputs)
        return Pass.PROMPT

    def leave(self) -> None:
        """End a pass: keep a tensor of the cache, by whose identity changes from outside are detected."""
        current = self._current
        if current is not None and current.cache is not None:
            current.cache_tensor = _cache_tensor(current.cache())

    def _begin(self, cache: object | None, states: Tensor, inputs: Mapping[str, Any]) -> None:
        if self._current is not None:
            self._current.cache_tensor, self._current.inputs = None, {}
            self._earlier.append(self._current)
        self._current = _Call(
            cache=None if cache is None else weakref.ref(cache),
            pieces=[states],
            inputs=dict(inputs),
            cached=holds_tokens(cache),
            text=states if cache is None else None,
        )

    @staticmethod
    def _add_piece(call: _Call, states: Tensor, inputs: Mapping[str, Any]) -> Pass:
        call.pieces.append(states)
        call.inputs = dict(inputs)
        return Pass.PIECE

    def _refuse_return(self, cache: object | None, states: Tensor) -> None:
        for call in self._earlier:
            if call.continues(cache, states):
                self._current = None
                self._earlier.clear()
                raise UnsupportedError(INTERRUPTED)


def _is_reordered(rows: Tensor, before: Tensor) -> bool:
    """Whether each of `rows` `[B, L]` equals a row of `before` `[B, L]`."""
    same = (rows.unsqueeze(1) == before.unsqueeze(0)).flatten(2).all(-1)
    return bool(same.any(1).all())


def _is_last_piece(call: _Call, inputs: Mapping[str, Any]) -> bool:
    """Whether a pass of one token is the last piece of a prompt that comes in pieces, and not a decode step.

    ``generate`` slices the attention masks and positions of the pieces from tensors for the whole prompt, and creates
    new ones for each decode step.

    Raises:
        UnsupportedError: the prompt came in pieces, and the model is given neither masks nor positions.
    """
    if call.steps:
        return False
    pairs = [(call.inputs.get(name), inputs.get(name)) for name in ("attention_mask", "position_ids")]
    known = [_same_memory(a, b) for a, b in pairs if _per_token(a) and _per_token(b)]
    if not known and len(call.pieces) > 1:
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


def _verifies_draft(inputs: Mapping[str, Any]) -> bool:
    """Whether the pass returns logits of several new tokens, as the verification of drafted tokens does."""
    kept = inputs.get("logits_to_keep")
    return isinstance(kept, int) and kept > 1


def _cache_tensor(cache: object | None) -> Tensor | None:
    """A tensor in the first layer of a cache, which is replaced only inside the model's forward pass."""
    if not isinstance(cache, Cache):
        return None
    for layer in cache.layers:
        parts = vars(layer)
        for tensor in (parts.get("keys"), *parts.get("conv_states", {}).values()):
            if isinstance(tensor, Tensor) and tensor.device.type != "mps":
                return tensor
    return None
