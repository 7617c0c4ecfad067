"""`train`: one run of the experiment, and its evaluations by plain sampling."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import GRPOConfig

from esamp.engines.base import Request
from esamp.engines.hf import HFEngine
from esamp.explorer.config import ESampConfig
from esamp.metrics.pass_at_k import mean_pass_at_k
from esamp.models import embedded_path
from esamp.models.evaluate import ProblemSamples
from esamp.rl.experiment.rows import Row
from esamp.rl.experiment.settings import Settings
from esamp.rl.rollouts import Rollouts, evaluating
from esamp.rl.trainer import ExploringGRPOTrainer
from esamp.sampling import Sampling
from esamp.tasks.countdown import Countdown

LOGGED = {
    "reward": "reward",
    "reward_std": "reward_std",
    "entropy": "entropy",
    "length": "completions/mean_length",
    "groups_alike": "frac_reward_zero_std",
    "ratio": "sampling/importance_sampling_ratio/mean",
    "capped": "sampling/importance_sampling_ratio/capped",
    "divergence": "sampling/divergence",
}
"""Measures of an update by their names in the rows, and TRL's names of them."""
POOL = 4096
"""Training problems to draw from."""
SIZES = (4,)
"""Counts of numbers of the problems."""


class TrainingRecorder(TrainerCallback):
    """Makes a row of each update, and ends the run when its tokens are generated."""

    def __init__(self, settings: Settings, arm: str, seed: int, progress: Callable[[int], None]) -> None:
        """`progress` gets the tokens of each update."""
        self.rows: list[Row] = []
        self.rollouts: Rollouts
        self.run = {"arm": arm, "seed": seed}
        self._limit, self._progress, self._seen = settings.tokens, progress, 0

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Make the row of an update."""
        logs = given["logs"]
        if "reward" not in logs:  # the summary at the end of a run
            return
        tokens = self.rollouts.tokens
        self._progress(tokens - self._seen)
        self._seen = tokens
        measured = {name: round(float(logs[theirs]), 6) for name, theirs in LOGGED.items()}
        self.rows.append({"kind": "update", **self.run, "tokens": tokens, **measured})
        if tokens >= self._limit:
            control.should_training_stop = True


def evaluation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> dict[str, Any]:
    """Pass@k, distinct right solutions and entropy of a model under plain sampling at temperature 1.

    The problems are held-out ones, and samples are as long as in training. The entropy is that of a token in nats,
    estimated by the mean of ``-log p`` of the sampled tokens.
    """
    task = Countdown(sizes=SIZES)
    items = task.items("test", settings.problems)
    engine = HFEngine(model, tokenizer, batch_rows=256, token_logprobs=True)
    sampling = Sampling(max_tokens=settings.length)
    requests = [Request(item.id, item.prompt, settings.draws, sampling, "vanilla") for item in items]
    with evaluating(model):
        completions = list(engine.generate(requests))
    outcomes, logprobs = [], []
    for item, completion in zip(items, completions, strict=True):
        grades = tuple(task.grade(item, sample.text) for sample in completion.samples)
        lengths = tuple(len(sample.token_ids) for sample in completion.samples)
        cut = sum(sample.finish_reason == "length" for sample in completion.samples)
        outcomes.append(ProblemSamples(item, grades, lengths, cut))
        logprobs += [value for sample in completion.samples for value in sample.reference_logprobs or ()]
    counts, correct = [len(outcome.grades) for outcome in outcomes], [outcome.correct for outcome in outcomes]
    most = settings.draws
    sizes = sorted({*(2**power for power in range(most.bit_length())), most})
    curve = {str(k): round(mean_pass_at_k(counts, correct, k), 6) for k in sizes}
    return {
        "pass_1": curve["1"],
        "pass_k": curve[str(most)],
        "distinct": round(sum(outcome.distinct(most) for outcome in outcomes) / len(outcomes), 6),
        "entropy": round(-sum(logprobs) / len(logprobs), 6),
        "length": round(len(logprobs) / sum(counts), 3),
        "pass_at": curve,
    }


def before(settings: Settings) -> Row:
    """The evaluation of the embedded model, before any training."""
    return {"kind": "before", "tokens": 0, **evaluation(*_embedded(), settings)}


def _embedded() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = embedded_path()
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), AutoTokenizer.from_pretrained(source)


def train(settings: Settings, arm: str, seed: int, progress: Callable[[int], None]) -> list[Row]:
    """Train the embedded model once. Returns the rows of the run.

    Args:
        settings: of the experiment.
        arm: the decoding method of the rollouts.
        seed: of the problems, their order and the samples.
        progress: called with the tokens of each update.
    """
    task = Countdown(seed, split="train", sizes=SIZES)
    items = {item.prompt: item for item in task.items("train", limit=POOL)}

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        pairs = zip(prompts, completions, strict=True)
        return [float(task.grade(items[prompt], text).correct) for prompt, text in pairs]

    model, tokenizer = _embedded()
    recorder = TrainingRecorder(settings, arm, seed, progress)
    with tempfile.TemporaryDirectory() as folder:
        trainer = ExploringGRPOTrainer(
            model,
            reward,
            arguments(settings, seed, folder),
            method=arm,
            options=ESampConfig(beta=settings.beta) if arm == "esamp" else None,
            ratio_cap=settings.ratio_cap,
            train_dataset=Dataset.from_dict({"prompt": list(items)}),
            processing_class=tokenizer,
            callbacks=[recorder],
        )
        trainer.remove_callback(PrinterCallback)  # prints every update to the standard output
        recorder.rollouts = trainer.rollouts
        trainer.train()
    after = {"kind": "after", **recorder.run, "tokens": trainer.rollouts.tokens}
    return [*recorder.rows, {**after, **evaluation(model, tokenizer, settings)}]


def arguments(settings: Settings, seed: int, folder: str) -> GRPOConfig:
    """TRL's settings: one update for each batch of rollouts, without a penalty on the distance to the first model."""
    batch = settings.prompts * settings.samples
    return GRPOConfig(
        folder,
        seed=seed,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        per_device_train_batch_size=batch,
        num_generations=settings.samples,
        max_completion_length=settings.length,
        max_steps=-(-settings.tokens // batch),  # more than the tokens allow: the recorder ends the run
        learning_rate=settings.rate,
        lr_scheduler_type="constant",
        beta=0.0,
    )
