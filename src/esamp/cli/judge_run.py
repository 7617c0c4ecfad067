"""The work of `esamp judge`."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from esamp.cli.documents import print_document
from esamp.cli.messages import message, warn_torn
from esamp.cli.progress import SampleBar
from esamp.cli.terminal import console, plain_table
from esamp.errors import EsampError
from esamp.judge import groups
from esamp.judge.client import JudgeClient
from esamp.judge.options import JudgeOptions
from esamp.judge.presentations import Presentation, presentations
from esamp.judge.run import run, verdicts
from esamp.judge.summary import JudgeSummary, summaries
from esamp.metrics.intervals import Interval
from esamp.quoting import printable
from esamp.runs.output import OutputFile

BETWEEN = {
    "orders": "both orders of a pair",
    "rounds": "rounds",
    "judges": "judges",
    "presentations": "rankings of the same groups",
}


def judge(options: JudgeOptions, files: list[Path], out: Path, store: Path, *, dry_run: bool, json: bool) -> None:
    """Make all presentations without a verdict, then print the summary of all verdicts."""
    planned = list(presentations(groups.read(files, store, options), options))
    with OutputFile(out, options.settings()) as file:
        if file.torn:
            warn_torn(out, "it is asked again")
        done_before = sum(each.key in file.done for each in planned)
        if dry_run:
            missing = [each for each in planned if each.key not in file.done]
            _print_plan(missing, done_before, options, json=json)
            return
        try:
            with SampleBar(len(planned) - done_before, unit="verdicts") as bar:

                def start() -> JudgeClient:
                    client = JudgeClient.find(options)
                    bar.generating()
                    return client

                refused = run(planned, start, file, parallel=options.parallel, progress=bar.advance)
        except KeyboardInterrupt:
            file.recover()
            done = sum(each.key in file.done for each in planned)
            message(f"interrupted; {done} of {len(planned)} verdicts are in {out}: the same command continues it")
            raise typer.Exit(130) from None
    rows = summaries(planned, verdicts(planned, out), options)
    if json:
        records = [_record(summary) for summary in rows]
        print_document({"settings": options.settings(), "before": done_before, "summaries": records})
    else:
        for summary in rows:
            _print_summary(summary, options)
    message(f"{len(planned) - len(refused)} verdicts are in {out}, {done_before} of them before this run")
    if refused:
        raise EsampError(f"{len(refused)} requests were refused, the same command asks them again: {refused[0]}")


def _print_plan(missing: Sequence[Presentation], done_before: int, options: JudgeOptions, *, json: bool) -> None:
    """Print how many requests a run would send."""
    characters = sum(len(each.prompt()) for each in missing)
    if json:
        print_document({"before": done_before, "requests": len(missing), "characters": characters})
        return
    print(
        f"{len(missing)} requests of {characters:,} characters in all, each answered by at most {options.max_tokens} "
        f"tokens; {done_before} verdicts are there"
    )


def _record(summary: JudgeSummary) -> dict[str, Any]:
    """A summary for JSON, which calls the block ``place``."""
    record = asdict(summary)
    return {"place": record.pop("block"), **record}


def _print_summary(summary: JudgeSummary, options: JudgeOptions) -> None:
    out = console(soft_wrap=True)
    out.print(printable(f"{summary.block.title}: {options.mode}, by {options.criterion}"))
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.unread.items())
    counts = [f"{summary.problems} problems, {summary.read} of {summary.asked} verdicts read"]
    counts += [f"not read: {reasons}"] if reasons else []
    counts += [f"{summary.missing} not asked yet"] if summary.missing else []
    counts += [f"{summary.cut} with texts that were cut"] if summary.cut else []
    out.print("; ".join(counts))
    _print_table(
        out,
        ("judge", "first arm", "second arm", "won", "tied", "lost", "problems", "win rate %", "p (Holm)"),
        [
            (
                *(pair.judge, pair.first, pair.second, pair.wins, pair.ties, pair.losses, pair.problems),
                *(_interval(pair.rate, 100, 0), _number(pair.adjusted, "{:.2g}")),
            )
            for pair in summary.pairs
        ],
        texts=3,
    )
    ranks = [(rank.judge, rank.arm, _interval(rank.interval, 1, 2)) for rank in summary.ranks]
    _print_table(out, ("judge", "arm", "mean rank"), ranks, texts=2)
    _print_table(
        out,
        ("judge", "shown first wins %", "without bias", "same in both orders %", "same place wins %"),
        [
            (
                *(bias.judge, _interval(bias.first, 100, 0), _number(100 * bias.expected, "{:.0f}")),
                *(_number(100 * bias.same, "{:.0f}"), _number(100 * bias.flipped, "{:.0f}")),
            )
            for bias in summary.positions
        ],
    )
    _print_table(
        out,
        ("judge", "agreement between", "raters", "units", "equal %", "kappa", "alpha", "W"),
        [
            (
                *(agreement.judge or "all judges", BETWEEN[agreement.between], agreement.raters, agreement.units),
                *(_number(100 * agreement.observed, "{:.0f}"), _number(agreement.kappa)),
                *(_interval(agreement.alpha, 1, 2), _interval(agreement.w, 1, 2)),
            )
            for agreement in summary.agreements
        ],
        texts=2,
    )


def _print_table(out: Console, head: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> None:
    """Print a table, unless it is empty; the columns after the first `texts` are numbers."""
    if not rows:
        return
    table = plain_table(head, texts=texts, wrap_numbers=True)
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    out.print()
    out.print(table)


def _interval(interval: Interval, scale: float, digits: int) -> str:
    if math.isnan(interval.estimate):
        return "-"
    low, high = (f"{scale * bound:.{digits}f}" for bound in (interval.low, interval.high))
    bounds = "" if math.isnan(interval.low) else f" [{low}, {high}]"
    return f"{scale * interval.estimate:.{digits}f}{bounds}"


def _number(value: float, form: str = "{:.2f}") -> str:
    return "-" if math.isnan(value) else form.format(value)
