"""A script that tests start: runs vLLM's Model Runner V2 without a GPU and saves the results.

    python -m support.run_vllm_v2 RESULT

V2 needs Triton, which compiles for GPUs only. Triton can also interpret its kernels on tensors of the CPU, and vLLM has
a V2 runner for CPUs, which it uses if it finds a Triton backend for them. So vLLM's own runner and kernels and our
subclass run here, only slowly. CUDA graphs, streams, and transfers between host and device are not tested.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

import numpy as np
import pytest
import torch
import triton.backends
from numpy.typing import NDArray
from torch import Tensor


class Interpreter:
    """A Triton driver that is always active."""

    @staticmethod
    def is_active() -> bool:
        return True


triton.backends.backends["cpu"] = triton.backends.Backend(compiler=None, driver=Interpreter)

import vllm.v1.sample.ops.topk_topp_sampler as filters  # noqa: E402
from vllm.config import VllmConfig  # noqa: E402
from vllm.platforms.cpu import CpuPlatform  # noqa: E402
from vllm.v1.worker.gpu.structured_outputs import StructuredOutputsWorker  # noqa: E402
from vllm.v1.worker.gpu.warmup import warmup_kernels  # noqa: E402

from esamp.models import embedded_path  # noqa: E402
from support.vllm_engine import Request, Sample, counters, generate, running  # noqa: E402
from support.vllm_requests import (  # noqa: E402
    CHUNKS,
    EXPLORING,
    FILTERED,
    GRAMMARS,
    GREEDY,
    LOGITS,
    LONG_PROMPTS,
    LONG_SAMPLES,
    ORDINARY,
    RIVALS,
    SCARCE,
    STOPPING,
    core,
    idle,
    prompt,
    runner,
    silent,
    stepping,
)


def apply_grammar_mask(self: Any, logits: Tensor, batch: Any, ids: Sequence[str], bits: NDArray[np.int32]) -> None:
    """Apply a grammar's mask: bit v % 32 of word v // 32 of a request's row in `bits` `[R, V / 32]` allows token v."""
    rows = torch.tensor([batch.req_ids.index(name) for name in ids], dtype=torch.int64)
    allowed = (torch.from_numpy(bits).unsqueeze(-1) >> torch.arange(32)) & 1
    forbidden = allowed.flatten(1)[:, : logits.shape[1]] == 0
    logits[rows] = logits[rows].masked_fill(forbidden, -torch.inf)


# Two kernels cannot be interpreted: one is replaced by vLLM's PyTorch version, the other by ours.
filters.HAS_TRITON = False
StructuredOutputsWorker.apply_grammar_bitmask = apply_grammar_mask


def ordinary() -> dict[str, list[list[Sample]]]:
    """Ordinary requests without our worker, with it, and with it beside exploring requests."""
    model, done = embedded_path(), {}
    with running(model, worker_cls="auto") as llm:
        assert "esamp" not in type(runner(llm)).__module__
        done["without"] = generate(llm, ORDINARY)
    with running(model) as llm:
        assert type(runner(llm)).__name__ == "CPURunnerV2"
        done["with"] = generate(llm, ORDINARY)
        done["beside"] = generate(llm, [*ORDINARY, *EXPLORING])[: len(ORDINARY)]
        done["raw"] = generate(llm, EXPLORING)
        done["silent"] = generate(llm, [silent(request) for request in EXPLORING])
    return done


def logits() -> dict[str, Any]:
    """The logits that every token is drawn from."""
    with running(embedded_path(), **LOGITS) as llm:
        done = {name: generate(llm, requests) for name, requests in (("exploring", EXPLORING), ("greedy", GREEDY))}
        done["rivals"] = generate(llm, RIVALS)
        return done | {"idle": idle(llm), "ended": stepping(llm, STOPPING)}


def drawn() -> dict[str, Any]:
    """The log-probabilities after filters and grammars."""
    with running(embedded_path(), logprobs_mode="processed_logprobs") as llm:
        done = {"filtered": generate(llm, FILTERED), "grammar": generate(llm, GRAMMARS)}
        return done | {"counts": counters(llm)}


def preempting() -> dict[str, Any]:
    """Requests that do not fit in the cache together, and one that is aborted."""
    with running(embedded_path(), **SCARCE) as llm:
        done = {
            "all": stepping(llm, LONG_SAMPLES),
            "aborted": stepping(llm, [*LONG_SAMPLES, LONG_SAMPLES[0]], abort="request-0"),
        }
        return done | {"idle": idle(llm)}


def chunked() -> dict[str, Any]:
    """Prompts in chunks of 8 tokens, then again from the prefix cache."""
    with running(embedded_path(), **LOGITS, **CHUNKS) as llm:
        return {name: generate(llm, LONG_PROMPTS) for name in ("first", "cached")} | {"idle": idle(llm)}


def overlapping() -> dict[str, Any]:
    """Asynchronous scheduling, as on a GPU: a step is scheduled before the tokens of the previous one are known."""
    check = CpuPlatform.check_and_update_config

    def keep_asynchronous(config: VllmConfig) -> None:
        check(config)
        config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", staticmethod(keep_asynchronous))
        with running(embedded_path(), **LOGITS, async_scheduling=True) as llm:
            assert core(llm).batch_queue is not None
            return {"exploring": generate(llm, EXPLORING), "ended": stepping(llm, STOPPING)}


def default_method() -> dict[str, Any]:
    """A default method that the operator sets, and vLLM's dummy requests for warming up."""
    settings = {"esamp": {"defaults": {"method": "esamp"}, "slots": 2}}
    with running(embedded_path(), additional_config=settings) as llm:
        worker = core(llm).model_executor.driver_worker.worker
        with runner(llm).esamp.paused():
            warmup_kernels(runner(llm), worker.execute_model, worker.sample_tokens)
        warm = counters(llm)
        generate(llm, [Request(prompt(5), 2)])
        return {"warm": warm, "used": counters(llm)}


RUNS = {run.__name__: run for run in (ordinary, logits, drawn, preempting, chunked, overlapping, default_method)}


def main(result: Path, names: Sequence[str]) -> None:
    torch.save({name: RUNS[name]() for name in names or RUNS}, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
