"""Small trainers of `esamp.rl`, on random models and on the embedded one."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs TRL: pip install 'esamp[rl]'")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL warns on import of releases of vLLM that it was not tested with
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOConfig

    from esamp.rl import ExploringGRPOTrainer

from support.hf_models import small, small_tokenizer

PROMPTS = ["Hello there", "Good evening"]


def arguments(folder: Path, **changes: Any) -> GRPOConfig:
    """Settings of TRL for a few updates on a CPU."""
    defaults: dict[str, Any] = dict(
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=10,
        learning_rate=1e-3,
        max_steps=2,
        beta=0.0,
        loss_type="grpo",
    )
    return GRPOConfig(str(folder), **(defaults | changes))


def reward(completions: list[str], **_: Any) -> list[float]:
    """The share of lower-case letters, so that the samples of a prompt differ."""
    return [sum(letter.islower() for letter in text) / max(1, len(text)) for text in completions]


def trainer(
    args: GRPOConfig,
    *,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    prompts: list[str] = PROMPTS,
    **changes: Any,
) -> ExploringGRPOTrainer:
    """A trainer of a copy of a small random model, or of the given one."""
    return ExploringGRPOTrainer(
        copy.deepcopy(small("llama")) if model is None else model,
        changes.pop("reward_funcs", reward),
        args,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=small_tokenizer() if tokenizer is None else tokenizer,
        **changes,
    )
