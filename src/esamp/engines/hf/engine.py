"""`HFEngine`: requests in, completions out, on any transformers model."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from esamp.engines import text
from esamp.engines.base import Engine, Failure, Outcome, Progress, Request, Sample, TokenTrace
from esamp.engines.checks import refuse_search
from esamp.engines.hf import beams, decoding
from esamp.engines.hf.explore import explore
from esamp.engines.hf.job import Job, completion, kind
from esamp.engines.hf.loading import load_model
from esamp.engines.hf.processors import SeededSampler, TokenCounter
from esamp.engines.hf.prompt import left_padded
from esamp.engines.hf.run import Run
from esamp.engines.hf.score import score
from esamp.engines.hf.settings import generate_settings
from esamp.engines.hf.traces import Trace, Watch
from esamp.engines.likelihood import Likelihood
from esamp.errors import OptionError, PromptError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.methods.beams import BeamMethod
from esamp.models import EMBEDDED, resolve
from esamp.models.cache import growing_cache
from esamp.models.templates import applies_template
from esamp.sampling import Sampling


class HFEngine(Engine):
    """Runs requests through ``model.generate``, many prompts at a time, each request's samples in its method's waves.

    A sample depends on its request's seed, prompt and index alone, up to the rounding of a batch's matrix products.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_rows: int = 64,
        trace: bool = False,
    ) -> None:
        """Use a loaded model; `load` loads one.

        Args:
            model: decoder-only model, on its device, in evaluation mode.
            tokenizer: its tokenizer.
            batch_rows: most samples decoded side by side.
            trace: keep per-token measurements in `Sample.trace`.
        """
        if batch_rows < 1:
            raise OptionError(f"batch_rows = {batch_rows} must be at least 1")
        self.model, self.tokenizer = model, tokenizer
        self._batch_rows, self._trace = batch_rows, trace

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_rows: int = 64,
        trace: bool = False,
    ) -> Self:
        """Load a model by name (see `esamp.models.resolve`), hub name or folder; None is the embedded one.

        Args:
            model: one of ours by name, or what ``AutoModelForCausalLM.from_pretrained`` takes.
            device: "auto" (CUDA if there is one), or a torch device such as "cuda:1" or "cpu".
            dtype: "auto" (float32 on a CPU, else the model's own), "float32", "bfloat16" or "float16".
            batch_rows: most samples decoded side by side.
            trace: keep per-token measurements.

        Raises:
            InputError: the model cannot be found or loaded.
            OptionError: no such dtype or device.
        """
        loaded, tokenizer = load_model(resolve(EMBEDDED if model is None else model), device=device, dtype=dtype)
        return cls(loaded, tokenizer, batch_rows=batch_rows, trace=trace)

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield completions batch by batch, in the order of the requests; failures come before their neighbours.

        Raises:
            UnsupportedError: a batch does not fit into the device's memory, or a request asks for what cannot be done.
        """
        for jobs in self._batches(requests):
            if isinstance(jobs, Failure):
                yield jobs
                continue
            started = time.perf_counter()
            try:
                telemetry = self._run_batch(jobs, progress)
            except torch.OutOfMemoryError as error:
                raise UnsupportedError(
                    f"out of memory with {self._batch_rows} samples side by side: lower batch_rows (--batch-rows) or "
                    "max_tokens, or choose a smaller dtype"
                ) from error
            seconds = time.perf_counter() - started
            for job, numbers in zip(jobs, telemetry, strict=True):
                yield completion(job, seconds, numbers)

    @property
    @override
    def chats(self) -> bool:
        return applies_template(self.tokenizer)

    @override
    def score(self, request: Request, samples: Sequence[Sample], *, distribution: bool = False) -> list[Likelihood]:
        return score(self.model, self.tokenizer, request, samples, distribution=distribution)

    def close(self) -> None:
        """Nothing to do: the model is freed with the last reference to it."""

    # ---- batches

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Job] | Failure]:
        """Neighbouring requests that can be decoded together, and those whose prompts cannot be decoded at all."""
        batch: list[Job] = []
        for request in requests:
            try:
                job = self._job(request)
            except PromptError as error:
                yield Failure(request, error)
                continue
            widest = max(self._waves(request))
            if batch and (kind(job) != kind(batch[0]) or (len(batch) + 1) * widest > self._batch_rows):
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    def _waves(self, request: Request) -> list[int]:
        """Sizes of the generate calls that a request's samples take, none above `batch_rows`."""
        method = registry.get(request.method)
        sizes = method.waves(request.own_options, request.n)
        limit = self._batch_rows
        return [part for size in sizes for part in [limit] * (size // limit) + [size % limit] if part]

    def _run_batch(self, jobs: Sequence[Job], progress: Progress | None) -> list[Mapping[str, float]]:
        request = jobs[0].request
        method = registry.get(request.method)
        if issubclass(method, BeamMethod):
            return [found.telemetry for found in self._search(method, jobs, progress)]
        with ExitStack() as stack:
            run: Run | None = None
            if issubclass(method, DecodeMethod):
                run = stack.enter_context(
                    explore(
                        self.model,
                        request.own_options,
                        method=request.method,
                        slots=len(jobs),
                        trace=self._trace,
                        tokenizer=self.tokenizer,
                        pad_token_id=self._pad,
                    )
                )
                run.seeds, run.samples = [job.request.own_seed for job in jobs], request.n
            start = 0
            for size in self._waves(request):
                self._run_wave(jobs, run, start, size, progress)
                start += size
            return [run.telemetry(group) if run is not None else {} for group in range(len(jobs))]

    def _search(self, method: type[BeamMethod], jobs: Sequence[Job], progress: Progress | None) -> list[beams.Found]:
        request, prompts, seeds = jobs[0].request, [job.prompt for job in jobs], [job.request.own_seed for job in jobs]
        chooser = method(request.own_options, pad=self._pad, stops=len(self._eos))
        settings = self._settings(request.own_sampling, jobs)
        found = beams.run(self.model, chooser, prompts, seeds, request.n, settings, self._batch_rows, progress)
        for job, each in zip(jobs, found, strict=True):
            job.found = each
            job.samples = [self._sample(job, index, tokens, None, index) for index, tokens in enumerate(each.tokens)]
        return found

    def _run_wave(self, jobs: Sequence[Job], run: Run | None, start: int, size: int, progress: Progress | None) -> None:
        sampling = jobs[0].request.own_sampling
        padded, mask = left_padded([job.prompt for job in jobs], self._pad)
        uniforms = torch.cat([job.uniforms[start : start + size] for job in jobs]).to(self.model.device)
        last = [SeededSampler(uniforms)] if sampling.temperature > 0 else []
        arguments: dict[str, Any] = dict(
            inputs=padded.repeat_interleave(size, 0).to(self.model.device),
            attention_mask=mask.repeat_interleave(size, 0).to(self.model.device),
            **self._settings(sampling, jobs),
        )
        if self.model.device.type == "cpu" and (cache := growing_cache(self.model)) is not None:
            arguments["past_key_values"] = cache
        count = TokenCounter(progress)
        if run is not None:
            run.samples_per_prompt = size
            rows = run.generate(**arguments, last=last, on_sampled=count.step)
            trace = run.trace if self._trace else None
        else:
            rows, trace = self._plainly(arguments, last, count)
        for row, (tokens, kept) in enumerate(zip(rows[:, padded.shape[1] :].tolist(), count.lengths(), strict=True)):
            job = jobs[row // size]
            job.samples.append(self._sample(job, start + row % size, tokens[:kept], trace, row))
        count.finish(len(jobs) * size)

    def _plainly(
        self, arguments: Mapping[str, Any], last: Sequence[SeededSampler], count: TokenCounter
    ) -> tuple[Tensor, Trace | None]:
        """A generate call in which no method acts."""
        watch = Watch() if self._trace else None

        def sampled(tokens: Tensor, finished: Tensor) -> None:
            count.step(tokens, finished)
            if watch is not None:
                watch.sampled(tokens)

        around: dict[str, Any] = dict(on_prompt=_ignore, on_sampled=sampled, last=lambda config: list(last))
        rows = decoding.generate(self.model, **arguments, **around, first=[] if watch is None else [watch])
        return rows, None if watch is None else watch.trace

    # ---- one request

    def _job(self, request: Request) -> Job:
        if request.n < 1:
            raise OptionError(f"request {request.id!r}: n = {request.n} must be at least 1")
        refuse_search(request)
        prompt = text.encode(self.tokenizer, request)
        limit = text.room(prompt, request, self._context)
        generator = torch.Generator().manual_seed(request.own_seed)
        return Job(request, prompt, limit, torch.rand(request.n, limit, generator=generator, dtype=torch.float64))

    def _sample(self, job: Job, index: int, tokens: list[int], trace: Trace | None, row: int) -> Sample:
        request = job.request
        ended = len(tokens) < job.limit or tokens[-1] in self._eos
        ending = text.end(self.tokenizer, job.prompt, tokens, request, ended=ended)
        kept = None
        if trace is not None:
            series = {name: values[row, : len(ending.tokens)].clone() for name, values in vars(trace).items()}
            kept = TokenTrace(**series, pieces=text.pieces(self.tokenizer, job.prompt, ending.tokens))
        return Sample(index, ending.text, ending.tokens, "stop" if ending.stopped else "length", kept)

    def _settings(self, sampling: Sampling, jobs: Sequence[Job]) -> dict[str, Any]:
        prompts = [job.prompt for job in jobs]
        return generate_settings(sampling, jobs[0].limit, prompts=prompts, pad=self._pad, tokenizer=self.tokenizer)

    @property
    def _eos(self) -> tuple[int, ...]:
        eos = self.model.generation_config.eos_token_id
        return tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)

    @property
    def _context(self) -> int | None:
        """Tokens that prompt and sample may have together; None for models without such a limit."""
        try:
            return int(self.model.config.get_text_config(decoder=True).max_position_embeddings)
        except AttributeError:
            return None

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = self.model.generation_config.pad_token_id
        return pad if pad is not None else (self._eos or (0,))[0]


def _ignore(prompt: Tensor, inputs: Mapping[str, Any], config: GenerationConfig) -> None:
    """A plain engine call has nothing to do with the prompt."""
