"""What a drawn tree shows, read from the details of a search. Every text in them may come from a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from esamp.errors import InputError

DEEPEST = 200


@dataclass(frozen=True)
class NodeView:
    """One node, its fate in a word, and the facts about it."""

    id: int
    parent: int | None
    depth: int
    thought: str
    kind: Literal["way", "back", "kept", "cut"]
    """on the way to the best answer; gone into and left again; kept; not kept"""
    facts: tuple[str, ...]
    """the first one says the fate"""


@dataclass(frozen=True)
class TreeView:
    """All nodes, the root first, parents before children."""

    nodes: Sequence[NodeView]
    answers: Sequence[int]
    """nodes of the answers, the best first"""
    books: Sequence[str]
    """what it took: sentences"""

    def children(self) -> Mapping[int, Sequence[NodeView]]:
        """The children of each node, in their order."""
        found: dict[int, list[NodeView]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            if node.parent is not None:
                found[node.parent].append(node)
        return found


def read(details: Mapping[str, Any]) -> TreeView:
    """The tree in `esamp.engines.base.Completion.details`, or in the same read back from a file.

    Raises:
        InputError: there is no tree in them.
    """
    try:
        answers = [int(answer) for answer in details["answers"]]
        way = set(details["paths"][0]) if details["paths"] else set()
        nodes = [_node(record, way, answers) for record in details["nodes"]]
        books = _books(details)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"these details hold no tree of thoughts ({type(error).__name__}: {error})") from None
    for place, node in enumerate(nodes):
        parent = nodes[node.parent] if node.parent is not None and 0 <= node.parent < place else None
        if node.id != place or (parent is None) != (place == 0) or node.depth != (parent.depth + 1 if parent else 0):
            raise InputError(f"these details hold no tree: node {place} is not where its number and depth say")
        if node.depth > DEEPEST:
            raise InputError(f"the tree is deeper than {DEEPEST} levels")
    if not nodes or not all(0 <= answer < len(nodes) for answer in answers):
        raise InputError("these details hold no tree: there is no node, or an answer is none of them")
    return TreeView(nodes, answers, books)


def _node(record: Mapping[str, Any], way: set[int], answers: Sequence[int]) -> NodeView:
    number, parent = int(record["id"]), record["parent"]
    kind: Literal["way", "back", "kept", "cut"] = "cut"
    fate = "not kept" if record["pruned"] else "not reached"
    if number in way:
        kind, fate = "way", "on the way to the best answer"
    elif record["backtracked"]:
        kind, fate = "back", "searched and left again"
    elif record["selected"]:
        kind, fate = "kept", "kept"
    facts = [fate]
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
    said = ", ".join(f"{int(count)} {word}" for word, count in record["judgements"].items() if word != "other votes")
    certain = said.removeprefix("1 ") if said.startswith("1 certainly") else said
    words = f"value {float(value):.4g}" if math.isfinite(value) else "value unknown"
    return [f"{words} ({certain})" if certain else words, *(["value from the cache"] if record["cached"] else [])]


def _books(details: Mapping[str, Any]) -> list[str]:
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
