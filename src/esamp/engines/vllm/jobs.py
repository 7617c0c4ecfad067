"""`Job`: one request on its way through vLLM, and its samples as far as they have come."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from esamp.engines import text
from esamp.engines.base import Progress, Request, Sample, TokenTrace
from esamp.engines.vllm.params import SAMPLER_SET, SEED_LIMIT, RequestOptions, flatten
from esamp.errors import UnansweredError
from esamp.methods.base import DecodeMethod, Method
from esamp.options import Options

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams

ENDINGS: Mapping[str, bool] = {"stop": True, "length": False}
"""vLLM's reasons for the end of a sample, and whether it ended by itself."""


@dataclass(eq=False)
class Job:
    """A request and what there is of its answer."""

    request: Request
    method: type[Method]
    options: Options
    prompt: list[int]
    limit: int
    """most tokens of a sample"""
    progress: Progress | None
    ids: list[str] = field(default_factory=list)
    """vLLM's requests: one, or one a sample"""
    started: float = field(default_factory=time.perf_counter)
    logprobs: bool = False
    """whether vLLM reports how likely the model itself finds each token"""
    tokens: list[list[int]] = field(init=False)
    """of each sample"""
    scores: list[list[float]] = field(init=False)
    """log-probabilities of each sample's tokens under the model's own distribution, in nats, where they are reported"""
    ended: list[bool | None] = field(init=False)
    """of each sample whether it ended by itself; None while it runs"""
    broken: UnansweredError | None = field(default=None, init=False)
    """why there will be no answer: vLLM broke a sample off"""

    def __post_init__(self) -> None:
        self.tokens, self.ended = [[] for _ in range(self.request.n)], [None] * self.request.n
        self.scores = [[] for _ in range(self.request.n)]

    @property
    def left(self) -> int:
        """Samples that have not ended."""
        return self.ended.count(None)

    @property
    def rows(self) -> int:
        """How many rows it may still take at a time."""
        return min(self.left, max(self.method.waves(self.options, self.request.n)))

    @property
    def explores(self) -> bool:
        """Whether the method takes part in decode steps."""
        return issubclass(self.method, DecodeMethod)

    def params(self, common: RequestOptions, *, n: int, first: int) -> "SamplingParams":
        """What vLLM is told about `n` samples, of which `first` is the first one.

        Raises:
            ValueError: vLLM cannot do that.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = self.request.own_sampling
        return SamplingParams(
            n=n,
            seed=self.request.own_seed % SEED_LIMIT + first,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            max_tokens=self.limit,
            stop=list(sampling.stop),
            detokenize=bool(sampling.stop),
            output_kind=RequestOutputKind.DELTA,
            logprobs=0 if self.logprobs else None,
            extra_args=flatten(self.request.method, self.options, common) | {SAMPLER_SET: True}
            if self.explores
            else None,
        )

    def take(self, index: int, new: "CompletionOutput") -> None:
        """The tokens of a step for one sample, and why it ended if it did."""
        tokens, finish_reason = new.token_ids, new.finish_reason
        self.tokens[index] += tokens
        if self.logprobs:
            assert new.logprobs is not None
            self.scores[index] += [step[token].logprob for step, token in zip(new.logprobs, tokens, strict=True)]
        if finish_reason is not None:
            if finish_reason not in ENDINGS:
                self.broken = UnansweredError(f"request {self.request.id!r}: vLLM ended a sample: {finish_reason!r}")
            self.ended[index] = ENDINGS.get(finish_reason, True)
        if self.progress is not None:
            self.progress(int(finish_reason is not None), len(tokens))

    def sample(self, index: int, tokenizer: PreTrainedTokenizerBase, measured: Tensor | None) -> Sample:
        """One of the answers, with its measurements `[3, tokens]` if there are any."""
        ending = text.end(tokenizer, self.prompt, self.tokens[index], self.request, ended=bool(self.ended[index]))
        kept = None
        if measured is not None:
            novelty, kl, surprisal = (series[: len(ending.tokens)].clone() for series in measured)
            kept = TokenTrace(novelty, kl, surprisal, text.pieces(tokenizer, self.prompt, ending.tokens))
        logprob = math.fsum(self.scores[index][: len(ending.tokens)]) if self.logprobs else None
        return Sample(index, ending.text, ending.tokens, "stop" if ending.stopped else "length", kept, logprob)
