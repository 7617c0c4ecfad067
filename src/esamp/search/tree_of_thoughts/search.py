"""The two searches of the paper: breadth first with a beam, and depth first with pruning and backtracking."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.thoughts import StateEvaluator, ThoughtGenerator
from esamp.search.tree_of_thoughts.tree import Node, Tree


@dataclass
class Search:
    """One search through one tree, with `generator` as the paper's G(p, s, k) and `evaluator` as its V(p, S)."""

    tree: Tree
    generator: ThoughtGenerator
    evaluator: StateEvaluator
    options: TreeOfThoughtsOptions
    rng: random.Random
    wanted: int
    """number of different answers after which a depth-first search stops"""
    _entered: dict[Hashable, int] = field(default_factory=dict)

    def run(self) -> None:
        """Expand the tree until the search ends."""
        if self.options.algorithm == "bfs":
            self._breadth_first()
        else:
            self._depth_first(self.tree.root)

    # Algorithm 1 of Yao et al. 2023: S_t = the b best of all [s, z] with s in S_{t-1} and z in G(s).

    def _breadth_first(self) -> None:
        frontier = [self.tree.root]
        while frontier:
            children = self.generator.expand(self.tree, frontier)
            self.evaluator.evaluate(self.tree, children)
            alive = [node for node in children if node.duplicate_of is None and not self._hopeless(node)]
            kept = self._choose(alive)
            for node in children:
                node.pruned = True
            for node in kept:
                node.selected, node.pruned = True, False
            frontier = [node for node in kept if not node.state.finished]

    # Algorithm 2: for s' in the children of s, best first: search below s' if v(s') is above the threshold.

    def _depth_first(self, node: Node) -> bool:
        """Search below a node; True as soon as enough answers are found. Equal states are entered only once."""
        self._entered[self.evaluator.merge_key(node.state)] = node.id
        children = self.generator.expand(self.tree, [node])
        self.evaluator.evaluate(self.tree, children)
        chosen = self._choose([child for child in children if self._above_threshold(child)])
        for child in children:
            child.pruned = not any(child is other for other in chosen)
        for child in chosen:
            if (equal := self._entered.get(self.evaluator.merge_key(child.state))) is not None:
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

    def _above_threshold(self, node: Node) -> bool:
        if node.duplicate_of is not None or self._hopeless(node) or node.value is None:
            return False
        return node.value / self.options.n_evaluate > self.options.value_threshold

    def _choose(self, nodes: Sequence[Node]) -> list[Node]:
        values = [node.value for node in nodes]
        return [nodes[place] for place in choose(values, self.options.breadth, self.options.select, self.rng)]

    def _hopeless(self, node: Node) -> bool:
        """Whether a partial answer certainly leads nowhere. Wrong answers are kept: they are still answers."""
        return not node.state.finished and self.evaluator.prompts.known_rating(node.state) == "impossible"

    def answers(self) -> list[Node]:
        """The selected finished nodes, one for each different answer: correct ones first, then by value."""
        finished = [node for node in self.tree.nodes if node.state.finished and node.selected]
        return _distinct(sorted(finished, key=_rank))

    def best(self, count: int) -> list[Node]:
        """At most `count` answers; without an answer, the deepest states that were not rejected."""
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


# ---- selection of states by value


def choose(
    values: Sequence[float | None], count: int, how: Literal["greedy", "sampled"], rng: random.Random
) -> list[int]:
    """The places of at most `count` values, by `greedy` or `sampled`. States without a value come last."""
    return greedy(values, count) if how == "greedy" else sampled(values, count, rng)


def greedy(values: Sequence[float | None], count: int) -> list[int]:
    """The places of the highest values; equal values stay in their order."""
    return sorted(range(len(values)), key=lambda place: -_weight(values[place]))[:count]


def sampled(values: Sequence[float | None], count: int, rng: random.Random) -> list[int]:
    """Places drawn one after another without replacement, each with p(i) = v_i / sum of the remaining v.

    If only zeros remain, they are equally likely. The paper's code draws with replacement, which may follow a state
    several times. Without replacement the first draw has the same distribution, and b draws give b states.
    """
    remaining = list(range(len(values)))
    drawn: list[int] = []
    while remaining and len(drawn) < count:
        weights = [max(_weight(values[place]), 0.0) for place in remaining]
        [place] = rng.choices(remaining, weights if any(weights) else None)
        remaining.remove(place)
        drawn.append(place)
    return drawn


def _weight(value: float | None) -> float:
    return -1.0 if value is None else value
