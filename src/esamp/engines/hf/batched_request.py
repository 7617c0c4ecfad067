"""`BatchedRequest`: a request whose samples are rows of a batch, and `TokenCounter`, which counts the rows' tokens."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from esamp.engines.base import Completion, Request, Sample
from esamp.engines.cost import Cost
from esamp.engines.hf.beam_search import BeamResult
from esamp.engines.hf.following import Listeners, Step
from esamp.engines.hf.traces import Trace


@dataclass
class BatchedRequest:
    """A request in progress, with its encoded prompt, its random numbers and its finished samples."""

    request: Request
    prompt: list[int]
    """token ids"""
    limit: int
    """most tokens of a sample"""
    uniforms: Tensor
    """`[n, limit]` float64 in [0, 1): a random number for each token of each sample"""
    samples: list[Sample] = field(default_factory=list)
    beam_result: BeamResult | None = None
    """the result of a beam search; None for methods that sample"""

    @property
    def batch_key(self) -> Hashable:
        """Equal for requests that can share a generate call."""
        request = self.request
        return request.own_sampling, request.method, request.own_options, request.n, self.limit

    def completion(self, seconds: float, telemetry: Mapping[str, float]) -> Completion:
        """The completion, once all samples are finished.

        Args:
            seconds: wall time of the batch.
            telemetry: what the method did for the request's group.
        """
        prompt_tokens, result = len(self.prompt), self.beam_result
        spent = Cost(result.generated, prompt_tokens, self.request.n, seconds) if result else None
        details = result.details if result else {}
        return Completion(self.request, tuple(self.samples), prompt_tokens, seconds, telemetry, spent, details)


class TokenCounter:
    """Counts the tokens of each row of a wave as they are sampled, and reports them."""

    def __init__(
        self,
        listeners: Listeners,
        batch: Sequence[BatchedRequest],
        *,
        first: int,
        size: int,
        trace: Callable[[], Trace] | None = None,
    ) -> None:
        """Count for one generate call.

        Args:
            listeners: told the number of tokens at each step, and the number of samples by `finish`.
            batch: the requests.
            first: index of each request's first sample in this call.
            size: samples of each request in this call.
            trace: returns the measurements so far.
        """
        self._listeners, self._batch, self._first, self._size, self._trace = listeners, batch, first, size, trace
        self._running = self._lengths = torch.empty(0)

    def step(self, tokens: Tensor, finished: Tensor) -> None:
        """Count the tokens `[B]` of a step; `finished` `[B]` bool marks the rows that they end."""
        if not self._lengths.numel():
            self._running, self._lengths = torch.ones_like(finished), torch.zeros_like(tokens)
        live = self._running
        self._lengths, self._running = self._lengths + live, live & ~finished
        if self._listeners.progress is not None:
            self._listeners.progress(0, int(live.sum()))
        if self._listeners.on_step is not None:
            prompts = [batched.prompt for batched in self._batch]
            self._listeners.on_step(Step(prompts, self._first, self._size, tokens, live, self._trace))

    def lengths(self) -> list[int]:
        """Number of tokens of each row, the token that ended it included."""
        return [int(length) for length in self._lengths.tolist()]

    def finish(self) -> None:
        """Report that the samples of this call are finished."""
        if self._listeners.progress is not None:
            self._listeners.progress(len(self._batch) * self._size, 0)
