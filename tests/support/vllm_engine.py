"""Small vLLM engines inside the test's process, one at a time, and requests to them."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

FOREIGN: Sequence[tuple[str, type[Warning]]] = (
    ("`torch.jit.script_method` is deprecated", DeprecationWarning),  # on the import of PyTorch's compiler
    ("`torch.distributed.reduce_op` is deprecated", FutureWarning),  # vLLM inspects every name of every module
)
"""Warnings of vLLM's and PyTorch's own code on import and while an engine starts."""


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of `FOREIGN` within the block."""
    with warnings.catch_warnings():
        for text, kind in FOREIGN:
            warnings.filterwarnings("ignore", text, kind)
        yield


with quiet():
    from vllm import LLM, RequestOutput, SamplingParams
    from vllm.config import CompilationMode as CompilationMode
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.lora.request import LoRARequest as LoRARequest
    from vllm.model_executor.models.registry import ModelRegistry
    from vllm.sampling_params import StructuredOutputsParams as StructuredOutputsParams

WORKER = "esamp.engines.vllm.worker.Worker"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # do not change the threads of pytest's process
    "VLLM_NO_USAGE_STATS": "1",
}
SMALL: Mapping[str, Any] = dict(
    worker_cls=WORKER,
    dtype="float32",
    enforce_eager=True,
    max_model_len=256,
    max_num_seqs=32,
    max_num_batched_tokens=512,
    max_logprobs=-1,
    disable_log_stats=True,
)


def register(model: Path) -> None:
    """Tell vLLM the class of a model, which it would otherwise import in a further process, only to inspect it."""
    for name in json.loads((model / "config.json").read_text())["architectures"]:
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


@contextmanager
def running(model: Path, **arguments: Any) -> Iterator[LLM]:
    """Run an engine for a model's folder, and shut it down at the end of the block.

    `arguments` of ``LLM`` take precedence over `SMALL`. An eager engine compiles nothing, not even small functions of
    vLLM's sampler. The engine uses one thread, because the models are tiny.
    """
    settings = dict(SMALL) | arguments
    stance = torch.compiler.set_stance("force_eager" if settings["enforce_eager"] else "default")
    with stance, pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        threads, set_threads = torch.get_num_threads(), torch.set_num_threads
        patch.setattr(torch, "set_num_threads", set_threads)  # vLLM replaces this function permanently
        set_threads(1)  # several threads would busy-wait for each other
        llm = None
        try:
            with quiet():
                register(model)
                llm = LLM(str(model), **settings)
            yield llm
        finally:
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()
            set_threads(threads)


@dataclass(frozen=True)
class Request:
    """A prompt, the number of samples, the options of our method (None: no method), and other sampling parameters."""

    prompt: Sequence[int]
    n: int = 1
    esamp: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sampling(self) -> SamplingParams:
        """vLLM's parameters, by default with a seed and the log-probabilities of all tokens."""
        defaults: dict[str, Any] = dict(seed=11, max_tokens=8, logprobs=-1, detokenize=False)
        extra = None if self.esamp is None else {"method": "esamp", **self.esamp}
        return SamplingParams(n=self.n, extra_args=extra, **(defaults | dict(self.params)))


@dataclass(frozen=True)
class Sample:
    """The output of one sample."""

    tokens: list[int]
    scores: Tensor
    """`[T, V]` float64: logits or log-probabilities by ``logprobs=-1``; empty without it"""
    text: str


def generate(llm: LLM, requests: Sequence[Request], **arguments: Any) -> list[list[Sample]]:
    """All samples of all requests, which enter the engine together."""
    return [read(output) for output in outputs(llm, requests, **arguments)]


def outputs(llm: LLM, requests: Sequence[Request], **arguments: Any) -> list[RequestOutput]:
    """The outputs of `generate` as vLLM returns them."""
    prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
    return llm.generate(prompts, [request.sampling for request in requests], use_tqdm=False, **arguments)


def read(output: RequestOutput) -> list[Sample]:
    """The samples of a request in the order of their indices."""
    return [Sample(list(each.token_ids), table(each.logprobs or []), each.text) for each in output.outputs]


def table(logprobs: Sequence[Mapping[int, Any] | None]) -> Tensor:
    """vLLM's log-probabilities as `[T, V]` float64, minus infinity for tokens without one."""
    size = max((token for each in logprobs for token in each or ()), default=-1) + 1
    result = torch.full((len(logprobs), size), -torch.inf, dtype=torch.float64)
    for row, each in enumerate(logprobs):
        for token, logprob in (each or {}).items():
            result[row, token] = logprob.logprob
    return result


def counters(llm: LLM) -> dict[str, float]:
    """The counters of our worker."""
    found: list[dict[str, float]] = llm.collective_rpc("esamp_counters")
    return found[0]
