"""`PendingRequest`: a request in vLLM, and the tokens of its samples received so far."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from esamp.engines import text
from esamp.engines.base import SEED_LIMIT, Progress, Request, Sample
from esamp.engines.streaming import StreamedTexts
from esamp.engines.titles import title
from esamp.engines.token_trace import TokenTrace
from esamp.engines.vllm.params import SAMPLER_SET, RequestOptions, flatten
from esamp.errors import UnansweredError
from esamp.methods.base import DecodeMethod, Method
from esamp.options import Options

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams

ENDINGS: Mapping[str, bool] = {"stop": True, "length": False}
"""vLLM's finish reasons, and whether such a sample ended by itself."""


@dataclass(eq=False)
class PendingRequest:
    """A request in progress."""

    request: Request
    method: type[Method]
    options: Options
    prompt: list[int]
    limit: int
    """most tokens of a sample"""
    progress: Progress | None
    texts: StreamedTexts | None = None
    """takes the samples' tokens as they are drawn, if the caller wants the texts then"""
    ids: list[str] = field(default_factory=list)
    """ids of vLLM's requests: one, or one per sample"""
    started: float = field(default_factory=time.perf_counter)
    logprobs: bool = False
    """whether vLLM reports log-probabilities of the tokens under the model's own distribution"""
    token_logprobs: bool = False
    """whether it reports them under the sampling distribution, and `reference` gets those under the model's own"""
    tokens: list[list[int]] = field(init=False)
    """token ids of each sample"""
    scores: list[list[float]] = field(init=False)
    """log-probabilities of each sample's tokens, in nats, if they are reported"""
    reference: list[list[float] | None] = field(init=False)
    """with `token_logprobs`: of each sample's tokens under the model alone; None until its pass has ended"""
    ended: list[bool | None] = field(init=False)
    """for each sample, whether it ended by itself; None while it runs"""
    broken: UnansweredError | None = field(default=None, init=False)
    """why the request has failed: vLLM ended a sample for another reason than `ENDINGS`"""

    def __post_init__(self) -> None:
        self.tokens, self.ended = [[] for _ in range(self.request.n)], [None] * self.request.n
        self.scores = [[] for _ in range(self.request.n)]
        self.reference = [None] * self.request.n

    @property
    def running(self) -> bool:
        """Whether a sample, or the pass that gives its `reference`, has not ended."""
        return bool(self.left) or (self.token_logprobs and None in self.reference)

    @property
    def left(self) -> int:
        """Samples that have not ended."""
        return self.ended.count(None)

    @property
    def rows(self) -> int:
        """Most rows of the batch that it can still take up at a time."""
        return min(self.left, max(self.method.waves(self.options, self.request.n)))

    @property
    def explores(self) -> bool:
        """Whether the method takes part in decode steps."""
        return issubclass(self.method, DecodeMethod)

    def params(self, common: RequestOptions, *, n: int, first: int) -> "SamplingParams":
        """vLLM's parameters for `n` of the samples, beginning with sample `first`.

        Raises:
            ValueError: vLLM does not accept them.
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
            logprobs=0 if self.logprobs or self.token_logprobs else None,
            extra_args=flatten(self.request.method, self.options, common) | {SAMPLER_SET: True}
            if self.explores
            else None,
        )

    def receive(self, index: int, new: "CompletionOutput") -> None:
        """Add the output of a step for one sample."""
        tokens, finish_reason = new.token_ids, new.finish_reason
        self.tokens[index] += tokens
        if self.logprobs or self.token_logprobs:
            assert new.logprobs is not None
            self.scores[index] += [step[token].logprob for step, token in zip(new.logprobs, tokens, strict=True)]
        if finish_reason is not None:
            if finish_reason not in ENDINGS:
                self.broken = UnansweredError(f"{title(self.request)}: vLLM ended a sample: {finish_reason!r}")
            self.ended[index] = ENDINGS.get(finish_reason, True)
        if self.texts is not None:
            self.texts.add(index, self.prompt, tokens)
        if self.progress is not None:
            self.progress(int(finish_reason is not None), len(tokens))

    def sample(self, index: int, tokenizer: PreTrainedTokenizerBase, measured: Tensor | None) -> Sample:
        """The finished sample, with the trace `[3, tokens]` that was measured for it, if any."""
        ending = text.end(tokenizer, self.prompt, self.tokens[index], self.request, ended=bool(self.ended[index]))
        trace = None
        if measured is not None:
            novelty, kl, surprisal = (series[: len(ending.tokens)].clone() for series in measured)
            trace = TokenTrace(novelty, kl, surprisal, text.pieces(tokenizer, self.prompt, ending.tokens))
        scores, own = (each[: len(ending.tokens)] for each in (self.scores[index], self.reference[index] or []))
        logprob = None
        if self.logprobs or self.token_logprobs:
            logprob = math.fsum(own if self.token_logprobs else scores)
        if self.request.own_sampling.temperature == 0:
            scores = [0.0] * len(scores)  # the token is certain; vLLM reports its log-probability at temperature 1
        return Sample(
            index,
            ending.text,
            ending.tokens,
            "stop" if ending.stopped else "length",
            trace,
            logprob,
            logprobs=tuple(scores) if self.token_logprobs else None,
            reference_logprobs=tuple(own) if self.token_logprobs else None,
        )
