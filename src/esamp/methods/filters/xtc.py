"""XTC, exclude top choices: now and then drop the likely tokens, all but the least likely of them."""

from typing import Self

import torch
from torch import Tensor

from esamp.decoding.randomness import per_token
from esamp.decoding.step import Rows
from esamp.errors import OptionError
from esamp.methods.base import LateFilter, ModelShape
from esamp.methods.options import XTCOptions
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

PURPOSE = 1
"""Keeps the coins apart from the random numbers of other methods."""


class XTC(LateFilter):
    """Tosses a coin for each token to come and, if it says so, drops all top choices but the least likely.

    Top choices are ``A = {v : p_v >= xtc_threshold}``, with ``p`` `[R, V]` the softmax of what temperature, top-k,
    top-p and min-p left. Nothing happens

    * unless the coin ``u`` `[R]` in (0, 1), one for each token of each sample, is below `xtc_probability`;
    * if A has fewer than two tokens: one choice is no choice;
    * if a token to be dropped has a line break in its text or ends the sample: texts would run on without paragraphs
      or end. The one that stays may be such a token.

    Of equally unlikely top choices the one with the lowest number stays. The original asks after one line break, the
    token of a single one; today's vocabularies have many (two in a row, one behind a full stop), and here all of them
    count. Source: p-e-w 2024, pull request 6335 of oobabooga/text-generation-webui.
    """

    name = "xtc"
    summary = "now and then drop the likely tokens, all but the least likely of them"
    citation = "p-e-w 2024, Exclude Top Choices, oobabooga/text-generation-webui pull request 6335"
    options = XTCOptions

    def __init__(self, probability: float, threshold: float, line_breaks: Tensor) -> None:
        """Use `build`. `line_breaks` are tokens `[B]`."""
        self.probability, self.threshold, self._line_breaks = probability, threshold, line_breaks

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        """Look up the tokens that break lines.

        Raises:
            OptionError: there is no tokenizer to ask.
        """
        own = narrowed(options, XTCOptions)
        line_breaks = torch.tensor(shape.line_breaks(), dtype=torch.int64, device=shape.device)
        return cls(own.xtc_probability, own.xtc_threshold, line_breaks)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """As it is.

        Raises:
            OptionError: tokens are not drawn at all.
        """
        if sampling.temperature == 0:
            raise OptionError("xtc drops the tokens that temperature = 0 would take: set a temperature above 0")
        return sampling

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Filtered logits `[R, V]` in; minus infinity for dropped top choices out."""
        p = logits.softmax(-1)
        top = p >= self.threshold
        least = p.masked_fill(~top, 2.0).argmin(-1, keepdim=True)
        dropped = top.scatter(1, least, False)
        protected = _any_of(dropped, self._line_breaks.expand(len(p), -1)) | _any_of(dropped, rows.stops)
        acts = (per_token(rows, PURPOSE) < self.probability) & ~protected
        return logits.masked_fill(dropped & acts.unsqueeze(1), float("-inf"))


def _any_of(marked: Tensor, tokens: Tensor) -> Tensor:
    """`[R]` bool: whether `marked` `[R, V]` has one of the row's `tokens` `[R, k]`; those outside of V are none."""
    vocabulary = marked.shape[1]
    real = (tokens >= 0) & (tokens < vocabulary)
    return (marked.gather(1, tokens.clamp(0, vocabulary - 1)) & real).any(1)
