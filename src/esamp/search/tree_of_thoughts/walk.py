"""The two searches of the paper: breadth first with a beam, and depth first with pruning and backtracking."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.evaluate import Evaluator
from esamp.search.tree_of_thoughts.grow import Grower
from esamp.search.tree_of_thoughts.select import choose
from esamp.search.tree_of_thoughts.tree import Node, Tree


@dataclass
class Walk:
    """One search through one tree."""

    tree: Tree
    grower: Grower
    evaluator: Evaluator
    options: TreeOfThoughtsOptions
    rng: random.Random
    wanted: int
    """different answers after which a depth-first search ends"""
    _entered: dict[Hashable, int] = field(default_factory=dict)

    def run(self) -> None:
        """Grow the tree until the search ends."""
        if self.options.algorithm == "bfs":
            self._breadth_first()
        else:
            self._depth_first(self.tree.root)

    # Algorithm 1 of Yao et al. 2023: S_t = the b best of all [s, z] with s in S_{t-1} and z in G(s).

    def _breadth_first(self) -> None:
        frontier = [self.tree.root]
        while frontier:
            children = self.grower.grow(self.tree, frontier)
            self.evaluator.evaluate(self.tree, children)
            alive = [node for node in children if node.duplicate_of is None and not self._dead(node)]
            kept = self._chosen(alive)
            for node in children:
                node.pruned = True
            for node in kept:
                node.selected, node.pruned = True, False
            frontier = [node for node in kept if not node.state.finished]

    # Algorithm 2: for s' in the children of s, best first: go into s' if v(s') is above the threshold.

    def _depth_first(self, node: Node) -> bool:
        """Search below a node; whether enough answers were found. No state equal to one entered before is entered."""
        self._entered[self.evaluator.same(node.state)] = node.id
        children = self.grower.grow(self.tree, [node])
        self.evaluator.evaluate(self.tree, children)
        alive = [child for child in children if self._passes(child)]
        chosen = self._chosen(alive)
        for child in children:
            child.pruned = not any(child is other for other in chosen)
        for child in chosen:
            if (equal := self._entered.get(self.evaluator.same(child.state))) is not None:
                child.duplicate_of, child.pruned = equal, True
                continue
            child.selected = True
            if child.state.finished:
                enough = len(self.answers()) >= self.wanted
            else:
                enough = self._depth_first(child)
                child.backtracked = not enough
            if enough:
                return True
        return False

    def _passes(self, node: Node) -> bool:
        if node.duplicate_of is not None or self._dead(node) or node.value is None:
            return False
        return node.value / self.options.n_evaluate > self.options.value_threshold

    def _chosen(self, nodes: Sequence[Node]) -> list[Node]:
        values = [node.value for node in nodes]
        return [nodes[place] for place in choose(values, self.options.breadth, self.options.select, self.rng)]

    def _dead(self, node: Node) -> bool:
        """Whether it is certain that nothing comes of a state; a wrong answer is at least an answer."""
        return not node.state.finished and self.evaluator.prompts.known(node.state) == "impossible"

    def answers(self) -> list[Node]:
        """Finished nodes that the search kept, each answer once, the best first: solved ones, then by value."""
        finished = [node for node in self.tree.nodes if node.state.finished and node.selected]
        return _distinct(sorted(finished, key=_rank))

    def best(self, count: int) -> list[Node]:
        """At most `count` answers; where there is none, the furthest states of the search instead."""
        if answers := self.answers():
            return answers[:count]
        alive = [node for node in self.tree.nodes if node.selected or node.value is None]
        deepest = max(node.depth for node in alive)
        return sorted((node for node in alive if node.depth == deepest), key=_rank)[:count]


def _rank(node: Node) -> tuple[bool, float]:
    return not node.state.solved, -1.0 * (node.value or 0.0)


def _distinct(nodes: Sequence[Node]) -> list[Node]:
    first: dict[str, Node] = {}
    for node in nodes:
        first.setdefault(node.canonical, node)
    return list(first.values())
