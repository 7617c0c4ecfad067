"""`BatchedRequest`: a request whose samples are rows of a batch, and `TokenCounter`, which counts the rows' tokens."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from esamp.engines.base import Completion, Cost, Progress, Request, Sample
from esamp.engines.hf.beam_search import BeamResult


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
    """Counts each row's tokens as they are sampled, and reports progress."""

    def __init__(self, progress: Progress | None) -> None:
        """`progress` gets the number of tokens at each step, and the number of samples from `finish`."""
        self._progress = progress
        self._running = self._lengths = torch.empty(0)

    def step(self, tokens: Tensor, finished: Tensor) -> None:
        """Count the tokens `[B]` of a step; `finished` `[B]` bool marks the rows that they end."""
        if not self._lengths.numel():
            self._running, self._lengths = torch.ones_like(finished), torch.zeros_like(tokens)
        self._lengths = self._lengths + self._running
        if self._progress is not None:
            self._progress(0, int(self._running.sum()))
        self._running = self._running & ~finished

    def lengths(self) -> list[int]:
        """Number of tokens of each row, the token that ended it included."""
        return [int(length) for length in self._lengths.tolist()]

    def finish(self, samples: int) -> None:
        """Report that this many samples are finished."""
        if self._progress is not None:
            self._progress(samples, 0)
