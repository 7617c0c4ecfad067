"""`Contrastive`: contrast the model's logits with those of a weaker model that reads the same tokens."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import Combined, DecodeStep, InputTokens, Steering
from esamp.errors import OptionError, UnsupportedError
from esamp.methods.base import ModelShape, Need
from esamp.methods.contrast import amateur
from esamp.methods.contrast.logit_contrast import LogitContrast, plausible_tokens
from esamp.methods.options import ContrastiveOptions
from esamp.options import Options, narrowed


class Contrastive(LogitContrast):
    """Contrasts the model's logits s_e with the logits s_a of a weaker model, the amateur.

    The logit of token v becomes::

        (1 + beta) s_e[v] - beta s_a[v]     where s_e[v] >= max_u s_e[u] + ln alpha
        minus infinity                      elsewhere

    with the models' own logits, `[R, V]` float32, before penalties, temperature and filters. Log-probabilities in their
    place would shift a row by a constant and give the same distribution. beta = 0 applies the plausibility mask only.

    The amateur is a causal language model with the same vocabulary. It runs on the model's device with a KV cache of
    its own, which starts empty in each call of the engine. `size` and `nbytes` count its weights, not that cache.
    Results do not depend on which prompts share a batch. The method needs the tokens of every step, which only the
    transformers engine provides.

    Source: O'Brien and Lewis 2023, arXiv 2309.09117, Algorithm 2; after Li et al. 2022, arXiv 2210.15097, who subtract
    log-probabilities, the amateur's at a temperature of its own, and search with beams.
    """

    name = "contrastive"
    summary = "contrastive decoding: subtract the logits of a weaker model on the plausible tokens"
    citation = "O'Brien and Lewis 2023, Contrastive Decoding Improves Reasoning in Large Language Models, 2309.09117"
    options = ContrastiveOptions
    needs = frozenset({Need.TOKENS})

    def __init__(self, options: ContrastiveOptions, reader: amateur.Amateur, shape: ModelShape, slots: int) -> None:
        super().__init__(slots, shape.device)
        self._options, self._amateur = options, reader
        self._layout: RowLayout | None = None  # of the engine call that the amateur's cache belongs to

    @classmethod
    @override
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        return ()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Load the amateur.

        Raises:
            OptionError: the amateur cannot be loaded, or its vocabulary differs from the model's.
        """
        own = narrowed(options, ContrastiveOptions)
        source = own.amateur or amateur.embedded()
        reader = amateur.Amateur(amateur.load(source, shape.device, own.amateur_dtype))
        if shape.vocabulary and reader.vocabulary != shape.vocabulary:
            raise OptionError(
                f"amateur = {source!r} has {reader.vocabulary} tokens and the model {shape.vocabulary}, but both need "
                "the same vocabulary: choose a smaller model of the same family (option amateur)"
            )
        if shape.tokens is not None:
            _same_tokens(source, shape.tokens())
        return cls(own, reader, shape, slots)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of the amateur's weights, without its KV cache, which grows with the batch."""
        own = narrowed(options, ContrastiveOptions)
        return amateur.measure(own.amateur or amateur.embedded(), shape.device, own.amateur_dtype)

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at ``contrast = 0``, which applies the plausibility mask only."""
        return narrowed(options, ContrastiveOptions).contrast > 0

    @property
    def nbytes(self) -> int:
        """Bytes of the amateur's weights."""
        return self._amateur.nbytes

    def steer(self, step: DecodeStep) -> Steering:
        """Run the amateur on the tokens that the model has read.

        Raises:
            UnsupportedError: the engine does not provide the tokens, or the prompt is not available as tokens.
            OptionError: the amateur's context is too short.
        """
        input_tokens = _tokens(step)
        # All steps of an engine call share one layout. A prompt prefilled in chunks is given in full with each of them.
        if step.layout is not self._layout or input_tokens.ids.shape[1] > 1:
            self._check_room(step, input_tokens)
            self._layout, weaker = step.layout, self._amateur.prefill(input_tokens)
        else:
            weaker = self._amateur.decode(input_tokens)
        return Steering((step.final,), lambda logits: self._mixed(step, logits, weaker))

    def _mixed(self, step: DecodeStep, reference: Tensor, weaker: Tensor) -> Combined:
        expert = reference.float()
        contrast = torch.lerp(weaker.to(expert.device), expert, 1 + self._options.contrast)
        return self._contrasted(step, reference, contrast, plausible_tokens(expert, self._options.plausibility))

    def _check_room(self, step: DecodeStep, input_tokens: InputTokens) -> None:
        """Refuse prompts too long for the amateur. Runs once per call, so that it may synchronise with the device."""
        context, longest = self._amateur.context, int(step.rows.limit.max()) - 1
        length = input_tokens.ids.shape[1]
        if context is not None and length + longest > context:
            raise OptionError(
                f"the amateur has a context of {context} tokens, but prompt and sample may have {length} and "
                f"{longest + 1}: set max_tokens to at most {max(context - length + 1, 0)}, or choose an "
                "amateur with a longer context"
            )


def _tokens(step: DecodeStep) -> InputTokens:
    if step.input_tokens is None:
        raise UnsupportedError(
            "contrastive: the amateur reads every token, which only the transformers engine provides"
        )
    if not step.input_tokens.ids.shape[1] or step.input_tokens.mask.shape != step.input_tokens.ids.shape:
        raise UnsupportedError(
            "contrastive: the amateur must read the whole prompt: pass token ids with a mask of the same shape, not "
            "embeddings or the rest of a prompt whose beginning is in a cache"
        )
    return step.input_tokens


def _same_tokens(source: str, own: Mapping[str, int]) -> None:
    """Refuse an amateur whose tokenizer gives one of the model's token ids another text."""
    names = {token: text for text, token in own.items()}
    for text, token in (amateur.tokens_of(source) or {}).items():
        if names.get(token, text) != text:
            raise OptionError(
                f"amateur = {source!r} has another tokenizer: token {token} is {text!r}, but {names[token]!r} for the "
                "model; choose a smaller model of the same family (option amateur)"
            )
