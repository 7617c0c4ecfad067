"""What `esamp demo` runs and shows."""

import json as encoder
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from esamp.analysis.open_prompts import DEMO_PROMPTS
from esamp.analysis.text_scores import TextScorer
from esamp.cli.messages import message
from esamp.cli.pages import write_page
from esamp.cli.samples import console_for, print_table, print_text, side_by_side
from esamp.cli.terminal import Bar
from esamp.compare import chat_demo as showcase
from esamp.compare import chat_demo_view as showcase_view
from esamp.compare import countdown_demo, countdown_demo_view
from esamp.compare.chat_demo import ChatResult
from esamp.engines.hf import HFEngine
from esamp.models import SMOLLM2
from esamp.report.pages import Summary, render
from esamp.tasks.countdown import Countdown

BATCH_ROWS = 96
"""Samples side by side: what a small model decodes fastest on a CPU, and no hardship for a GPU."""
RULE = (
    "The first samples, unselected, of plain sampling at the temperature of the nearest perplexity and of ESamp, on "
    "the prompt where their diversity differs most:"
)


def demo_dtype(model: str) -> str:
    """The faster dtype for the chat model: bfloat16, except on CPUs whose vector units have none (about five times)."""
    slow = not torch.cuda.is_available() and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return "bfloat16" if model == SMOLLM2 and not slow else "auto"


def open_ended(samples: int, max_tokens: int, seed: int, *, model: str, page: Path, json: bool) -> None:
    """Open-ended prompts on a chat model."""
    message(f"{len(DEMO_PROMPTS)} prompts x {samples} samples x {len(showcase.ARMS)} ways to decode, on {model}")
    scorer = TextScorer.start()
    for sentence in scorer.missing:
        message(f"note: {sentence}")
    prompts = DEMO_PROMPTS
    with Bar(len(prompts) * samples * len(showcase.ARMS)) as bar:
        engine = HFEngine.load(model, dtype=demo_dtype(model), batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        outcomes = showcase.run(
            engine,
            prompts,
            scorer,
            chat=engine.tokenizer.chat_template is not None,
            samples=samples,
            max_tokens=max_tokens,
            seed=seed,
            progress=bar.advance,
        )
    if json:
        told = {"task": "open", "model": model, "n": samples, "max_tokens": max_tokens, "seed": seed}
        found = showcase_view.as_json(outcomes, prompts)
        print(encoder.dumps({**told, **found, "page": str(page)}, allow_nan=False))
    else:
        _print_open(outcomes, scorer, prompts)
    settings = f"--model {model} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    footer = f"esamp {version('esamp')}: esamp demo {settings}"
    write_page(page, render(showcase_view.page(outcomes, scorer, prompts, footer=footer)))
    if not json:
        message(f"all samples, coloured by what exploring changed: {page}")


def _print_open(outcomes: Sequence[ChatResult], scorer: TextScorer, prompts: Sequence[str]) -> None:
    """The samples come last, where a terminal shows them."""
    _print(showcase_view.table(outcomes, scorer), showcase_view.verdict(outcomes))
    console, place = console_for(sys.stdout.isatty()), showcase.most_telling(outcomes)
    left, right = showcase_view.beside(outcomes, place)
    heads = (showcase.comparable(outcomes).arm.label, showcase.default_of(outcomes).arm.label)
    console.print()
    print_text(console, RULE, "dim")
    print_text(console, f"> {prompts[place]}", "bold")
    side_by_side(console, heads, left, right)


def countdown(
    problems: int, samples: int, max_tokens: int, seed: int, *, model: str, shown: int, page: Path, json: bool
) -> None:
    """Held-out problems of the numbers game, graded."""
    task = Countdown()
    items = task.items(limit=problems)
    with Bar(problems * samples * len(countdown_demo.ARMS)) as bar:
        engine = HFEngine.load(model, batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        results = countdown_demo.run(
            engine, task, items, samples=samples, max_tokens=max_tokens, seed=seed, progress=bar.advance
        )
    if json:
        print(encoder.dumps({"task": "countdown", **countdown_demo_view.as_json(results), "page": str(page)}))
    else:
        _print(countdown_demo_view.table(results), countdown_demo_view.verdict(results))
    settings = f"--task countdown --problems {problems} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    footer = f"esamp {version('esamp')}: esamp demo {settings}"
    write_page(page, render(countdown_demo_view.page(results, items, shown=shown, footer=footer)))
    if not json:
        message(f"all samples side by side, every token coloured by what exploring changed: {page}")


def _print(summary: Summary, sentences: Sequence[str]) -> None:
    console = console_for(sys.stdout.isatty())
    print_table(console, summary)
    print_text(console, summary.note, "dim")
    for sentence in sentences:
        console.print()
        print_text(console, sentence)
