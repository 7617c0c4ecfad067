"""Measure a Countdown model on held-out problems at temperature 1.

python -m esamp.models.evaluate [--model DIR] [--problems 100] [--samples 64] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from esamp.metrics.pass_at_k import mean_pass_at_k, pass_at_k
from esamp.tasks.base import Grade, Item
from esamp.tasks.countdown import Countdown

from . import embedded_path
from .sampling import sample
from .train import pick_device, set_threads


@dataclass(frozen=True)
class ProblemSamples:
    """The samples of one problem: their grades, their lengths in tokens, and how many ran out of context."""

    item: Item
    grades: tuple[Grade, ...]
    lengths: tuple[int, ...]
    truncated: int

    @property
    def correct(self) -> int:
        return sum(grade.correct for grade in self.grades)

    def distinct(self, k: int) -> float:
        """Expected number of distinct correct solutions among k of the samples; NaN for fewer than k samples."""
        counts = Counter(grade.canonical for grade in self.grades if grade.correct)
        if len(self.grades) < k:
            return math.nan
        return float(sum(pass_at_k(len(self.grades), count, k) for count in counts.values()))


@dataclass(frozen=True)
class Report:
    """Means over problems; rates are shares of all samples, NaN where there are too few samples for a number."""

    problems: int
    samples: int
    pass_1: float
    pass_16: float
    pass_64: float
    distinct_correct_of_16: float
    trace_tokens: float
    truncated: float
    parsed: float
    unsolved: int
    pass_1_by_size: dict[int, float]
    seconds: float


def run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    samples: int,
    *,
    batch: int,
    seed: int,
    progress: Callable[[int], None] = lambda items: None,
) -> list[ProblemSamples]:
    """Sample and grade every item. Prompts of equal length are batched together, so that no row needs padding.

    `progress` is called with the number of items of each finished batch.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    length = int(model.config.max_position_embeddings)
    groups: defaultdict[int, list[tuple[Item, torch.Tensor]]] = defaultdict(list)
    for item in items:
        ids = tokenizer(item.prompt, return_tensors="pt").input_ids[0]
        groups[len(ids)].append((item, ids))
    outcomes: list[ProblemSamples] = []
    for group in groups.values():
        per_batch = max(1, batch // samples)
        for start in range(0, len(group), per_batch):
            part = group[start : start + per_batch]
            prompts = torch.stack([ids for _, ids in part]).repeat_interleave(samples, 0)
            texts = sample(model, prompts, length, generator)
            for n, (item, _) in enumerate(part):
                outcomes.append(grade_all(item, texts[n * samples : (n + 1) * samples], tokenizer))
            progress(len(part))
    return outcomes


def grade_all(item: Item, texts: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> ProblemSamples:
    """The outcome of one item from the token ids of its samples."""
    task = Countdown()
    grades = tuple(task.grade(item, str(tokenizer.decode(list(ids), skip_special_tokens=True))) for ids in texts)
    truncated = sum(not ids or ids[-1] != tokenizer.eos_token_id for ids in texts)
    return ProblemSamples(item, grades, tuple(map(len, texts)), truncated)


def summarise(outcomes: Sequence[ProblemSamples], seconds: float) -> Report:
    """Compute the report from the outcomes of all problems."""
    n = [len(outcome.grades) for outcome in outcomes]
    correct = [outcome.correct for outcome in outcomes]
    total = sum(n)
    by_size: defaultdict[int, list[float]] = defaultdict(list)
    for outcome in outcomes:
        numbers = outcome.item.data["numbers"]
        assert isinstance(numbers, tuple)
        by_size[len(numbers)].append(outcome.correct / len(outcome.grades))
    return Report(
        problems=len(outcomes),
        samples=max(n),
        pass_1=mean_pass_at_k(n, correct, 1),
        pass_16=mean_pass_at_k(n, correct, 16),
        pass_64=mean_pass_at_k(n, correct, 64),
        distinct_correct_of_16=sum(outcome.distinct(16) for outcome in outcomes) / len(outcomes),
        trace_tokens=sum(sum(outcome.lengths) for outcome in outcomes) / total,
        truncated=sum(outcome.truncated for outcome in outcomes) / total,
        parsed=sum(grade.canonical is not None for outcome in outcomes for grade in outcome.grades) / total,
        unsolved=sum(not c for c in correct),
        pass_1_by_size={size: sum(rates) / len(rates) for size, rates in sorted(by_size.items())},
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m esamp.models.evaluate", description="Measure a Countdown model.")
    parser.add_argument("--model", type=Path, default=embedded_path(), help="folder (default: the embedded model)")
    parser.add_argument("--problems", type=int, default=100, help="how many of the 300 test problems")
    parser.add_argument("--samples", type=int, default=64, help="samples per problem")
    parser.add_argument("--batch", type=int, default=0, help="samples at a time (0: 256 on the CPU, 4096 on CUDA)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    set_threads()
    device = pick_device(arguments.device)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    torch.nn.Module.to(model, device)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    items = Countdown().items("test", arguments.problems)
    start = time.monotonic()
    batch = arguments.batch or (4096 if device.type == "cuda" else 256)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("problems", total=len(items))
        outcomes = run(
            model,
            tokenizer,
            items,
            arguments.samples,
            batch=batch,
            seed=arguments.seed,
            progress=lambda done: bar.advance(task, done),
        )
    report = asdict(summarise(outcomes, time.monotonic() - start))
    if arguments.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:24}{value:.3f}" if isinstance(value, float) else f"{name:24}{value}")


if __name__ == "__main__":
    main()
