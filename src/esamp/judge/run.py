"""Everything that was not asked yet, several at a time; each verdict is on disk before it counts."""

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
from esamp.judge.client import Judges, Reply
from esamp.judge.plan import Ask
from esamp.quoting import one_line, shortened, shown
from esamp.runs.output import OutputFile

PATIENCE = 10
"""Refusals in a row that are put down to the texts; one more ends the run."""
MOST_TEXTS = 10**9
"""Texts of a presentation."""
KEPT = 4000
"""Characters of a judge's answer, its end, that are kept."""


@dataclass(frozen=True)
class Verdict:
    """A presentation and what came of it."""

    ask: Ask
    ranks: tuple[float, ...] | None
    """by arm, in the order of `ask.arms`; None where no answer could be read"""
    reason: str
    """why not"""
    cut: int
    """texts of which only a part was shown"""


def run(
    asks: Sequence[Ask], start: Callable[[], Judges], output: OutputFile, *, parallel: int, progress: Progress
) -> list[str]:
    """Ask what is not in the file yet.

    The judges are reached only if something is to be asked. A single request that the server refuses (too long, a
    filter) is left out and can be asked again; what it refuses at first, or many in a row, is an error.

    Returns:
        The reasons why single requests were refused.

    Raises:
        EsampError: the server cannot be reached, fails or refuses.
    """
    missing = [ask for ask in asks if ask.key not in output.done]
    if not missing:
        return []
    with start() as judges:
        return _ask_all(judges, missing, output, parallel, progress)


def _ask_all(judges: Judges, missing: Iterable[Ask], output: OutputFile, parallel: int, told: Progress) -> list[str]:
    source, refused, patience = iter(missing), list[str](), 0
    flying: dict[Future[Reply], Ask] = {}
    landed: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
    try:
        while True:
            for ask in itertools.islice(source, parallel - len(flying)):
                future = judges.background.submit(judges.ask(ask))
                flying[future] = ask
                future.add_done_callback(landed.put)
            if not flying:
                return refused
            future = landed.get()
            ask = flying.pop(future)
            try:
                reply = future.result()
            except (InputError, OptionError) as error:
                if not patience:
                    raise
                refused.append(str(error))
                patience -= 1
                continue
            output.append(ask.key, record(ask, reply))
            patience = PATIENCE
            told(1, reply.tokens)
    finally:
        for future in flying:
            future.cancel()


def record(ask: Ask, reply: Reply) -> dict[str, Any]:
    """A verdict as it is written."""
    place = ask.contest.place
    shown = ask.shown()
    return {
        "model": place.model,
        "task": place.task,
        "n": place.n,
        "problem": ask.contest.item,
        "seed": ask.contest.seed,
        "judge": ask.judge,
        "round": ask.round,
        "turn": ask.turn,
        "order": list(ask.order),
        "ranks": None if reply.ranks is None else list(reply.ranks),
        "reason": reply.reason,
        "attempts": reply.attempts,
        "tokens": reply.tokens,
        "cut": len(shown.cut),
        "answer": reply.answer[-KEPT:],
    }


def verdicts(asks: Sequence[Ask], path: Path) -> list[Verdict]:
    """What the file says of `asks`, in their order; lines of other comparisons are passed over.

    Raises:
        InputError: a line cannot be read.
    """
    asked, found = {ask.key: ask for ask in asks}, dict[str, Verdict]()
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], 1):
        try:
            values = json.loads(line)
            ask = asked.get(values["key"])
            verdict = _verdict(values, ask)
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
            reason = shortened(one_line(str(error))) if isinstance(error, DamagedLineError) else "it is no verdict"
            raise InputError(f"{path}:{number}: {reason}: delete that line, and it is asked again") from None
        if verdict is not None:
            found[verdict.ask.key] = verdict
    return [found[key] for key in asked if key in found]


class DamagedLineError(ValueError):
    """A verdict has values that no run writes."""


def _verdict(line: Mapping[str, Any], ask: Ask | None) -> Verdict | None:
    """What a line says; None for one of another comparison."""
    ranks, reason, cut = line.get("ranks"), line.get("reason"), line.get("cut")
    if type(cut) is not int or not 0 <= cut < MOST_TEXTS:
        raise DamagedLineError(f"it has no number of cut texts but {shown(cut)}")
    if ranks is None and not isinstance(reason, str):
        raise DamagedLineError(f"it has no reason but {shown(reason)}")
    order = line.get("order") if ask is None else ask.order
    groups = len(order) if isinstance(order, list | tuple) else 0
    sound = isinstance(ranks, list) and all(type(rank) in (int, float) and 1 <= rank <= groups for rank in ranks)
    if ranks is not None and not (sound and len(ranks) == groups):
        raise DamagedLineError(f"it has no ranks of {groups} groups but {shown(ranks)}")
    if ask is None:
        return None
    if ranks is None:
        return Verdict(ask, None, str(reason), cut)
    by_arm = dict(zip(ask.order, ranks, strict=True))
    return Verdict(ask, tuple(float(by_arm[arm]) for arm in ask.arms), "", cut)
