"""What this engine adds to a generate call: logits processors, an ear at the stopping criteria, a counter."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from esamp.decoding.logits import rescore_survivors
from esamp.decoding.step import Combined
from esamp.engines.base import Progress


class Finish(LogitsProcessor):
    """Runs last: what a method still has to do to the filtered scores of a step, if anything.

    Tokens that survived every filter on the reference logits get the fused score; then comes the method's own function
    of the scores that a token would be drawn from.
    """

    def __init__(self, take: Callable[[], Combined | None], temperature: float) -> None:
        """`take` gives what the method made of this step's logits, or None when there is nothing to do."""
        self._take, self._temperature = take, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Filtered scores `[B, V]` in, those to draw from out."""
        combined = self._take()
        if combined is None:
            return scores
        if combined.rescore is not None:
            scores = rescore_survivors(scores, combined.rescore.to(scores.device), self._temperature)
        return scores if combined.late is None else combined.late(scores.float())


class CountPenalties(LogitsProcessor):
    """Presence and frequency penalties as vLLM and the OpenAI API have them: over the generated tokens alone.

    ``score[v] -= frequency * count[v] + presence * (count[v] > 0)``
    """

    def __init__(self, presence: float, frequency: float) -> None:
        """Both in units of logits."""
        self._presence, self._frequency = presence, frequency
        self._prompt: int | None = None  # tokens of the prompt, padding included

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]` in, penalised scores out. The first call sees the prompt alone; rows may move later."""
        if self._prompt is None:
            self._prompt = input_ids.shape[1]
        generated = input_ids[:, self._prompt :]
        counts = torch.zeros_like(scores).scatter_add_(1, generated, torch.ones_like(generated, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)


class RepetitionPenalty(LogitsProcessor):
    """``score / penalty`` where it is positive, ``score * penalty`` where it is not, for tokens of prompt and sample.

    transformers' own takes padding for prompt: it would punish the end-of-text token in the shorter prompts of a batch.
    """

    def __init__(self, penalty: float, padding: Sequence[int]) -> None:
        """`padding` is how many tokens stand before each prompt; each prompt has as many rows as any other."""
        self._penalty, self._padding = penalty, list(padding)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]` in, penalised scores out."""
        rows, length = input_ids.shape
        first = torch.tensor(self._padding, device=input_ids.device).repeat_interleave(rows // len(self._padding))
        real = (torch.arange(length, device=input_ids.device) >= first.unsqueeze(1)).to(scores.dtype)
        seen = torch.zeros_like(scores).scatter_reduce_(1, input_ids, real, "amax") > 0
        return torch.where(seen, torch.where(scores > 0, scores / self._penalty, scores * self._penalty), scores)


class MinP(LogitsProcessor):
    """Drops tokens of less than a share of the best token's probability at temperature T, before top-k and top-p.

    transformers has min-p behind them. vLLM has it first, and a request means the same on both engines.
    """

    def __init__(self, share: float, temperature: float) -> None:
        """The share of the best token's probability, and the temperature that scores are divided by afterwards."""
        self._reach = -math.log(share) * temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, V]` before the temperature in; minus infinity where they are too far below the best out."""
        return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - self._reach, -torch.inf)


class BehindPrompt(StoppingCriteria):
    """Shows another criterion the generated tokens alone, so that no stop text begins within the prompt."""

    def __init__(self, criterion: StoppingCriteria) -> None:
        """For one generate call."""
        self._criterion = criterion
        self._prompt: int | None = None  # tokens of the prompt, padding included

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Which rows `[B]` end here. The first call comes with one generated token."""
        if self._prompt is None:
            self._prompt = input_ids.shape[1] - 1
        done: Tensor = self._criterion(input_ids[:, self._prompt :], scores, **kwargs)
        return done


class DecodedStopTexts(StoppingCriteria):
    """Stop texts for tokenizers that `StopStringCriteria` cannot take apart: decodes each row's last tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        """A row ends when its newest token completes one of `stops`."""
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._window = max(map(len, stops)) + 1  # tokens; each adds a character or more

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Which rows `[B]` end here."""
        tails = input_ids[:, -self._window :].tolist()
        now = self._tokenizer.batch_decode(tails, skip_special_tokens=False)
        before = self._tokenizer.batch_decode([tail[:-1] for tail in tails], skip_special_tokens=False)
        ended = [self._found(text) > self._found(old) for text, old in zip(now, before, strict=True)]
        return torch.tensor(ended, device=input_ids.device)

    def _found(self, text: str) -> int:
        return sum(text.count(stop) for stop in self._stops)


class WatchedCriteria(StoppingCriteriaList):
    """The user's stopping criteria, reporting each step's tokens and which rows they finish."""

    def __init__(self, criteria: StoppingCriteriaList, report: Callable[[Tensor, Tensor], None]) -> None:
        """`report` gets the newest tokens `[B]` and a mask `[B]` of the rows that are done with them."""
        super().__init__(criteria)
        self._report = report

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Ask all criteria, report, and pass the answer on."""
        done: Tensor = super().__call__(input_ids, scores, **kwargs)
        self._report(input_ids[:, -1], done)
        return done


class SeededSampler(LogitsProcessor):
    """Runs last and picks each row's token by inverse transform sampling from that row's own random numbers.

    A sample then depends on its request's seed and its index in the group alone, not on what else is in the batch.
    All other tokens are dropped, so that the sampler behind has no choice left.
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


class TokenCounter:
    """Counts each row's tokens as they are sampled, and tells the progress bar."""

    def __init__(self, progress: Progress | None) -> None:
        """`progress` is told of tokens at each step, and of samples by `finish`."""
        self._progress = progress
        self._running = self._lengths = torch.empty(0)

    def step(self, tokens: Tensor, finished: Tensor) -> None:
        """The tokens `[B]` just sampled, and which rows `[B]` they finished."""
        if not self._lengths.numel():
            self._running, self._lengths = torch.ones_like(finished), torch.zeros_like(tokens)
        self._lengths = self._lengths + self._running
        if self._progress is not None:
            self._progress(0, int(self._running.sum()))
        self._running = self._running & ~finished

    def lengths(self) -> list[int]:
        """Tokens of each row, the one that finished it included."""
        return [int(length) for length in self._lengths.tolist()]

    def finish(self, samples: int) -> None:
        """This many samples are done."""
        if self._progress is not None:
            self._progress(samples, 0)
