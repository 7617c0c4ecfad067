"""What `esamp judge` asks and shows."""

import json as encoder
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from esamp.cli.messages import message
from esamp.cli.terminal import Bar, console
from esamp.errors import EsampError
from esamp.judge import groups
from esamp.judge.client import Judges
from esamp.judge.options import JudgeOptions
from esamp.judge.plan import Ask, asks
from esamp.judge.run import run, verdicts
from esamp.judge.summary import Summary, summaries
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
    """Ask what was not asked yet, then print what all verdicts say."""
    wanted = list(asks(groups.read(files, store, options), options))
    with OutputFile(out, options.settings()) as file:
        if file.torn:
            message(f"warning: the last line of {out} was cut off by an interruption, it is asked again")
        before = sum(ask.key in file.done for ask in wanted)
        if dry_run:
            _tell([ask for ask in wanted if ask.key not in file.done], before, options, json=json)
            return
        try:
            with Bar(len(wanted) - before, "verdicts") as bar:

                def start() -> Judges:
                    judges = Judges.find(options)
                    bar.generating()
                    return judges

                refused = run(wanted, start, file, parallel=options.parallel, progress=bar.advance)
        except KeyboardInterrupt:
            file.recover()
            done = sum(ask.key in file.done for ask in wanted)
            message(f"interrupted; {done} of {len(wanted)} verdicts are in {out}: the same command continues it")
            raise typer.Exit(130) from None
    found = summaries(wanted, verdicts(wanted, out), options)
    if json:
        print(encoder.dumps(_record(found, options, before), allow_nan=False))
    else:
        for summary in found:
            _show(summary, options)
    message(f"{len(wanted) - len(refused)} verdicts are in {out}, {before} of them before this run")
    if refused:
        raise EsampError(f"{len(refused)} requests were refused, the same command asks them again: {refused[0]}")


def _tell(missing: Sequence[Ask], before: int, options: JudgeOptions, *, json: bool) -> None:
    """What a run would ask, without asking it."""
    characters = sum(len(ask.question()) for ask in missing)
    if json:
        print(encoder.dumps({"before": before, "requests": len(missing), "characters": characters}))
        return
    print(
        f"{len(missing)} requests of {characters:,} characters in all, each answered by at most {options.max_tokens} "
        f"tokens; {before} verdicts are there"
    )


def _record(found: Sequence[Summary], options: JudgeOptions, before: int) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        "settings": options.settings(),
        "before": before,
        "summaries": [_finite(asdict(summary)) for summary in found],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(summary: Summary, options: JudgeOptions) -> None:
    out = console(soft_wrap=True)
    out.print(printable(f"{summary.place.title}: {options.mode}, by {options.criterion}"))
    unread = ", ".join(f"{count} {reason}" for reason, count in summary.unread.items())
    told = [f"{summary.problems} problems, {summary.read} of {summary.asked} verdicts read"]
    told += [f"not read: {unread}"] if unread else []
    told += [f"{summary.missing} not asked yet"] if summary.missing else []
    told += [f"{summary.cut} with texts that were cut"] if summary.cut else []
    out.print("; ".join(told))
    _table(
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
    _table(out, ("judge", "arm", "mean rank"), ranks, texts=2)
    _table(
        out,
        ("judge", "shown first wins %", "without bias", "same in both orders %", "same place wins %"),
        [
            (
                *(each.judge, _interval(each.first, 100, 0), _number(100 * each.expected, "{:.0f}")),
                *(_number(100 * each.same, "{:.0f}"), _number(100 * each.flipped, "{:.0f}")),
            )
            for each in summary.positions
        ],
    )
    _table(
        out,
        ("judge", "agreement between", "raters", "units", "equal %", "kappa", "alpha", "W"),
        [
            (
                *(each.judge or "all judges", BETWEEN[each.between], each.raters, each.units),
                *(_number(100 * each.observed, "{:.0f}"), _number(each.kappa)),
                *(_interval(each.alpha, 1, 2), _interval(each.w, 1, 2)),
            )
            for each in summary.agreements
        ],
        texts=2,
    )


def _table(out: Console, head: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> None:
    """The columns after the first `texts` are numbers."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place < texts else "right")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    out.print()
    out.print(table)


def _interval(found: Interval, scale: float, digits: int) -> str:
    if math.isnan(found.estimate):
        return "-"
    bounds = "" if math.isnan(found.low) else f" [{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"
    return f"{scale * found.estimate:.{digits}f}{bounds}"


def _number(value: float, form: str = "{:.2f}") -> str:
    return "-" if math.isnan(value) else form.format(value)
