"""Contrastive decoding: what a model says beyond what a weaker one would have said as well."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import Combined, DecodeStep, Fed, Steering
from esamp.errors import OptionError, UnsupportedError
from esamp.methods.base import ModelShape, Need
from esamp.methods.contrast import amateur
from esamp.methods.contrast.logit_contrast import LogitContrast, plausible_tokens
from esamp.methods.options import ContrastiveOptions
from esamp.options import Options, narrowed


class Contrastive(LogitContrast):
    """Contrasts the model's logits s_e with those of an amateur s_a that reads the same tokens.

    Token v gets::

        (1 + beta) s_e[v] - beta s_a[v]     where s_e[v] >= max_u s_e[u] + ln alpha
        minus infinity                      elsewhere

    The logits are raw, `[R, V]` float32, before penalties, temperature and filters. Log-probabilities in their place
    would shift a row by a constant and so give the same distribution. beta = 0 leaves the plausibility mask alone.

    The amateur is a causal language model with the same vocabulary. It sits on the model's device with a KV cache of
    its own, which a new call of the engine starts anew. `size` and `nbytes` count its weights, not that cache. It does
    not matter which prompts share a batch. Needs the tokens of every step, so it runs on the transformers engine.

    Source: O'Brien and Lewis 2023, arXiv 2309.09117, Algorithm 2; after Li et al. 2022, arXiv 2210.15097, who subtract
    log-probabilities, the amateur's at a temperature of its own, and search with beams.
    """

    name = "contrastive"
    summary = "contrastive decoding: subtract the logits of a weaker model on the plausible tokens"
    citation = "O'Brien and Lewis 2023, Contrastive Decoding Improves Reasoning in Large Language Models, 2309.09117"
    options = ContrastiveOptions
    needs = frozenset({Need.TOKENS})

    def __init__(self, options: ContrastiveOptions, reader: amateur.Amateur, shape: ModelShape, slots: int) -> None:
        """Use `build`."""
        super().__init__(slots, shape.device)
        self._options, self._amateur = options, reader
        self._layout: RowLayout | None = None  # of the call that the amateur's cache belongs to

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """None: it works on logits."""
        return ()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Load the amateur.

        Raises:
            OptionError: it cannot be loaded, or its vocabulary is another one than the model's.
        """
        own = narrowed(options, ContrastiveOptions)
        source = own.amateur or amateur.embedded()
        reader = amateur.Amateur(amateur.load(source, shape.device, own.amateur_dtype))
        if shape.vocabulary and reader.vocabulary != shape.vocabulary:
            raise OptionError(
                f"amateur = {source!r} has {reader.vocabulary} tokens and the model {shape.vocabulary}: both must have "
                "the same vocabulary, so choose a smaller model of the same family (option amateur)"
            )
        if shape.tokens is not None:
            _same_tokens(source, shape.tokens())
        return cls(own, reader, shape, slots)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """The amateur's weights. Its KV cache comes on top, as long and as wide as the batch."""
        own = narrowed(options, ContrastiveOptions)
        return amateur.measure(own.amateur or amateur.embedded(), shape.device, own.amateur_dtype)

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at ``contrast = 0``, where only the plausibility mask is left, which may find nothing to drop."""
        return narrowed(options, ContrastiveOptions).contrast > 0

    @property
    def nbytes(self) -> int:
        """Bytes of the amateur's weights."""
        return self._amateur.nbytes

    def steer(self, step: DecodeStep) -> Steering:
        """Let the amateur read what the model read.

        Raises:
            UnsupportedError: the engine does not tell the tokens, or the prompt is not known as tokens.
            OptionError: the amateur's context is too short.
        """
        fed = _tokens(step)
        # A call has one layout for all its steps; a prompt that comes in several pieces is told in full with each.
        if step.layout is not self._layout or fed.ids.shape[1] > 1:
            self._check_room(step, fed)
            self._layout, theirs = step.layout, self._amateur.start(fed)
        else:
            theirs = self._amateur.follow(fed)
        return Steering((step.final,), lambda logits: self._mixed(step, logits, theirs))

    def _mixed(self, step: DecodeStep, reference: Tensor, theirs: Tensor) -> Combined:
        expert = reference.float()
        contrast = torch.lerp(theirs.to(expert.device), expert, 1 + self._options.contrast)
        return self._contrasted(step, reference, contrast, plausible_tokens(expert, self._options.plausibility))

    def _check_room(self, step: DecodeStep, fed: Fed) -> None:
        """Once a call, so the host may wait for the rows' limits."""
        context, longest = self._amateur.context, int(step.rows.limit.max()) - 1
        if context is not None and fed.ids.shape[1] + longest > context:
            raise OptionError(
                f"the amateur reads {context} tokens at most, but prompt and sample may have {fed.ids.shape[1]} and "
                f"{longest + 1}: set max_tokens to at most {max(context - fed.ids.shape[1] + 1, 0)}, or choose an "
                "amateur with a longer context"
            )


def _tokens(step: DecodeStep) -> Fed:
    if step.fed is None:
        raise UnsupportedError("contrastive: the amateur reads every token, which only the transformers engine tells")
    if not step.fed.ids.shape[1] or step.fed.mask.shape != step.fed.ids.shape:
        raise UnsupportedError(
            "contrastive: the amateur must read the whole prompt: give token ids with a mask of the same shape, not "
            "embeddings or the rest of a prompt that is in a cache already"
        )
    return step.fed


def _same_tokens(source: str, own: Mapping[str, int]) -> None:
    """Refuse an amateur that calls a token of the model's by another name."""
    names = {token: text for text, token in own.items()}
    for text, token in (amateur.tokens_of(source) or {}).items():
        if names.get(token, text) != text:
            raise OptionError(
                f"amateur = {source!r} has another tokenizer: token {token} is {text!r} there and {names[token]!r} for "
                "the model; choose a smaller model of the same family (option amateur)"
            )
