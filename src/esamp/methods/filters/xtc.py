"""`XTC`, "exclude top choices": at random tokens, drop all likely candidates but the least likely of them."""

from typing import Self

import torch
from torch import Tensor

from esamp.decoding.randomness import per_token
from esamp.decoding.step import Rows
from esamp.errors import OptionError
from esamp.methods.base import LateFilter, ModelShape
from esamp.methods.options import XTCOptions
from esamp.methods.purpose import RandomPurpose
from esamp.options import Options, narrowed
from esamp.sampling import Sampling


class XTC(LateFilter):
    """At each token, with probability `xtc_probability`, drops all top choices but the least likely one.

    Top choices are ``A = {v : p_v >= xtc_threshold}``, with ``p`` `[R, V]` the softmax of the logits after temperature,
    top-k, top-p and min-p. The row is not changed

    * unless the random number ``u`` `[R]` in (0, 1) of this token and sample is below `xtc_probability`;
    * if A has fewer than two tokens;
    * if a token to be dropped contains a line break or ends the sample, so that texts keep their paragraphs and their
      ends. The token that is kept may be one of these.

    Of equally unlikely top choices the one with the lowest number is kept. The original implementation protects only
    the token of a single line break; current vocabularies have many tokens with line breaks (two in a row, one after a
    full stop), and here all of them are protected. Source: p-e-w 2024, pull request 6335 of
    oobabooga/text-generation-webui.
    """

    name = "xtc"
    summary = "at random tokens, drop all likely candidates but the least likely of them"
    citation = "p-e-w 2024, Exclude Top Choices, oobabooga/text-generation-webui pull request 6335"
    options = XTCOptions

    def __init__(self, probability: float, threshold: float, line_breaks: Tensor) -> None:
        """Use `build`. `line_breaks` `[B]` int64 are the tokens that contain a line break."""
        self.probability, self.threshold, self._line_breaks = probability, threshold, line_breaks

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Look up the tokens that contain a line break.

        Raises:
            OptionError: there is no tokenizer.
        """
        own = narrowed(options, XTCOptions)
        line_breaks = torch.tensor(shape.line_breaks(), dtype=torch.int64, device=shape.device)
        return cls(own.xtc_probability, own.xtc_threshold, line_breaks)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's own settings.

        Raises:
            OptionError: the temperature is 0, where tokens are not drawn.
        """
        if sampling.temperature == 0:
            raise OptionError("xtc drops the tokens that temperature = 0 would take: set a temperature above 0")
        return sampling

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """The filtered logits `[R, V]`, with minus infinity for dropped top choices."""
        p = logits.softmax(-1)
        top = p >= self.threshold
        least = p.masked_fill(~top, 2.0).argmin(-1, keepdim=True)
        dropped = top.scatter(1, least, False)
        protected = _any_of(dropped, self._line_breaks.expand(len(p), -1)) | _any_of(dropped, rows.stops)
        acts = (per_token(rows, RandomPurpose.XTC) < self.probability) & ~protected
        return logits.masked_fill(dropped & acts.unsqueeze(1), float("-inf"))


def _any_of(marked: Tensor, tokens: Tensor) -> Tensor:
    """`[R]` bool: whether one of the row's `tokens` `[R, k]` is in `marked` `[R, V]`; none outside of 0 .. V-1 is."""
    vocabulary = marked.shape[1]
    real = (tokens >= 0) & (tokens < vocabulary)
    return (marked.gather(1, tokens.clamp(0, vocabulary - 1)) & real).any(1)
