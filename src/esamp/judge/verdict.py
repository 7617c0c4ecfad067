"""Parses the verdict in a judge's answer: its last line."""

import json

from esamp.judge.prompt import Mode
from esamp.metrics.agreement import midranks

FENCE = "```"


def parse_verdict(answer: str, names: str, mode: Mode) -> tuple[float, ...] | None:
    """Ranks of the groups in the order of their letters: 1 is the best; tied groups share the mean of their ranks.

    The last line must be the verdict alone; a closing code fence after it is ignored. The text before it is not used,
    because a judge that reasons names every group there.

    Args:
        answer: the judge's answer.
        names: the letters of the groups.
        mode: which kind of verdict is expected.

    Returns:
        None if the answer does not end with a verdict.
    """
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if lines and lines[-1] == FENCE:
        lines.pop()
    if not lines:
        return None
    try:
        verdict = json.loads(lines[-1], object_pairs_hook=tuple)  # keeps repeated keys, which a dict would hide
    except (ValueError, RecursionError):
        return None
    key = "winner" if mode == "pairwise" else "ranking"
    if not isinstance(verdict, tuple) or [name for name, _ in verdict] != [key]:
        return None
    value = verdict[0][1]
    return _pair(value, names) if mode == "pairwise" else _ranking(value, names)


def _pair(winner: object, names: str) -> tuple[float, ...] | None:
    if winner == "tie":
        return 1.5, 1.5
    if not isinstance(winner, str) or winner not in list(names):
        return None
    return (1.0, 2.0) if winner == names[0] else (2.0, 1.0)


def _ranking(order: object, names: str) -> tuple[float, ...] | None:
    if not isinstance(order, list):
        return None
    levels = [level if isinstance(level, list) else [level] for level in order]
    ranked = [name for level in levels for name in level]
    if not all(isinstance(name, str) for name in ranked) or sorted(ranked) != sorted(names):
        return None
    place = {name: number for number, level in enumerate(levels) for name in level}
    return tuple(float(rank) for rank in midranks([place[name] for name in names]))
