"""The work of `esamp demo`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from esamp.analysis.open_prompts import DEMO_PROMPTS
from esamp.analysis.text_scores import TextScorer
from esamp.cli.documents import print_document
from esamp.cli.messages import message
from esamp.cli.pages import footer, write_page
from esamp.cli.progress import SampleBar
from esamp.cli.samples import console_for, print_table, print_text, side_by_side
from esamp.compare import chat_demo, chat_demo_view, countdown_demo, countdown_demo_view
from esamp.compare.chat_demo import ChatResult
from esamp.engines.hf import HFEngine
from esamp.models import SMOLLM2
from esamp.report.pages import ComparisonTable, render
from esamp.tasks.countdown import Countdown

BATCH_ROWS = 96
"""Samples decoded at once: the fastest size for a small model on a CPU, and small for a GPU."""
SAMPLES_HEAD = (
    "The first samples, unselected, of plain sampling at the temperature of the nearest perplexity and of ESamp, on "
    "the prompt where their diversity differs most:"
)


def demo_dtype(model: str) -> str:
    """The faster dtype for the chat model: bfloat16, which is about five times slower on CPUs without AVX-512."""
    slow = not torch.cuda.is_available() and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return "bfloat16" if model == SMOLLM2 and not slow else "auto"


def open_ended(samples: int, max_tokens: int, seed: int, *, model: str, page: Path, json: bool) -> None:
    """Sample open-ended prompts on a chat model; print the comparison and write the page."""
    message(f"{len(DEMO_PROMPTS)} prompts x {samples} samples x {len(chat_demo.ARMS)} ways to decode, on {model}")
    scorer = TextScorer.start()
    for sentence in scorer.missing:
        message(f"note: {sentence}")
    prompts = DEMO_PROMPTS
    with SampleBar(len(prompts) * samples * len(chat_demo.ARMS), max_tokens) as bar:
        engine = HFEngine.load(model, dtype=demo_dtype(model), batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        results = chat_demo.run(
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
        settings = {"task": "open", "model": model, "n": samples, "max_tokens": max_tokens, "seed": seed}
        print_document({**settings, **chat_demo_view.as_json(results, prompts), "page": str(page)})
    else:
        _print_open(results, scorer, prompts)
    command = f"esamp demo --model {model} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    write_page(page, render(chat_demo_view.page(results, scorer, prompts, footer=footer(command))))
    if not json:
        message(f"all samples, coloured by what exploring changed: {page}")


def _print_open(results: Sequence[ChatResult], scorer: TextScorer, prompts: Sequence[str]) -> None:
    """Print the table and the verdict, then samples."""
    _print(chat_demo_view.table(results, scorer), chat_demo_view.verdict(results))
    console, prompt = console_for(sys.stdout.isatty()), chat_demo.most_telling(results)
    left, right = chat_demo_view.beside(results, prompt)
    heads = (chat_demo.comparable(results).arm.label, chat_demo.default_of(results).arm.label)
    console.print()
    print_text(console, SAMPLES_HEAD, "dim")
    print_text(console, f"> {prompts[prompt]}", "bold")
    side_by_side(console, heads, left, right)


def countdown(
    problems: int, samples: int, max_tokens: int, seed: int, *, model: str, shown: int, page: Path, json: bool
) -> None:
    """Sample held-out Countdown problems, grade them, print the comparison and write the page."""
    task = Countdown()
    items = task.items(limit=problems)
    with SampleBar(problems * samples * len(countdown_demo.ARMS), max_tokens) as bar:
        engine = HFEngine.load(model, batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        results = countdown_demo.run(
            engine, task, items, samples=samples, max_tokens=max_tokens, seed=seed, progress=bar.advance
        )
    if json:
        print_document({"task": "countdown", **countdown_demo_view.as_json(results), "page": str(page)})
    else:
        _print(countdown_demo_view.table(results), countdown_demo_view.verdict(results))
    command = f"esamp demo --task countdown --problems {problems} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    write_page(page, render(countdown_demo_view.page(results, items, shown=shown, footer=footer(command))))
    if not json:
        message(f"all samples side by side, every token coloured by what exploring changed: {page}")


def _print(table: ComparisonTable, sentences: Sequence[str]) -> None:
    console = console_for(sys.stdout.isatty())
    print_table(console, table)
    print_text(console, table.note, "dim")
    for sentence in sentences:
        console.print()
        print_text(console, sentence)
