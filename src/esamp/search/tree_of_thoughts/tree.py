"""The tree of states: the thoughts that lead to each state, and what the search did with it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class State:
    """A partial answer."""

    thoughts: tuple[str, ...] = ()
    left: tuple[Fraction, ...] = ()
    """number games: the numbers left after the thoughts"""
    finished: bool = False
    """whether the last thought is the answer"""
    solved: bool | None = None
    """whether the answer is correct; None where that cannot be checked"""


@dataclass
class Node:
    """A state in the tree. `record` gives the fields as JSON."""

    id: int
    parent: int | None
    depth: int
    state: State
    label: str = ""
    """what is left to do, in a few words"""
    tokens: tuple[int, ...] = ()
    """the token ids of the sample that the last thought was read from"""
    value: float | None = None
    """sum over the evaluations, or number of votes; None if the node was not evaluated"""
    judgements: Counter[str] = field(default_factory=Counter)
    """the ratings or votes, with how often each was given"""
    cached: bool = False
    """whether the value is that of an equal state evaluated before"""
    duplicate_of: int | None = None
    """the first node with an equal state among those it was compared with"""
    selected: bool = False
    pruned: bool = False
    backtracked: bool = False
    """dfs: the whole subtree was searched without finding enough answers"""
    order: int | None = None
    """number of nodes expanded before this one; None if this one was not expanded"""
    canonical: str = ""
    """finished states: the same text for equal answers"""

    def record(self) -> dict[str, Any]:
        """The node as JSON values."""
        state = self.state
        return {
            "id": self.id,
            "parent": self.parent,
            "depth": self.depth,
            "thought": state.thoughts[-1] if state.thoughts else "",
            "state": self.label,
            "value": self.value,
            "judgements": dict(self.judgements),
            "cached": self.cached,
            "duplicate_of": self.duplicate_of,
            "selected": self.selected,
            "pruned": self.pruned,
            "backtracked": self.backtracked,
            "order": self.order,
            "finished": state.finished,
            "solved": state.solved,
        }


class Tree:
    """All nodes in the order of their creation. The root is node 0."""

    def __init__(self, root: State, label: str = "") -> None:
        self.nodes = [Node(0, None, 0, root, label, selected=True)]
        self._expanded = 0

    @property
    def root(self) -> Node:
        """The node of the problem without any thoughts."""
        return self.nodes[0]

    def add(self, parent: Node, state: State, *, label: str, tokens: tuple[int, ...], canonical: str = "") -> Node:
        """Add and return a new child of `parent`."""
        node = Node(len(self.nodes), parent.id, parent.depth + 1, state, label, tokens, canonical=canonical)
        self.nodes.append(node)
        return node

    def mark_expanded(self, node: Node) -> None:
        """Set the node's place in the order of expansion."""
        node.order = self._expanded
        self._expanded += 1

    def parent(self, node: Node) -> Node:
        """The parent of a node; the root itself for the root."""
        return self.nodes[node.parent] if node.parent is not None else node

    def path(self, node: Node) -> list[int]:
        """The ids from the root to a node."""
        return [each.id for each in self._ancestors(node)][::-1]

    def _ancestors(self, node: Node) -> Iterator[Node]:
        yield node
        while node.parent is not None:
            node = self.nodes[node.parent]
            yield node
