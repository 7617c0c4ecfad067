"""Runs all presentations that have no verdict yet, several at a time; each verdict is on disk before it counts."""

import itertools
import json
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esamp.engines.base import Progress
from esamp.errors import InputError, OptionError
from esamp.files import read_bytes
from esamp.judge.client import JudgeClient, Reply
from esamp.judge.presentations import Presentation
from esamp.quoting import one_line, shortened, shown
from esamp.runs.output import OutputFile

REFUSALS = 10
"""Most refusals in a row that are attributed to the texts; one more ends the run."""
MOST_TEXTS = 10**9
"""Upper bound for the number of texts in a presentation, to recognise damaged lines."""
KEPT = 4000
"""Last characters of a judge's answer that are stored."""


@dataclass(frozen=True)
class Verdict:
    """A presentation and its result."""

    presentation: Presentation
    ranks: tuple[float, ...] | None
    """ranks in the order of `presentation.arms`; None if no answer could be read"""
    reason: str
    """why no answer could be read; else empty"""
    cut: int
    """number of texts that were shown in part only"""


def run(
    presentations: Sequence[Presentation],
    start: Callable[[], JudgeClient],
    output: OutputFile,
    *,
    parallel: int,
    progress: Progress,
) -> list[str]:
    """Send all presentations whose verdict is not in the file yet.

    `start` is called only if there are any. If the server refuses a single request, because it is too long or because
    of a content filter, its presentation is left out and can be sent again later. If the server refuses the first
    request, or many in a row, that is an error.

    Returns:
        The reasons of the refusals.

    Raises:
        EsampError: the server cannot be reached, fails, or refuses the first request or many in a row.
    """
    missing = [each for each in presentations if each.key not in output.done]
    if not missing:
        return []
    with start() as client:
        return _judge_all(client, missing, output, parallel, progress)


def _judge_all(
    client: JudgeClient, missing: Iterable[Presentation], output: OutputFile, parallel: int, progress: Progress
) -> list[str]:
    """Keep `parallel` requests in flight; write each verdict as soon as it arrives."""
    source, refused, refusals_left = iter(missing), list[str](), 0
    in_flight: dict[Future[Reply], Presentation] = {}
    finished: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
    try:
        while True:
            for presentation in itertools.islice(source, parallel - len(in_flight)):
                future = client.background.submit(client.judge(presentation))
                in_flight[future] = presentation
                future.add_done_callback(finished.put)
            if not in_flight:
                return refused
            future = finished.get()
            presentation = in_flight.pop(future)
            try:
                reply = future.result()
            except (InputError, OptionError) as error:
                if not refusals_left:
                    raise
                refused.append(str(error))
                refusals_left -= 1
                continue
            output.append(presentation.key, record(presentation, reply))
            refusals_left = REFUSALS
            progress(1, reply.tokens)
    finally:
        for future in in_flight:
            future.cancel()


def record(presentation: Presentation, reply: Reply) -> dict[str, Any]:
    """A verdict as the file stores it."""
    groups = presentation.groups
    return {
        "model": groups.block.model,
        "task": groups.block.task,
        "n": groups.block.n,
        "problem": groups.item,
        "seed": groups.seed,
        "judge": presentation.judge,
        "round": presentation.round,
        "turn": presentation.turn,
        "order": list(presentation.order),
        "ranks": None if reply.ranks is None else list(reply.ranks),
        "reason": reply.reason,
        "attempts": reply.attempts,
        "tokens": reply.tokens,
        "cut": len(presentation.shown().cut),
        "answer": reply.answer[-KEPT:],
    }


def verdicts(presentations: Sequence[Presentation], path: Path) -> list[Verdict]:
    """The file's verdicts on `presentations`, in their order; lines of other presentations are skipped.

    Raises:
        InputError: a line is damaged.
    """
    by_key, found = {each.key: each for each in presentations}, dict[str, Verdict]()
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], 1):
        try:
            values = json.loads(line)
            verdict = _verdict(values, by_key.get(values["key"]))
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
            reason = shortened(one_line(str(error))) if isinstance(error, DamagedLineError) else "it is no verdict"
            raise InputError(f"{path}:{number}: {reason}: delete that line, and it is asked again") from None
        if verdict is not None:
            found[verdict.presentation.key] = verdict
    return [found[key] for key in by_key if key in found]


class DamagedLineError(ValueError):
    """A line has values that no run writes."""


def _verdict(line: Mapping[str, Any], presentation: Presentation | None) -> Verdict | None:
    """The verdict of a line; None for a line of another presentation, which is checked all the same."""
    ranks, reason, cut = line.get("ranks"), line.get("reason"), line.get("cut")
    if type(cut) is not int or not 0 <= cut < MOST_TEXTS:
        raise DamagedLineError(f"it has no number of cut texts but {shown(cut)}")
    if ranks is None and not isinstance(reason, str):
        raise DamagedLineError(f"it has no reason but {shown(reason)}")
    order = line.get("order") if presentation is None else presentation.order
    groups = len(order) if isinstance(order, list | tuple) else 0
    valid = isinstance(ranks, list) and all(type(rank) in (int, float) and 1 <= rank <= groups for rank in ranks)
    if ranks is not None and not (valid and len(ranks) == groups):
        raise DamagedLineError(f"it has no ranks of {groups} groups but {shown(ranks)}")
    if presentation is None:
        return None
    if ranks is None:
        return Verdict(presentation, None, str(reason), cut)
    by_arm = dict(zip(presentation.order, ranks, strict=True))
    return Verdict(presentation, tuple(float(by_arm[arm]) for arm in presentation.arms), "", cut)
