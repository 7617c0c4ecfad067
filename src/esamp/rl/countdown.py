"""GRPO on Countdown with the embedded model: plain against exploring rollouts, at equal generated tokens.

    python -m esamp.rl.countdown --out DIR [--seeds 3] [--tokens 80000] [--beta 0.25]

Every run starts from the embedded model and stops when its rollouts have generated the given number of tokens. Then
the trained model is evaluated by plain sampling, so that both arms are measured alike. DIR/rows.jsonl gets a row for
each update and each evaluation; runs that are complete there are not repeated. DIR/curves.svg is drawn from the rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from esamp.errors import EsampError
from esamp.report.figures.requirement import check_matplotlib
from esamp.rl.experiment.figure import draw
from esamp.rl.experiment.rows import RowFile, difference, read, summary
from esamp.rl.experiment.settings import ARMS, Settings
from esamp.rl.requirements import check_trl


@dataclass(frozen=True)
class CountdownSettings(Settings):
    """The settings and the folder; the command line is derived from these fields."""

    out: Path = field(default=Path("rl-countdown"), metadata={"help": "folder for the rows and the figure"})


def parse(arguments: list[str] | None = None) -> tuple[CountdownSettings, bool]:
    """Read the command line. Returns the options, and whether to print JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m esamp.rl.countdown",
        description="GRPO on Countdown with the embedded model: plain against exploring rollouts.",
    )
    types: dict[object, type] = {"Path": Path, "float": float, "int": int, "str": str}
    for option in fields(CountdownSettings):
        name, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        parser.add_argument(name, type=types[option.type], default=option.default, help=text + " (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = vars(parser.parse_args(arguments))
    as_json = bool(given.pop("json"))
    return CountdownSettings(**given), as_json


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options, as_json = parse(arguments)
    try:
        check_trl()
        check_matplotlib()
        options.check()
        _run_missing(options)
        rows = read(options.out / "rows.jsonl")
        figure = draw(rows, options.out)
    except (EsampError, OSError) as error:
        sys.exit(f"error: {error}")
    table = summary(rows)
    if as_json:
        print(json.dumps({"rows": str(options.out / "rows.jsonl"), "figure": str(figure), "summary": table}))
        return
    heads = {"pass_1": "pass@1", "pass_k": f"pass@{options.draws}", "distinct": "distinct", "entropy": "entropy"}
    heads |= {"alike": "groups alike", "nats": "nats off-policy"}
    print(f"{'rollouts':9}{'seeds':>6}{'tokens':>8}" + "".join(f"{head:>22}" for head in heads.values()))
    for line in table:
        shown = [line[name] for name in heads if name in line]
        cells = "".join("{mean:>7.3f} [{low:.3f}, {high:.3f}]".format(**cell) for cell in shown)
        print(f"{line['rollouts']:9}{line['seeds']:>6}{line['tokens']:>8,}{cells}")
    for name in ("pass_1", "pass_k"):
        mean, deviation = difference(rows, name)
        print(f"{heads[name]}, exploring minus plain, by seed: {mean:+.3f}, standard error {deviation:.3f}")
    print(f"mean over seeds [smallest, largest]; rows: {options.out / 'rows.jsonl'}, figure: {figure}")


def _run_missing(options: CountdownSettings) -> None:
    """Train every run that the file of rows does not have."""
    file = RowFile(options.out / "rows.jsonl", options)
    runs = [(arm, seed) for seed in range(options.seeds) for arm in ARMS]
    missing = [(arm, seed) for arm, seed in runs if not file.has("after", arm=arm, seed=seed)]
    if not missing:
        return
    from esamp.rl.experiment.run import before, train  # imports torch and TRL

    if not file.has("before"):
        file.append([before(options)])

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        for place, (arm, seed) in enumerate(missing, 1):
            name = f"{arm}, seed {seed} ({place} of {len(missing)})"
            task = bar.add_task(name, total=options.tokens)
            file.append(train(options, arm, seed, partial(bar.advance, task)))


if __name__ == "__main__":
    main()
