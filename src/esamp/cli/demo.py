"""`esamp demo`: see what exploring does, on a chat model or on the Countdown numbers game."""

import json as encoder
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from esamp.cli.pages import check_page, write_page
from esamp.cli.samples import console_for, print_table, print_text, side_by_side
from esamp.cli.terminal import Bar, message
from esamp.engines.hf import HFEngine
from esamp.errors import OptionError
from esamp.models import EMBEDDED, SMOLLM2
from esamp.study import demo, showcase, showcase_view
from esamp.study.report import Summary, render
from esamp.study.showcase import Outcome
from esamp.study.texts import TextMeter
from esamp.study.topics import DEMO_PROMPTS
from esamp.tasks.countdown import Countdown

BATCH_ROWS = 96
"""Samples side by side: what a small model decodes fastest on a CPU, and no hardship for a GPU."""
OPEN_TOKENS, COUNTDOWN_TOKENS = 96, 480
PROBLEMS, SHOWN = 5, 5
RULE = (
    "The first samples, unselected, of plain sampling at the temperature of the nearest perplexity and of ESamp, on "
    "the prompt where their diversity differs most:"
)


def command(
    task: Annotated[
        Literal["open", "countdown"],
        typer.Option(help="open: three open-ended prompts on a chat model; countdown: the numbers game"),
    ] = "open",
    samples: Annotated[int, typer.Option("-n", "--samples", min=2, max=1024, help="samples of each prompt")] = 16,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=16,
            help=f"longest sample, in tokens (default: {OPEN_TOKENS}, countdown {COUNTDOWN_TOKENS})",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of the sampler")] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"a name, hub name or folder (default: {SMOLLM2}; countdown needs a model that plays it)",
            show_default=False,
        ),
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option(
            min=2, max=300, help=f"countdown: held-out problems (default: {PROBLEMS})", show_default=False, metavar="N"
        ),
    ] = None,
    shown: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"countdown: problems on the page (default: {SHOWN})", show_default=False, metavar="N"
        ),
    ] = None,
    page: Annotated[Path, typer.Option(help="HTML page to write", metavar="FILE")] = Path("demo.html"),
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Show what exploring does: the same prompts with plain sampling, top-p and ESamp, all samples on an HTML page.

    Three prompts on a small chat model take two to three minutes on two cores. The table has diversity and what it must
    not cost; below it are the first samples of plain sampling and of ESamp at the nearest perplexity, unselected.

    Examples: esamp demo; esamp demo --task countdown --problems 20
    """
    check_page(page)
    if task == "countdown":
        given = (problems or PROBLEMS, samples, max_tokens or COUNTDOWN_TOKENS, seed)
        _countdown(*given, model=model or EMBEDDED, shown=shown or SHOWN, page=page, json=json)
        return
    for name, value in (("--problems", problems), ("--shown", shown)):
        if value is not None:
            raise OptionError(f"{name} belongs to --task countdown: leave it out, or add --task countdown")
    _open(samples, max_tokens or OPEN_TOKENS, seed, model=model or SMOLLM2, page=page, json=json)


def demo_dtype(model: str) -> str:
    """The faster dtype for the chat model: bfloat16, except on CPUs whose vector units have none (about five times)."""
    slow = not torch.cuda.is_available() and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return "bfloat16" if model == SMOLLM2 and not slow else "auto"


def _open(samples: int, max_tokens: int, seed: int, *, model: str, page: Path, json: bool) -> None:
    message(f"{len(DEMO_PROMPTS)} prompts x {samples} samples x {len(showcase.ARMS)} ways to decode, on {model}")
    meter = TextMeter.start()
    for sentence in meter.missing:
        message(f"note: {sentence}")
    prompts = DEMO_PROMPTS
    with Bar(len(prompts) * samples * len(showcase.ARMS)) as bar:
        engine = HFEngine.load(model, dtype=demo_dtype(model), batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        outcomes = showcase.run(
            engine,
            prompts,
            meter,
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
        _print_open(outcomes, meter, prompts)
    settings = f"--model {model} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    footer = f"esamp {version('esamp')}: esamp demo {settings}"
    write_page(page, render(showcase_view.page(outcomes, meter, prompts, footer=footer)))
    if not json:
        message(f"all samples, coloured by what exploring changed: {page}")


def _print_open(outcomes: Sequence[Outcome], meter: TextMeter, prompts: Sequence[str]) -> None:
    """The samples come last, where a terminal shows them."""
    _print(showcase_view.table(outcomes, meter), showcase_view.verdict(outcomes))
    console, place = console_for(sys.stdout.isatty()), showcase.most_telling(outcomes)
    left, right = showcase_view.beside(outcomes, place)
    heads = (showcase.comparable(outcomes).arm.name, showcase.default_of(outcomes).arm.name)
    console.print()
    print_text(console, RULE, "dim")
    print_text(console, f"> {prompts[place]}", "bold")
    side_by_side(console, heads, left, right)


def _countdown(
    problems: int, samples: int, max_tokens: int, seed: int, *, model: str, shown: int, page: Path, json: bool
) -> None:
    task = Countdown()
    items = task.items(limit=problems)
    with Bar(problems * samples * len(demo.ARMS)) as bar:
        engine = HFEngine.load(model, batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        results = demo.run_demo(
            engine, task, items, samples=samples, max_tokens=max_tokens, seed=seed, progress=bar.advance
        )
    if json:
        print(encoder.dumps({"task": "countdown", **demo.as_json(results), "page": str(page)}))
    else:
        _print(demo.table(results), demo.verdict(results))
    settings = f"--task countdown --problems {problems} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    footer = f"esamp {version('esamp')}: esamp demo {settings}"
    write_page(page, render(demo.page(results, items, shown=shown, footer=footer)))
    if not json:
        message(f"all samples side by side, every token coloured by what exploring changed: {page}")


def _print(summary: Summary, sentences: Sequence[str]) -> None:
    console = console_for(sys.stdout.isatty())
    print_table(console, summary)
    print_text(console, summary.note, "dim")
    for sentence in sentences:
        console.print()
        print_text(console, sentence)
