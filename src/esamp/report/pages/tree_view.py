"""What is shown of a tree, read from the details of a search. Every text in them may come from a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from esamp.errors import InputError

DEEPEST = 200
"""Most levels of a tree; a deeper one is refused."""


@dataclass(frozen=True)
class NodeView:
    """One node: its kind, and the facts about it."""

    id: int
    parent: int | None
    depth: int
    thought: str
    kind: Literal["way", "back", "kept", "cut"]
    """way: on the way to the best answer; back: searched and left again; kept; cut: not kept or not reached"""
    facts: tuple[str, ...]
    """the first one says in words what the kind is"""


@dataclass(frozen=True)
class TreeView:
    """All nodes, the root first, parents before children."""

    nodes: Sequence[NodeView]
    answers: Sequence[int]
    """nodes of the answers, the best first"""
    statistics: Sequence[str]
    """sentences on the size and cost of the search"""

    def children(self) -> Mapping[int, Sequence[NodeView]]:
        """The children of each node, in their order."""
        children: dict[int, list[NodeView]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            if node.parent is not None:
                children[node.parent].append(node)
        return children


def read_tree(details: Mapping[str, Any]) -> TreeView:
    """The tree in `esamp.engines.base.Completion.details`, also after a round trip through JSON.

    Raises:
        InputError: the details contain no tree, or one deeper than `DEEPEST` levels.
    """
    try:
        answers = [int(answer) for answer in details["answers"]]
        way = set(details["paths"][0]) if details["paths"] else set()
        nodes = [_node(record, way, answers) for record in details["nodes"]]
        statistics = _statistics(details)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"these details contain no tree of thoughts ({type(error).__name__}: {error})") from None
    for place, node in enumerate(nodes):
        parent = nodes[node.parent] if node.parent is not None and 0 <= node.parent < place else None
        if node.id != place or (parent is None) != (place == 0) or node.depth != (parent.depth + 1 if parent else 0):
            raise InputError(
                f"these details contain no valid tree: the number, parent and depth of node {place} do not agree"
            )
        if node.depth > DEEPEST:
            raise InputError(f"the tree is deeper than {DEEPEST} levels")
    if not nodes or not all(0 <= answer < len(nodes) for answer in answers):
        raise InputError("these details contain no valid tree: it has no node, or an answer is none of its nodes")
    return TreeView(nodes, answers, statistics)


def _node(record: Mapping[str, Any], way: set[int], answers: Sequence[int]) -> NodeView:
    number, parent = int(record["id"]), record["parent"]
    kind: Literal["way", "back", "kept", "cut"] = "cut"
    status = "not kept" if record["pruned"] else "not reached"
    if number in way:
        kind, status = "way", "on the way to the best answer"
    elif record["backtracked"]:
        kind, status = "back", "searched and left again"
    elif record["selected"]:
        kind, status = "kept", "kept"
    facts = [status]
    if number in answers:
        facts.append(f"answer {answers.index(number) + 1}")
    if record["finished"]:
        facts.append({True: "right", False: "wrong", None: "not checked"}[record["solved"]])
    if record["duplicate_of"] is not None:
        facts.append(f"same state as #{int(record['duplicate_of'])}")
    facts += [*_value(record), f"#{number}"]
    if record["order"] is not None:
        facts.append(f"expanded as number {int(record['order']) + 1}")
    thought = str(record["thought"]) if parent is not None else "The problem"
    if record["state"]:
        facts.append(f"state: {record['state']}")
    return NodeView(number, None if parent is None else int(parent), int(record["depth"]), thought, kind, tuple(facts))


def _value(record: Mapping[str, Any]) -> list[str]:
    value = record["value"]
    if value is None:
        return []
    counts = ", ".join(f"{int(count)} {word}" for word, count in record["judgements"].items() if word != "other votes")
    judgements = counts.removeprefix("1 ") if counts.startswith("1 certainly") else counts
    words = f"value {float(value):.4g}" if math.isfinite(value) else "value unknown"
    return [f"{words} ({judgements})" if judgements else words, *(["value from the cache"] if record["cached"] else [])]


def _statistics(details: Mapping[str, Any]) -> list[str]:
    budget, cache, options = details["budget"], details["cache"], details["options"]
    calls, tokens = _of(budget["calls"], budget["call_budget"]), _of(budget["tokens"], budget["token_budget"])
    how = f"{options['algorithm']}, {options['generate']}, {options['evaluate']}, {options['select']}"
    return [
        f"{len(details['nodes'])} states ({how}).",
        f"{calls} calls and {tokens} generated tokens; {int(cache['hits'])} values came from the cache.",
        f"{int(details['rejected']['count'])} lines of the model were no possible thoughts.",
        str(budget["note"]),
    ]


def _of(spent: Any, budget: Any) -> str:
    return f"{int(spent):,}" if budget is None else f"{int(spent):,} of {int(budget):,}"
