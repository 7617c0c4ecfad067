"""Requests of all kinds for vLLM, ways to run them, and checks of their logits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from esamp import ESampConfig
from support.request_reference import replay
from support.vllm_engine import LLM, Request, Sample, StructuredOutputsParams, counters, generate

LOGITS: Mapping[str, Any] = dict(logprobs_mode="processed_logits")
SCARCE: Mapping[str, Any] = dict(block_size=32, num_gpu_blocks_override=9, enable_prefix_caching=False)
"""Engine settings with a cache for 256 tokens, so that requests are preempted."""
CHUNKS: Mapping[str, Any] = dict(max_num_batched_tokens=8, max_num_seqs=8, enable_prefix_caching=True, block_size=32)
"""Engine settings with 8 tokens per step, so that prompts are split into chunks."""


def prompt(length: int, first: int = 5) -> list[int]:
    """Token ids of a prompt, which vary with `first`."""
    return [3 + (first + 7 * place) % 90 for place in range(length)]


PENALTIES = dict(temperature=0.7, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2, presence_penalty=0.4)
ORDINARY = [
    Request(prompt(9), 2),
    Request(prompt(5, 2), 1, None, dict(prompt_logprobs=3, seed=4)),
    Request(prompt(7, 3), 2, None, PENALTIES),
    Request(prompt(6, 4), 1, None, dict(temperature=0)),
]
STATE, REFERENCE = dict(beta=0.75), dict(candidates="reference")
EXPLORING = [
    Request(prompt(5), 3, STATE),
    Request(prompt(9), 2, STATE | REFERENCE, dict(max_tokens=10)),
    Request(prompt(7), 2, None),
    Request(prompt(6, 2), 3, dict(signal="action", waves=1, gain=0.3)),
    Request(prompt(8), 2, dict(signal="both", beta=0.4, gain=0.2, waves=1) | REFERENCE, dict(seed=5)),
    Request(prompt(5), 3, dict(preset="paper", width=32, lr=0.01), dict(seed=3)),
    Request(prompt(4), 1, STATE, dict(max_tokens=12)),
]
GREEDY = [
    Request(prompt(5, first), 1, dict(beta=2.0, group="requests of one group") | rule, dict(temperature=0))
    for rule in ({}, REFERENCE)
    for first in (1, 2, 3)
]
RIVALS = [
    Request(prompt(6), 4, dict(method="arithmetic"), dict(logprobs=None)),
    Request(prompt(5), 4, dict(method="without_replacement", draw_waves=1), dict(max_tokens=3, logprobs=None)),
    Request(prompt(7), 3, dict(method="esamp+xtc+arithmetic", xtc_probability=0.7), dict(logprobs=None)),
    Request(prompt(8), 3, dict(method="fire+arithmetic", fire_temperature=9.0), dict(temperature=0.8, logprobs=None)),
    Request(prompt(9), 3, dict(method="top_n_sigma+arithmetic", n_sigma=1.5), dict(top_p=0.9, logprobs=None)),
    Request(prompt(6, 2), 4, dict(method="override+arithmetic", rounds=2), dict(logprobs=None)),
    Request(prompt(4, 2), 2, dict(method="rarity+arithmetic"), dict(logprobs=None)),
]
"""Methods that draw tokens with their own random numbers, which are the same on every runner."""
NARROW = dict(temperature=0.7, top_k=20, top_p=0.9, min_p=0.02)
FILTERED = [Request(prompt(9), 2, STATE | rule, NARROW) for rule in ({}, REFERENCE)]
LONG_SAMPLES = [
    Request(prompt(20), 4, STATE, dict(max_tokens=30, ignore_eos=True, logprobs=None)),
    Request(prompt(25, 3), 2, None, dict(max_tokens=30, ignore_eos=True, logprobs=None)),
]
LONG_PROMPTS = [
    Request(prompt(70), 1, STATE),
    Request(prompt(45, 2), 2, None),
    Request(prompt(70), 1, STATE | REFERENCE),
]
STOPPING = [Request(prompt(5), 3, STATE, dict(max_tokens=24, stop_token_ids=[31], logprobs=None))]
CHOICES = ["7+1=8", "7*8=56", "7-2=5", "7-3=4"]
GRAMMAR = dict(structured_outputs=StructuredOutputsParams(choice=CHOICES), logprobs=None, detokenize=True)
GRAMMARS = [Request(prompt(6), 4, STATE | rule, GRAMMAR) for rule in ({}, REFERENCE)]


def silent(request: Request) -> Request:
    """The request without log-probabilities."""
    return replace(request, params=dict(request.params) | dict(logprobs=None, prompt_logprobs=None))


def core(llm: LLM) -> Any:
    return llm.llm_engine.engine_core.engine_core  # type: ignore[attr-defined]


def runner(llm: LLM) -> Any:
    return core(llm).model_executor.driver_worker.worker.model_runner


def idle(llm: LLM) -> dict[str, float]:
    """The worker's counters after one more request, since the worker learns of ended samples one step later."""
    generate(llm, [Request(prompt(2), 1, None, dict(max_tokens=1, logprobs=None))])
    return counters(llm)


def stepping(llm: LLM, requests: Sequence[Request], abort: str | None = None) -> dict[str, Any]:
    """Run requests step by step, and abort the request `abort` after 10 steps.

    Returns the tokens of each sample, the largest number of preemptions of a request, and the increase of the counters.
    """
    engine, preempted, steps = llm.llm_engine, 0, 0
    tokens: dict[tuple[str, int], list[int]] = {}
    before = idle(llm)
    for number, request in enumerate(requests):
        engine.add_request(f"request-{number}", {"prompt_token_ids": list(request.prompt)}, request.sampling)
    while engine.has_unfinished_requests():
        for output in engine.step():
            tokens |= {(output.request_id, each.index): list(each.token_ids) for each in output.outputs}
        steps += 1
        living = core(llm).scheduler.requests.values()
        preempted = max([preempted, *(request.num_preemptions for request in living)])
        if steps == 10 and abort is not None:
            engine.abort_request([abort])
    after = idle(llm)
    return {"tokens": tokens, "preempted": preempted, "counts": {name: after[name] - before[name] for name in before}}


def decoded_tokens(tokens: Mapping[tuple[str, int], Sequence[int]], *names: str) -> int:
    """The number of tokens of these requests that were drawn in a decode step: all but the first of each sample."""
    return sum(len(each) - 1 for (name, _), each in tokens.items() if name in names)


def expected_logits(model: PreTrainedModel, request: Request, samples: Sequence[Sample]) -> list[tuple[Tensor, Tensor]]:
    """The fused logits `[T, V]` and the model's own of each sample, by the formula."""
    config = ESampConfig(**({"beta": 0.0} if request.esamp is None else request.esamp))
    return replay(model, request.prompt, [sample.tokens for sample in samples], config)


def check_logits(
    model: PreTrainedModel, requests: Sequence[Request], results: Sequence[Sequence[Sample]], **close: float
) -> None:
    """Check, within `close`, that scores are the fused logits of the formula and that steering changes them."""
    for request, samples in zip(requests, results, strict=True):
        change = 0.0
        for sample, (fused, own) in zip(samples, expected_logits(model, request, samples), strict=True):
            torch.testing.assert_close(sample.scores, fused, **close, msg=str(request).__add__)
            change = max(change, (fused - own).abs().max().item())
        assert (change > 1e-2) == (request.esamp is not None), request
