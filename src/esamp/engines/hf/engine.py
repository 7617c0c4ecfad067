"""`HFEngine`: runs requests on any transformers model."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from esamp.engines import text
from esamp.engines.base import Completion, Engine, Failure, OnText, Outcome, Progress, Request, Sample
from esamp.engines.checks import refuse_search, refuse_token_logprobs
from esamp.engines.hf.arguments import generate_arguments
from esamp.engines.hf.batched_request import BatchedRequest, TokenCounter
from esamp.engines.hf.beam_search import BeamResult, beam_search
from esamp.engines.hf.explore import explore
from esamp.engines.hf.following import Listeners, OnStep, passed_to
from esamp.engines.hf.loading import load_model
from esamp.engines.hf.plain_call import generate_plain
from esamp.engines.hf.processors import SeededSampler
from esamp.engines.hf.prompt_batch import left_padded
from esamp.engines.hf.run import Run
from esamp.engines.hf.samples import Measured, finished_sample
from esamp.engines.hf.score import score
from esamp.engines.hf.special_tokens import context_size, end_tokens, padding_token
from esamp.engines.likelihood import Likelihood
from esamp.engines.streaming import StreamedTexts
from esamp.engines.titles import title
from esamp.errors import OptionError, PromptError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.methods.beams import BeamMethod
from esamp.models import EMBEDDED, resolve
from esamp.models.cache import growing_cache
from esamp.models.templates import applies_template


class HFEngine(Engine):
    """Runs requests through ``model.generate``: many prompts in a batch, their samples in the waves of their method.

    A sample depends on its request's seed, prompt and index alone, up to the rounding of a batch's matrix products.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_rows: int = 64,
        trace: bool = False,
        token_logprobs: bool = False,
    ) -> None:
        """Use a loaded model; `load` loads one.

        Args:
            model: decoder-only model, on its device, in evaluation mode.
            tokenizer: its tokenizer.
            batch_rows: most samples in a batch.
            trace: keep per-token measurements in `Sample.trace`.
            token_logprobs: keep `Sample.logprobs` and `Sample.reference_logprobs`.
        """
        if batch_rows < 1:
            raise OptionError(f"batch_rows = {batch_rows} must be at least 1")
        self.model, self.tokenizer = model, tokenizer
        self._batch_rows, self._trace, self._logprobs = batch_rows, trace, token_logprobs

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_rows: int = 64,
        trace: bool = False,
        token_logprobs: bool = False,
    ) -> Self:
        """Load a model and its tokenizer.

        Args:
            model: one of ours by name (see `esamp.models.resolve`), a folder or a hub name; None is the embedded model.
            device: "auto" (CUDA if there is one), or a torch device such as "cuda:1" or "cpu".
            dtype: "auto" (float32 on a CPU, else the model's own), "float32", "bfloat16" or "float16".
            batch_rows: most samples in a batch.
            trace: keep per-token measurements in `Sample.trace`.
            token_logprobs: keep `Sample.logprobs` and `Sample.reference_logprobs`.

        Raises:
            InputError: the model cannot be found or loaded.
            OptionError: an unknown dtype, or a device that cannot be used.
        """
        loaded, tokenizer = load_model(resolve(EMBEDDED if model is None else model), device=device, dtype=dtype)
        return cls(loaded, tokenizer, batch_rows=batch_rows, trace=trace, token_logprobs=token_logprobs)

    @override
    def outcomes(
        self, requests: Iterable[Request], *, progress: Progress | None = None, on_step: OnStep | None = None
    ) -> Iterator[Outcome]:
        """Yield completions batch by batch, in the order of the requests; a failure precedes the batch around it.

        Args:
            requests: see `Engine.outcomes`.
            progress: see `Engine.outcomes`.
            on_step: called with the new tokens of each decode step (not of beam searches).

        Raises:
            UnsupportedError: a batch does not fit into the device's memory, or the engine cannot run a request.
        """
        for batch in self._batches(requests):
            if isinstance(batch, Failure):
                yield batch
                continue
            started = time.perf_counter()
            try:
                telemetry = self._decode_batch(batch, Listeners(progress, on_step))
            except torch.OutOfMemoryError as error:
                raise UnsupportedError(
                    f"out of memory with {self._batch_rows} samples side by side: lower batch_rows (--batch-rows) or "
                    "max_tokens, or choose a smaller dtype"
                ) from error
            seconds = time.perf_counter() - started
            for batched, numbers in zip(batch, telemetry, strict=True):
                yield batched.completion(seconds, numbers)

    @override
    def stream(self, request: Request, on_text: OnText, *, progress: Progress | None = None) -> Outcome:
        texts = StreamedTexts(self.tokenizer, on_text, request.own_sampling.stop)
        [outcome] = self.outcomes([request], progress=progress, on_step=passed_to(texts))
        if isinstance(outcome, Completion):
            texts.finish(outcome.samples)
        return outcome

    @property
    @override
    def chats(self) -> bool:
        return applies_template(self.tokenizer)

    @override
    def score(self, request: Request, samples: Sequence[Sample], *, distribution: bool = False) -> list[Likelihood]:
        return score(self.model, self.tokenizer, request, samples, distribution=distribution)

    @override
    def close(self) -> None:
        """Nothing to do: the model is freed with the last reference to it."""

    # ---- requests to batches

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[BatchedRequest] | Failure]:
        """Neighbouring requests that can share a batch, and the failures of those whose prompts cannot be used."""
        batch: list[BatchedRequest] = []
        for request in requests:
            try:
                batched = self._prepare(request)
            except PromptError as error:
                yield Failure(request, error)
                continue
            widest = max(self._waves(request))
            if batch and (batched.batch_key != batch[0].batch_key or (len(batch) + 1) * widest > self._batch_rows):
                yield batch
                batch = []
            batch.append(batched)
        if batch:
            yield batch

    def _prepare(self, request: Request) -> BatchedRequest:
        """Encode a request's prompt and draw its random numbers."""
        if request.n < 1:
            raise OptionError(f"{title(request)}: n = {request.n} must be at least 1")
        refuse_search(request)
        if self._logprobs:
            refuse_token_logprobs(request.method)
        prompt = text.encode(self.tokenizer, request)
        limit = text.room(prompt, request, context_size(self.model))
        generator = torch.Generator().manual_seed(request.own_seed)
        uniforms = torch.rand(request.n, limit, generator=generator, dtype=torch.float64)
        return BatchedRequest(request, prompt, limit, uniforms)

    def _waves(self, request: Request) -> list[int]:
        """Samples per generate call, in order: the method's waves, cut into parts of at most `batch_rows`."""
        method = registry.get(request.method)
        sizes = method.waves(request.own_options, request.n)
        limit = self._batch_rows
        return [part for size in sizes for part in [limit] * (size // limit) + [size % limit] if part]

    # ---- batches to samples

    def _decode_batch(self, batch: Sequence[BatchedRequest], listeners: Listeners) -> list[Mapping[str, float]]:
        """Decode all samples of a batch. Returns the telemetry of each request."""
        request = batch[0].request
        method = registry.get(request.method)
        if issubclass(method, BeamMethod):
            return [result.telemetry for result in self._search_beams(method, batch, listeners.progress)]
        with ExitStack() as stack:
            run = stack.enter_context(self._explored(batch)) if issubclass(method, DecodeMethod) else None
            start = 0
            for size in self._waves(request):
                self._decode_wave(batch, run, start, size, listeners)
                start += size
            return [run.telemetry(group) if run is not None else {} for group in range(len(batch))]

    @contextmanager
    def _explored(self, batch: Sequence[BatchedRequest]) -> Iterator[Run]:
        """A block in which the batch's method acts on decode steps; each request is a group."""
        request = batch[0].request
        with explore(
            self.model,
            request.own_options,
            method=request.method,
            slots=len(batch),
            trace=self._trace,
            token_logprobs=self._logprobs,
            tokenizer=self.tokenizer,
            pad_token_id=self._pad,
        ) as run:
            run.seeds, run.samples = [batched.request.own_seed for batched in batch], request.n
            yield run

    def _decode_wave(
        self, batch: Sequence[BatchedRequest], run: Run | None, start: int, size: int, listeners: Listeners
    ) -> None:
        """Decode samples `start` to ``start + size - 1`` of each request in one generate call."""
        prompts, mask = left_padded([batched.prompt for batched in batch], self._pad)
        arguments = self._arguments(batch) | dict(
            inputs=prompts.repeat_interleave(size, 0).to(self.model.device),
            attention_mask=mask.repeat_interleave(size, 0).to(self.model.device),
        )
        if self.model.device.type == "cpu" and (cache := growing_cache(self.model)) is not None:
            arguments["past_key_values"] = cache
        uniforms = torch.cat([batched.uniforms[start : start + size] for batched in batch]).to(self.model.device)
        sampler = [SeededSampler(uniforms)] if batch[0].request.own_sampling.temperature > 0 else []
        trace_so_far = (lambda: run.trace) if run is not None and self._trace else None
        counter = TokenCounter(listeners, batch, first=start, size=size, trace=trace_so_far)
        if run is not None:
            run.samples_per_prompt = size
            rows = run.generate(**arguments, last=sampler, on_sampled=counter.step)
            trace, logprobs = run.trace if self._trace else None, run.token_logprobs if self._logprobs else None
            measured = Measured(trace, logprobs)
        else:
            rows, measured = generate_plain(
                self.model,
                arguments,
                sampler=sampler,
                on_sampled=counter.step,
                trace=self._trace,
                token_logprobs=self._logprobs,
            )
        generated = rows[:, prompts.shape[1] :].tolist()
        for row, (tokens, length) in enumerate(zip(generated, counter.lengths(), strict=True)):
            batched = batch[row // size]
            batched.samples.append(self._sample(batched, start + row % size, tokens[:length], measured, row))
        counter.finish()

    def _search_beams(
        self, method: type[BeamMethod], batch: Sequence[BatchedRequest], progress: Progress | None
    ) -> list[BeamResult]:
        request = batch[0].request
        results = beam_search(
            self.model,
            method(request.own_options, pad=self._pad, stops=len(end_tokens(self.model))),
            [batched.prompt for batched in batch],
            [batched.request.own_seed for batched in batch],
            request.n,
            self._arguments(batch),
            self._batch_rows,
            progress,
        )
        for batched, result in zip(batch, results, strict=True):
            batched.beam_result = result
            batched.samples = [
                self._sample(batched, index, tokens, Measured(), index) for index, tokens in enumerate(result.tokens)
            ]
        return results

    def _sample(self, batched: BatchedRequest, index: int, tokens: list[int], measured: Measured, row: int) -> Sample:
        stops = end_tokens(self.model)
        return finished_sample(self.tokenizer, batched, index, tokens, stops=stops, measured=measured, row=row)

    def _arguments(self, batch: Sequence[BatchedRequest]) -> dict[str, Any]:
        """The arguments of ``generate`` for the sampler settings that the batch has in common."""
        prompts = [batched.prompt for batched in batch]
        sampling, limit = batch[0].request.own_sampling, batch[0].limit
        return generate_arguments(sampling, limit, prompts=prompts, pad=self._pad, tokenizer=self.tokenizer)

    @property
    def _pad(self) -> int:
        return padding_token(self.model, self.tokenizer)
