"""`BatchedRequest`: a request whose samples are rows of a batch, and `TokenCounter`, which counts the rows' tokens."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from esamp.engines.base import Completion, Cost, Progress, Request, Sample
from esamp.engines.hf.beam_search import BeamResult
from esamp.engines.streaming import StreamedTexts


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
    texts: StreamedTexts | None = None
    """takes the samples' tokens as they are drawn, if the caller wants the texts then"""

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
    """Counts each row's tokens as they are sampled, reports progress, and passes the tokens on where they are wanted.

    Rows are in the order of the requests of a batch, and for each request in the order of its samples.
    """

    def __init__(self, progress: Progress | None, batch: Sequence[BatchedRequest], first: int, size: int) -> None:
        """Count for a wave: samples `first` to ``first + size - 1`` of each request of `batch`.

        `progress` gets the number of tokens at each step, and the number of samples from `finish`.
        """
        self._progress, self._batch = progress, batch
        self._first, self._size = first, size
        self._running = self._lengths = torch.empty(0)
        self._streams = any(batched.texts is not None for batched in batch)

    def step(self, tokens: Tensor, finished: Tensor) -> None:
        """Count the tokens `[B]` of a step; `finished` `[B]` bool marks the rows that they end."""
        if not self._lengths.numel():
            self._running, self._lengths = torch.ones_like(finished), torch.zeros_like(tokens)
        self._lengths = self._lengths + self._running
        if self._progress is not None:
            self._progress(0, int(self._running.sum()))
        if self._streams:
            self._stream(tokens.tolist(), self._running.tolist())
        self._running = self._running & ~finished

    def lengths(self) -> list[int]:
        """Number of tokens of each row, the token that ended it included."""
        return [int(length) for length in self._lengths.tolist()]

    def finish(self) -> None:
        """Report that the wave's samples are finished."""
        if self._progress is not None:
            self._progress(len(self._batch) * self._size, 0)

    def _stream(self, tokens: list[int], running: list[bool]) -> None:
        for row, (token, runs) in enumerate(zip(tokens, running, strict=True)):
            batched = self._batch[row // self._size]
            if runs and batched.texts is not None:
                batched.texts.add(self._first + row % self._size, batched.prompt, [token])
