"""Logits processors: the request's settings with vLLM's meaning, the method's last step, and seeded sampling."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from esamp.decoding.logits import rescore_survivors
from esamp.decoding.step import Combined


class SurroundedProcessors(LogitsProcessorList):
    """The processors of a generate call, with others before and after them.

    transformers inspects the signature of each processor in its list at every step, which takes longer than ours do:
    those before and after are called directly and must take two arguments.
    """

    def __init__(
        self,
        before: Sequence[LogitsProcessor],
        processors: Sequence[LogitsProcessor],
        after: Sequence[LogitsProcessor],
    ) -> None:
        super().__init__(processors)
        self._before, self._after = tuple(before), tuple(after)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Scores `[B, V]` in, processed scores out; `kwargs` are for the processors of the call."""
        for processor in self._before:
            scores = processor(input_ids, scores)
        scores = super().__call__(input_ids, scores, **kwargs)
        for processor in self._after:
            scores = processor(input_ids, scores)
        return scores


class AfterFilters(LogitsProcessor):
    """Runs last and applies what a method changes after the filters, if anything (see `Combined`).

    Tokens that survived every filter on the reference logits get the fused score; then the method's own function is
    applied to the scores that a token would be drawn from.
    """

    def __init__(self, take: Callable[[], Combined | None], temperature: float) -> None:
        """`take` returns the method's combined logits of this step, or None if no method acted."""
        self._take, self._temperature = take, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Filtered scores `[B, V]` in, the scores to draw from out."""
        combined = self._take()
        if combined is None:
            return scores
        if combined.rescore is not None:
            scores = rescore_survivors(scores, combined.rescore.to(scores.device), self._temperature)
        return scores if combined.late is None else combined.late(scores.float())


class CountPenalties(LogitsProcessor):
    """Presence and frequency penalties as in vLLM and the OpenAI API: they count generated tokens only.

    ``score[v] -= frequency * count[v] + presence * (count[v] > 0)``
    """

    def __init__(self, presence: float, frequency: float) -> None:
        """Both in units of logits."""
        self._presence, self._frequency = presence, frequency
        self._prompt: int | None = None  # tokens of the prompt, padding included

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]` in, penalised scores out. `input_ids` of the first call are the prompts alone."""
        if self._prompt is None:
            self._prompt = input_ids.shape[1]
        generated = input_ids[:, self._prompt :]
        counts = torch.zeros_like(scores).scatter_add_(1, generated, torch.ones_like(generated, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)


class RepetitionPenalty(LogitsProcessor):
    """``score / penalty`` if the score is positive, else ``score * penalty``, for tokens of prompt and sample.

    transformers' own processor counts padding as part of the prompt, and so would penalise the padding token, often
    the end-of-text token, in the shorter prompts of a batch.
    """

    def __init__(self, penalty: float, padding: Sequence[int]) -> None:
        """`padding` is the number of padding tokens before each prompt; all prompts have the same number of rows."""
        self._penalty, self._padding = penalty, list(padding)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]` in, penalised scores out."""
        rows, length = input_ids.shape
        first = torch.tensor(self._padding, device=input_ids.device).repeat_interleave(rows // len(self._padding))
        real = (torch.arange(length, device=input_ids.device) >= first.unsqueeze(1)).to(scores.dtype)
        seen = torch.zeros_like(scores).scatter_reduce_(1, input_ids, real, "amax") > 0
        return torch.where(seen, torch.where(scores > 0, scores / self._penalty, scores * self._penalty), scores)


class MinPProcessor(LogitsProcessor):
    """Drops tokens with less than a share of the best token's probability at temperature T, before top-k and top-p.

    transformers applies min-p after them, vLLM before; a request means the same on both engines.
    """

    def __init__(self, share: float, temperature: float) -> None:
        """The share of the best token's probability, and the temperature that scores are divided by afterwards."""
        self._reach = -math.log(share) * temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]`, not divided by the temperature, in; out with minus infinity for dropped tokens."""
        return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - self._reach, -torch.inf)


class SeededSampler(LogitsProcessor):
    """Runs last and picks each row's token by inverse transform sampling from that row's own random numbers.

    A sample then depends on its request's seed and its index in the group alone, not on what else is in the batch.
    All other tokens are dropped, so that the sampler after it can only take that token.
    """

    def __init__(self, uniforms: Tensor) -> None:
        """`uniforms` `[B, T]` in [0, 1): one number per row and step."""
        self._uniforms, self._step = uniforms, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]` in; 0 at the chosen token and minus infinity elsewhere out."""
        u = self._uniforms[:, self._step].unsqueeze(1)
        self._step += 1
        cumulative = scores.softmax(-1).double().cumsum(-1)
        token = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)
        token = token.clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)
