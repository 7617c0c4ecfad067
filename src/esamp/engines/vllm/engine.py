"""`VLLMEngine`: requests in, completions out, on vLLM."""

import itertools
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from esamp.engines import text
from esamp.engines.base import Completion, Engine, Failure, Outcome, Progress, Request, Sample, refuse_search
from esamp.engines.likelihood import Likelihood
from esamp.engines.vllm import llm_engine
from esamp.engines.vllm.jobs import Job
from esamp.engines.vllm.params import RequestOptions, check_supported
from esamp.engines.vllm.score import score
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import EsampError, OptionError, PromptError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod
from esamp.models import EMBEDDED, resolve

if TYPE_CHECKING:
    from vllm import LLMEngine


class VLLMEngine(Engine):
    """Runs requests in vLLM's continuous batch, as many groups side by side as fit whole into its rows.

    The same requests in the same order give the same samples on a CPU. A sample depends on its request's seed, prompt
    and index, and, by rounding and by the step in which its group's rows get their first token, on its neighbours.
    """

    def __init__(
        self,
        llm: "LLMEngine",
        tokenizer: PreTrainedTokenizerBase,
        *,
        trace: bool = False,
        logprobs: bool = False,
        in_process: bool = False,
    ) -> None:
        """Use a running engine that was started with our worker: of ``vllm.LLM`` it is ``.llm_engine``.

        Args:
            llm: the engine; nobody else should step it meanwhile.
            tokenizer: its model's.
            trace: keep per-token measurements in `Sample.trace`.
            logprobs: keep how likely the model itself finds each sample in `Sample.logprob`.
            in_process: whether the engine runs in this process.
        """
        config = llm.vllm_config
        if "esamp" not in str(config.parallel_config.worker_cls):
            raise OptionError("this vLLM engine does not explore: start it with worker_cls='esamp.engines.vllm...'")
        self.llm, self.tokenizer = llm, tokenizer
        self.settings = VLLMSettings.read(config.additional_config)
        if self.settings.defaults:
            raise OptionError("the setting 'defaults' is for servers: here every request says itself what it wants")
        self._batch_rows: int = config.scheduler_config.max_num_seqs
        self._trace, self._logprobs, self._in_process, self._open = trace, logprobs, in_process, True
        self._jobs: dict[str, tuple[Job, int]] = {}  # by vLLM's id, with the index of its first sample
        self._numbers = itertools.count()

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_rows: int = 64,
        trace: bool = False,
        logprobs: bool = False,
        layers: Iterable[int] = (1,),
        in_process: bool = True,
        **arguments: Any,
    ) -> Self:
        """Start vLLM on a model; None is the embedded one.

        In this process requests enter at the same steps in every run, errors are what they are, and nothing is started
        anew; in one of its own (``in_process=False``) any number of engines can run side by side, and a CPU's threads
        are pinned. Groups beyond the slots wait. All requests are taken to be the caller's: they may share distillers.

        Args:
            model: one of ours by name (see `esamp.models.resolve`), a folder, or a name that vLLM finds.
            device: "auto", "cpu" or "cuda", as far as this build of vLLM has it.
            dtype: "auto" (float32 on a CPU, else vLLM's choice), "float32", "bfloat16" or "float16".
            batch_rows: most samples decoded side by side.
            trace: keep per-token measurements in `Sample.trace`.
            logprobs: keep how likely the model itself finds each sample in `Sample.logprob`.
            layers: depths of the residual stream that requests may read.
            in_process: run the engine in this process.
            **arguments: more of ``vllm.EngineArgs``, such as ``tensor_parallel_size`` or ``max_model_len``.

        Raises:
            InputError: the model cannot be found or loaded.
            OptionError: no such device, dtype or argument.
            UnsupportedError: this build of vLLM cannot run the model here.
        """
        source = resolve(EMBEDDED if model is None else model)
        slots = max(1, min(batch_rows, VLLMSettings().slots))
        settings = VLLMSettings(
            slots=slots, when_full="wait", layers=tuple(sorted({1, *layers})), shared=True, memory=1 << 20
        )
        llm = llm_engine.start(
            source,
            settings,
            device=device,
            dtype=dtype,
            batch_rows=batch_rows,
            in_process=in_process,
            arguments=arguments,
        )
        try:
            tokenizer = llm_engine.load_tokenizer(source)
            return cls(llm, tokenizer, trace=trace, logprobs=logprobs, in_process=in_process)
        except EsampError:
            llm_engine.stop(llm, in_process=in_process)
            raise

    def close(self) -> None:
        """End vLLM's engine and free its memory. In one process this ends every other vLLM engine too."""
        if self._open:
            self._open = False
            llm = self.llm
            del self.llm
            llm_engine.stop(llm, in_process=self._in_process)

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield completions as their last samples end.

        Raises:
            UnsupportedError: a request asks for what cannot be done, or its group was refused.
        """
        if not self._open:
            raise EsampError("this engine was closed: load another one")
        source = map(self._job, requests, itertools.repeat(progress))
        following = next(source, None)
        own: list[Job] = []
        try:
            while own or following is not None:
                while following is not None and (isinstance(following, Failure) or self._fits(following)):
                    if isinstance(following, Failure):
                        yield following
                    else:
                        self._submit(following)
                        own.append(following)
                    following = next(source, None)
                if own and all(job.left for job in own):
                    self._step()
                for job in [job for job in own if not job.left or job.broken]:
                    own.remove(job)
                    yield self._outcome(job)
        finally:
            self._abort(own)

    @override
    def score(self, request: Request, samples: Sequence[Sample], *, distribution: bool = False) -> list[Likelihood]:
        if distribution:
            raise UnsupportedError("vLLM does not report the whole distribution of given tokens: use the engine 'hf'")
        return score(self.llm, self.tokenizer, request, samples)

    def ask(self, question: str, *arguments: Any) -> Any:
        """What the first rank answers to one of the worker's ``esamp_...`` methods."""
        return self.llm.collective_rpc(question, args=arguments)[0]

    # ---- one request

    def _job(self, request: Request, progress: Progress | None) -> Job | Failure:
        if request.n < 1:
            raise OptionError(f"request {request.id!r}: n = {request.n} must be at least 1")
        method, options = registry.get(request.method), request.own_options
        refuse_search(request)
        try:
            check_supported(method)
        except OptionError as error:
            raise UnsupportedError(f"request {request.id!r}: {error}") from error
        if issubclass(method, DecodeMethod):
            depth = self.llm.model_config.hf_text_config.num_hidden_layers
            missing = set(method.layers(options, depth)) - set(self.settings.layers)
            if missing:
                raise UnsupportedError(
                    f"request {request.id!r} reads layer {min(missing)}, but vLLM was started to keep layers "
                    f"{', '.join(map(str, self.settings.layers))}: load the engine with layers=({min(missing)},)"
                )
        try:
            prompt = text.encode(self.tokenizer, request)
            limit = text.room(prompt, request, self.llm.model_config.max_model_len)
        except PromptError as error:
            return Failure(request, error)
        return Job(request, method, options, prompt, limit, progress, logprobs=self._logprobs)

    def _fits(self, job: Job) -> bool:
        """Whether all rows of a new group find a place beside those that run; if none runs it starts in any case."""
        running = {id(other): other.rows for other, _ in self._jobs.values()}
        return not running or sum(running.values()) + job.rows <= self._batch_rows

    def _submit(self, job: Job) -> None:
        """Hand a request over. vLLM has no n greedy samples: there each is a request, and they share a group."""
        from vllm.exceptions import VLLMValidationError

        n = job.request.n
        alone = n == 1 or job.request.sampling.temperature > 0
        asked = RequestOptions(trace=self._trace, group=None if alone else secrets.token_hex(16))
        for first in range(0, n, n if alone else 1):
            name = str(next(self._numbers))
            try:
                params = job.params(asked, n=n if alone else 1, first=first)
                self.llm.add_request(name, {"prompt_token_ids": job.prompt}, params)
            except (ValueError, VLLMValidationError) as error:  # the second is one of the first before vLLM 0.27
                self._abort([job])
                raise UnsupportedError(f"request {job.request.id!r}: {error}") from error
            job.ids.append(name)
            self._jobs[name] = job, first

    def _step(self) -> None:
        """One step of the engine, and its tokens to their samples."""
        for output in self.llm.step():
            job, first = self._jobs[output.request_id]
            for each in output.outputs:
                job.take(first + each.index, each)

    def _outcome(self, job: Job) -> Outcome:
        if job.broken is not None:
            self._abort([job])
            return Failure(job.request, job.broken)
        for name in job.ids:
            del self._jobs[name]
        request = job.request
        refusal = self.ask("esamp_refusal", job.ids[0]) if job.explores else None
        if refusal is not None:
            raise UnsupportedError(f"request {request.id!r} was decoded without method {request.method!r}: {refusal}")
        telemetry = (self.ask("esamp_telemetry", job.ids[0]) or {}) if job.explores else {}
        traces = self._traces(job)
        samples = tuple(job.sample(index, self.tokenizer, traces.get(index)) for index in range(request.n))
        return Completion(request, samples, len(job.prompt), time.perf_counter() - job.started, telemetry)

    def _traces(self, job: Job) -> Mapping[int, Tensor]:
        """Measurements `[3, tokens]` by sample."""
        if not (self._trace and job.explores):
            return {}
        parts = [(first, self.ask("esamp_trace", name) or {}) for first, name in enumerate(job.ids)]
        return {first + index: measured for first, part in parts for index, measured in part.items()}

    def _abort(self, jobs: Sequence[Job]) -> None:
        """Take requests out of the engine that nobody waits for any more."""
        names = [name for job in jobs for name in job.ids if self._jobs.pop(name, None) is not None]
        if names and self._open:
            self.llm.abort_request(names)
