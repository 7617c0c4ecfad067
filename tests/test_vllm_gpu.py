"""vLLM on a GPU, with features that a CPU lacks: CUDA graphs, overlapping steps, streams, two devices, sleep.

``VLLM_USE_V2_MODEL_RUNNER`` = 1 or 0 selects the model runner of the process; ``scripts/gpu_check.sh`` runs both.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm]"')

import esamp
from esamp import ESampConfig
from esamp.engines.vllm.workers.exploration import VLLMExploration
from esamp.engines.vllm.workers.groups import RequestGroups
from esamp.models import embedded_path
from support.forced_tokens import ForcedTokens
from support.vllm_engine import LLM, Request, counters, generate, running
from support.vllm_requests import (
    CHUNKS,
    EXPLORING,
    FILTERED,
    LOGITS,
    LONG_PROMPTS,
    LONG_SAMPLES,
    ORDINARY,
    REFERENCE,
    SCARCE,
    STATE,
    STOPPING,
    check_logits,
    core,
    decoded_tokens,
    idle,
    prompt,
    runner,
    silent,
    stepping,
)

V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: scripts/gpu_check.sh runs this on one"),
    pytest.mark.skipif(
        V2 == "1" and find_spec("vllm.v1.worker.gpu.sample.logits_processor") is None,
        reason="the V2 runner of this vLLM has no logits processors, which our admission needs",
    ),
    # Compilers and drivers issue warnings about their own code.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
CLOSE: dict[str, Any] = dict(atol=2e-3, rtol=1e-3)
"""float32 on a GPU sums in another order than the replay, and the differences add up in a distiller."""
FIXED = dict(ignore_eos=True, max_tokens=8)


@contextmanager
def started(**arguments: Any) -> Iterator[LLM]:
    """An engine in float32 with vLLM's defaults: compiled, with CUDA graphs and overlapping steps."""
    defaults: dict[str, Any] = dict(enforce_eager=False, gpu_memory_utilization=0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_F32_DEFAULT", "ieee")  # attention kernels would round to TF32
        with running(embedded_path(), **(defaults | arguments)) as llm:
            yield llm


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with started(**LOGITS) as engine:
        yield engine


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32)
    return loaded.eval()


# ---- numbers


def test_the_engine_overlaps_steps_and_uses_cuda_graphs(llm: LLM) -> None:
    classes = {base.__name__ for base in type(runner(llm)).__mro__}
    assert V2 is None or ("ExploringRunnerV2" in classes) == (V2 == "1")
    assert {"ExploringRunner", "ExploringRunnerV2"} & classes
    config = llm.llm_engine.vllm_config
    assert config.scheduler_config.async_scheduling
    assert core(llm).batch_queue is not None
    assert config.compilation_config.cudagraph_mode.name != "NONE"


def test_every_token_is_drawn_from_the_logits_of_the_formula(llm: LLM, model: PreTrainedModel) -> None:
    check_logits(model, EXPLORING, generate(llm, EXPLORING), **CLOSE)


@pytest.mark.parametrize("rule", [{}, REFERENCE], ids=["fused", "reference"])
def test_logits_equal_those_of_the_transformers_engine(llm: LLM, model: PreTrainedModel, rule: dict[str, Any]) -> None:
    [samples] = generate(llm, [Request(prompt(12), 4, STATE | rule, dict(max_tokens=24, ignore_eos=True))])
    forced = ForcedTokens(torch.tensor([sample.tokens for sample in samples], device="cuda"))
    options = ESampConfig(**(STATE | rule))
    module: torch.nn.Module = model
    try:
        module.to("cuda")
        with esamp.explore(model, options, samples_per_prompt=4) as run:
            sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=4)
            inputs = torch.tensor([prompt(12)], device="cuda")
            run.generate(inputs, last=[forced], max_new_tokens=24, eos_token_id=None, **sampling)
    finally:
        module.to("cpu")
    for row, sample in zip(torch.stack(forced.scores, dim=1).double().cpu(), samples, strict=True):
        torch.testing.assert_close(sample.scores, row, **CLOSE)


def test_tokens_after_the_end_of_a_sample_are_not_learned(llm: LLM) -> None:
    ended = stepping(llm, STOPPING)
    assert any(len(tokens) < 24 for tokens in ended["tokens"].values())
    assert ended["counts"]["rows"] == decoded_tokens(ended["tokens"], "request-0")


def test_a_fused_sampler_draws_from_the_steered_logits(llm: LLM) -> None:
    """Without seeds and log-probabilities vLLM draws with a fused kernel if it has one."""
    before = counters(llm)
    requests = [replace(each, n=8, params=dict(each.params) | {"seed": None}) for each in map(silent, FILTERED)]
    results = generate(llm, requests)
    assert all(sample.tokens for sample in chain(*results))
    assert counters(llm)["rows_steered"] > before["rows_steered"]


