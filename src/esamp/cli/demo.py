"""`esamp demo`: see the methods beside each other on the embedded model."""

import json as encoder
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from esamp.cli.terminal import Bar, message, printable
from esamp.engines.hf import HFEngine
from esamp.errors import InputError
from esamp.models import EMBEDDED
from esamp.study import demo
from esamp.study.report import Summary, render
from esamp.tasks.countdown import Countdown

BATCH_ROWS = 96
"""Samples side by side: what a small model decodes fastest on a CPU, and no hardship for a GPU."""


def command(
    problems: Annotated[int, typer.Option(min=2, max=300, help="held-out Countdown problems")] = 5,
    samples: Annotated[int, typer.Option("-n", "--samples", min=2, max=1024, help="samples of each problem")] = 16,
    max_tokens: Annotated[int, typer.Option(min=16, help="longest sample, in tokens")] = 480,
    seed: Annotated[int, typer.Option(min=0, help="seed of the sampler")] = 0,
    model: Annotated[str, typer.Option(help="hub name or folder of a model that plays Countdown")] = EMBEDDED,
    shown: Annotated[int, typer.Option(min=1, help="problems on the HTML page")] = 5,
    page: Annotated[Path, typer.Option(help="HTML page to write", metavar="FILE")] = Path("demo.html"),
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """Compare plain sampling, ESamp as published and ours on held-out Countdown problems, and write an HTML page.

    Every arm gets the same problems and the same number of samples. The table has 95 % intervals; the sentences below
    it say what can be told from chance.
    """
    if not page.parent.is_dir():
        raise InputError(f"{page.parent} is no folder: create it, or give another --page")
    task = Countdown()
    items = task.items(limit=problems)
    with Bar(problems * samples * len(demo.ARMS)) as bar:
        engine = HFEngine.load(None if model == EMBEDDED else model, batch_rows=BATCH_ROWS, trace=True)
        bar.generating()
        results = demo.run_demo(
            engine, task, items, samples=samples, max_tokens=max_tokens, seed=seed, progress=bar.advance
        )
    settings = f"--problems {problems} -n {samples} --max-tokens {max_tokens} --seed {seed}"
    footer = f"esamp {version('esamp')}: esamp demo {settings}"
    page.write_text(render(demo.page(results, items, shown=shown, footer=footer)), encoding="utf-8")
    if json:
        print(encoder.dumps({**demo.as_json(results), "page": str(page)}))
        return
    _print(demo.table(results), demo.verdict(results))
    message(f"all samples side by side, every token coloured by its novelty: {page}")


def _print(summary: Summary, sentences: list[str]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(summary.columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in summary.rows:
        table.add_row(*(printable(cell) for cell in row))
    console.print(table)
    for sentence in (summary.note, *sentences):
        console.print()
        console.print(sentence, markup=False)
