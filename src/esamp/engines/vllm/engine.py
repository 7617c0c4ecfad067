"""`VLLMEngine`: `esamp.engines.base.Engine` on vLLM."""

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
from esamp.engines.base import Completion, Engine, Failure, OnText, Outcome, Progress, Request, Sample
from esamp.engines.likelihood import Likelihood
from esamp.engines.streaming import StreamedTexts
from esamp.engines.titles import title
from esamp.engines.vllm import llm_engine
from esamp.engines.vllm.params import RequestOptions
from esamp.engines.vllm.pending_request import PendingRequest
from esamp.engines.vllm.reference_passes import ReferencePasses
from esamp.engines.vllm.request_checks import check
from esamp.engines.vllm.score import score
from esamp.engines.vllm.settings import WORKER_CLASS, VLLMSettings
from esamp.errors import EsampError, OptionError, PromptError, UnsupportedError
from esamp.methods import registry
from esamp.models import EMBEDDED, resolve
from esamp.models.templates import applies_template

if TYPE_CHECKING:
    from vllm import LLMEngine

PROCESSED = "processed_logprobs"
"""The ``logprobs_mode`` of vLLM that reports the distribution that tokens are drawn from."""


class VLLMEngine(Engine):
    """Runs requests in vLLM's continuous batch. A request starts when all rows of its group fit into the batch.

    The same requests in the same order give the same samples on a CPU. A sample depends on its request's seed, prompt
    and index, and, by rounding and by the step in which its group starts, on the other requests in the batch.
    """

    def __init__(
        self,
        llm: "LLMEngine",
        tokenizer: PreTrainedTokenizerBase,
        *,
        trace: bool = False,
        logprobs: bool = False,
        token_logprobs: bool = False,
        in_process: bool = False,
    ) -> None:
        """Use a running engine that was started with our worker.

        Args:
            llm: the engine, ``.llm_engine`` of a ``vllm.LLM``. It must not be used in any other way meanwhile.
            tokenizer: the tokenizer of its model.
            trace: measure every token, for `Sample.trace`.
            logprobs: compute log-probabilities under the model's own distribution, for `Sample.logprob`.
            token_logprobs: compute `Sample.logprobs` and `Sample.reference_logprobs`; needs an engine that was started
                with ``logprobs_mode="processed_logprobs"``. Each sample passes the model once more for the second.
            in_process: whether the engine runs in this process.

        Raises:
            OptionError: the engine was started without our worker, or with another ``logprobs_mode``.
        """
        config = llm.vllm_config
        if token_logprobs and config.model_config.logprobs_mode != PROCESSED:
            raise OptionError(f"token_logprobs = True: start this vLLM engine with logprobs_mode={PROCESSED!r}")
        if "esamp" not in str(config.parallel_config.worker_cls):
            raise OptionError(f"this vLLM engine does not explore: start it with worker_cls={WORKER_CLASS!r}")
        self.llm, self.tokenizer = llm, tokenizer
        self.settings = VLLMSettings.read(config.additional_config)
        if self.settings.defaults:
            raise OptionError("the setting 'defaults' is for servers: here every request names its own method")
        self._batch_rows: int = config.scheduler_config.max_num_seqs
        self._kept: dict[str, Any] = dict(logprobs=logprobs, token_logprobs=token_logprobs)
        self._trace, self.keeps_token_logprobs = trace, token_logprobs
        self.in_process, self._open = in_process, True
        self._references = ReferencePasses(llm)
        self._pending: dict[str, tuple[PendingRequest, int]] = {}  # by vLLM's id, with the index of its first sample
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
        token_logprobs: bool = False,
        layers: Iterable[int] = (1,),
        in_process: bool = True,
        **arguments: Any,
    ) -> Self:
        """Start vLLM with a model; None is the embedded one.

        In this process, requests enter at the same steps in every run, vLLM's errors are raised as they are, and no
        further process is started. In a process of its own (``in_process=False``) several engines can run at the same
        time, and a CPU's threads are pinned. Groups wait when all slots are taken. All requests are assumed to be the
        caller's own, so they may share distillers.

        Args:
            model: one of ours by name (see `esamp.models.resolve`), a folder, or a name that vLLM finds.
            device: "auto", "cpu" or "cuda"; a build of vLLM runs on only one of the two.
            dtype: "auto" (float32 on a CPU, else vLLM's choice), "float32", "bfloat16" or "float16".
            batch_rows: most samples in a batch.
            trace: measure every token, for `Sample.trace`.
            logprobs: compute log-probabilities under the model's own distribution, for `Sample.logprob`.
            token_logprobs: compute `Sample.logprobs` and `Sample.reference_logprobs`. Each sample passes the model once
                more for the second.
            layers: depths of the residual stream that requests can read.
            in_process: run the engine in this process.
            **arguments: further arguments of ``vllm.EngineArgs``, such as ``tensor_parallel_size``.

        Raises:
            InputError: the model cannot be found or loaded.
            OptionError: an unknown device, dtype or argument.
            UnsupportedError: the installed vLLM cannot run the model on this machine.
        """
        source = resolve(EMBEDDED if model is None else model)
        slots = max(1, min(batch_rows, VLLMSettings().slots))
        settings = VLLMSettings(
            slots=slots, when_full="wait", layers=tuple(sorted({1, *layers})), shared=True, memory=1 << 20
        )
        if token_logprobs:
            arguments.setdefault("logprobs_mode", PROCESSED)
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
            kept = dict(trace=trace, logprobs=logprobs, token_logprobs=token_logprobs)
            return cls(llm, tokenizer, in_process=in_process, **kept)
        except EsampError:
            llm_engine.stop(llm, in_process=in_process)
            raise

    @override
    def close(self) -> None:
        """End vLLM's engine and free its memory. With `in_process` every other vLLM engine of this process ends too."""
        if self._open:
            self._open = False
            llm = self.llm
            del self.llm, self._references
            llm_engine.stop(llm, in_process=self.in_process)

    @override
    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield the outcome of each request when its last sample has ended.

        Raises:
            UnsupportedError: vLLM does not support something in a request, or refused its group.
        """
        return self._outcomes(requests, progress)

    @override
    def stream(self, request: Request, on_text: OnText, *, progress: Progress | None = None) -> Outcome:
        texts = StreamedTexts(self.tokenizer, on_text, request.own_sampling.stop)
        [outcome] = self._outcomes([request], progress, texts)
        if isinstance(outcome, Completion):
            texts.finish(outcome.samples)
        return outcome

    def _outcomes(
        self, requests: Iterable[Request], progress: Progress | None, texts: StreamedTexts | None = None
    ) -> Iterator[Outcome]:
        """`outcomes`; `texts` takes the tokens of all requests as they are drawn."""
        if not self._open:
            raise EsampError("this engine was closed: load another one")
        source = (self._prepare(request, progress, texts) for request in requests)
        upcoming = next(source, None)
        submitted: list[PendingRequest] = []
        try:
            while submitted or upcoming is not None:
                while upcoming is not None and (isinstance(upcoming, Failure) or self._fits(upcoming)):
                    if isinstance(upcoming, Failure):
                        yield upcoming
                    else:
                        self._submit(upcoming)
                        submitted.append(upcoming)
                    upcoming = next(source, None)
                if submitted and all(pending.running for pending in submitted):
                    self._step()
                for pending in [pending for pending in submitted if not pending.running or pending.broken]:
                    submitted.remove(pending)
                    yield self._outcome(pending)
        finally:
            self._abort(submitted)

    @property
    @override
    def chats(self) -> bool:
        return applies_template(self.tokenizer)

    @override
    def score(self, request: Request, samples: Sequence[Sample], *, distribution: bool = False) -> list[Likelihood]:
        if distribution:
            raise UnsupportedError("vLLM does not report the whole distribution of given tokens: use the engine 'hf'")
        return score(self.llm, self.tokenizer, request, samples)

    def call_worker(self, method: str, *arguments: Any) -> Any:
        """Call one of the worker's ``esamp_...`` methods. Returns the result of rank 0."""
        return self.llm.collective_rpc(method, args=arguments)[0]

    # ---- one request

    def _prepare(
        self, request: Request, progress: Progress | None, texts: StreamedTexts | None
    ) -> PendingRequest | Failure:
        """Check a request, and encode its prompt."""
        depth, logprobs = self.llm.model_config.hf_text_config.num_hidden_layers, self.keeps_token_logprobs
        check(request, depth=depth, layers=self.settings.layers, token_logprobs=logprobs)
        method, options = registry.get(request.method), request.own_options
        try:
            prompt = text.encode(self.tokenizer, request)
            context = self.llm.model_config.max_model_len - logprobs  # a reference pass adds one token
            limit = text.room(prompt, request, context)
        except PromptError as error:
            return Failure(request, error)
        return PendingRequest(request, method, options, prompt, limit, progress, texts, **self._kept)

    def _fits(self, pending: PendingRequest) -> bool:
        """Whether all rows of a new group fit into the batch beside the running ones; always if none is running."""
        running = {id(other): other.rows for other, _ in self._pending.values()}
        return not running or sum(running.values()) + pending.rows <= self._batch_rows

    def _submit(self, pending: PendingRequest) -> None:
        """Add a request to vLLM's engine.

        vLLM refuses several greedy samples of one request, so each becomes a request of its own in a common group.
        """
        from vllm.exceptions import VLLMValidationError

        n = pending.request.n
        single = n == 1 or pending.request.sampling.temperature > 0
        common = RequestOptions(trace=self._trace, group=None if single else secrets.token_hex(16))
        for first in range(0, n, n if single else 1):
            name = str(next(self._numbers))
            try:
                params = pending.params(common, n=n if single else 1, first=first)
                self.llm.add_request(name, {"prompt_token_ids": pending.prompt}, params)
            except (ValueError, VLLMValidationError) as error:  # since vLLM 0.27 the second is no subclass of the first
                self._abort([pending])
                raise UnsupportedError(f"{title(pending.request)}: {error}") from error
            pending.ids.append(name)
            self._pending[name] = pending, first

    def _step(self) -> None:
        """Run one step of the engine, and give its tokens to their requests."""
        for output in self.llm.step():
            if self._references.receive(output):
                continue
            pending, first = self._pending[output.request_id]
            for new in output.outputs:
                pending.receive(first + new.index, new)
                if self.keeps_token_logprobs and new.finish_reason is not None:
                    self._references.submit(pending, first + new.index)

    def _outcome(self, pending: PendingRequest) -> Outcome:
        if pending.broken is not None:
            self._abort([pending])
            return Failure(pending.request, pending.broken)
        for name in pending.ids:
            del self._pending[name]
        request = pending.request
        refusal = self.call_worker("esamp_refusal", pending.ids[0]) if pending.explores else None
        if refusal is not None:
            raise UnsupportedError(f"{title(request)} was decoded without method {request.method!r}: {refusal}")
        telemetry = (self.call_worker("esamp_telemetry", pending.ids[0]) or {}) if pending.explores else {}
        traces = self._traces(pending)
        samples = tuple(pending.sample(index, self.tokenizer, traces.get(index)) for index in range(request.n))
        return Completion(request, samples, len(pending.prompt), time.perf_counter() - pending.started, telemetry)

    def _traces(self, pending: PendingRequest) -> Mapping[int, Tensor]:
        """Measurements `[3, tokens]` by sample."""
        if not (self._trace and pending.explores):
            return {}
        parts = [(first, self.call_worker("esamp_trace", name) or {}) for first, name in enumerate(pending.ids)]
        return {first + index: measured for first, part in parts for index, measured in part.items()}

    def _abort(self, requests: Sequence[PendingRequest]) -> None:
        """Abort those of the requests that are still in the engine."""
        names = [name for pending in requests for name in pending.ids if self._pending.pop(name, None) is not None]
        if self._open:
            names += [name for pending in requests for name in self._references.drop(pending)]
        if names and self._open:
            self.llm.abort_request(names)