# ---- side effects


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_ordinary_requests_get_the_same_bits_as_without_our_worker(eager: bool) -> None:
    """Bitwise if eager; a compiled model that returns inner states is another program and may sum in another order."""
    requests = [replace(each, params=dict(each.params) | FIXED) for each in [*ORDINARY, *EXPLORING]]
    plain = [replace(each, esamp=None) for each in requests]
    with started(worker_cls="auto", enforce_eager=eager) as llm:
        assert "esamp" not in type(runner(llm)).__module__
        without = generate(llm, plain)
    with started(enforce_eager=eager) as llm:
        with_us, beside = generate(llm, plain), generate(llm, requests)[: len(ORDINARY)]
        assert counters(llm)["rows_steered"] > 0  # the model was compiled again, not loaded from the cache
    for others in (with_us, beside):
        for one, other in zip(chain(*without[: len(others)]), chain(*others), strict=True):
            assert one.tokens == other.tokens
            torch.testing.assert_close(one.scores, other.scores, **(CLOSE if not eager else dict(atol=0, rtol=0)))


def without_waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the method so that it raises an error if the host waits for the device."""

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return method(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    return checked


def test_the_host_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = [(VLLMExploration, name) for name in ("begin", "steer", "combine", "learn")] + [
        (RequestGroups, name) for name in ("add", "finish")
    ]
    for owner, name in watched:
        monkeypatch.setattr(owner, name, without_waiting(vars(owner)[name]))
    with started() as llm:
        for requests in (EXPLORING, [silent(request) for request in EXPLORING]):
            generate(llm, requests)
        assert counters(llm)["updates"] > 0


def test_requests_for_warming_up_do_not_explore_with_a_default_method() -> None:
    with started(additional_config={"esamp": {"defaults": {"method": "esamp"}, "slots": 2}}) as llm:
        warm = counters(llm)
        assert warm["groups_admitted"] == warm["groups_refused"] == warm["rows"] == warm["slots_in_use"] == 0
        generate(llm, [Request(prompt(5), 2)])
        assert counters(llm)["rows_steered"] > 0


# ---- a busy engine


def test_chunked_prefill_and_cached_prefixes_change_no_logits(model: PreTrainedModel) -> None:
    with started(**LOGITS, **CHUNKS) as llm:
        for _ in range(2):
            check_logits(model, LONG_PROMPTS, generate(llm, LONG_PROMPTS), **CLOSE)
        assert idle(llm)["slots_in_use"] == 0


def test_preempted_requests_stay_in_their_groups_and_aborted_ones_leave() -> None:
    with started(**SCARCE) as llm:
        every = stepping(llm, LONG_SAMPLES)
        assert every["preempted"] > 0
        assert every["counts"]["groups_admitted"] == 1
        assert every["counts"]["rows"] == decoded_tokens(every["tokens"], "request-0")
        stepping(llm, [*LONG_SAMPLES, LONG_SAMPLES[0]], abort="request-0")
        assert idle(llm)["slots_in_use"] == 0


@pytest.mark.parametrize("level", [1, 2])
def test_an_engine_explores_after_sleep_as_before(level: int, model: PreTrainedModel) -> None:
    with started(**LOGITS, enable_sleep_mode=True, enable_prefix_caching=False) as llm:
        check_logits(model, EXPLORING, generate(llm, EXPLORING), **CLOSE)
        llm.sleep(level=level)
        llm.wake_up()
        if level == 2:
            llm.collective_rpc("reload_weights")
        check_logits(model, EXPLORING, generate(llm, EXPLORING), **CLOSE)


def test_exploring_in_bfloat16_stays_finite() -> None:
    with started(dtype="bfloat16") as llm:
        results = generate(llm, [replace(each, params=dict(each.params) | dict(max_tokens=64)) for each in EXPLORING])
        done = counters(llm)
    assert all(sample.tokens for sample in chain(*results))
    assert done["rows_steered"] > 0
    assert done["resets"] == 0
    assert math.isfinite(done["residual"])


# ---- several devices, and the benchmark


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_tensor_parallel_devices_learn_the_same(tmp_path: Path) -> None:
    script = Path(__file__).parent / "support" / "run_tensor_parallel.py"
    command = [sys.executable, str(script), "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    for name, answer in json.loads(done.stdout.splitlines()[-1]).items():
        first, second = answer["telemetry"]
        assert (first is None) == (name == "none")
        for field, value in (first or {}).items():
            assert second[field] == pytest.approx(value, rel=0, nan_ok=True), (name, field)


def test_bench_measures_vllm_on_a_gpu(tmp_path: Path) -> None:
    arguments = ["bench", "--engine", "vllm", "--pairs", "2", "--tokens", "32", "--json"]
    command = [sys.executable, "-m", "esamp.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["engine"] == "vllm"
    assert result["tokens_per_second_on"] > 0
    assert result["telemetry"]["rows_steered"] > 0
