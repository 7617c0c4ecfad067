"""Evaluation: what the candidates of one comparison are worth, by values or by votes."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.calls import Calls
from esamp.search.tree_of_thoughts.prompts import WEIGHTS, Prompts
from esamp.search.tree_of_thoughts.tree import Node, State, Tree

UNREAD = "unread"
"""the judgement of a text that holds none: it counts nothing"""


@dataclass
class Evaluator:
    """Values nodes.

    By value: v(s) = sum over n_evaluate texts of the weight of the verdict in each. States with equal keys are worth
    the same: each is judged once in a search, and found in the cache afterwards. By vote: v(s) = votes for s, of
    n_evaluate on each ballot. What the prompts know for certain is not asked: v(s) = n_evaluate times the weight.
    """

    prompts: Prompts
    calls: Calls
    options: TreeOfThoughtsOptions
    apart: bool = False
    """whether states that are worth the same stay apart where they lead to different answers"""
    hits: int = 0
    _cache: dict[Hashable, tuple[float, Counter[str]]] = field(default_factory=dict)

    def evaluate(self, tree: Tree, nodes: Sequence[Node]) -> None:
        """Set the value of every node for which the budget suffices, and say which ones are equal."""
        self._mark_duplicates(nodes)
        unknown = []
        for node in nodes:
            verdict = self.prompts.known(node.state)
            if verdict is None:
                unknown.append(node)
            else:
                node.value = self.options.n_evaluate * WEIGHTS[verdict]
                node.judgements = Counter({f"certainly {verdict}": 1})
        if unknown and self.options.evaluate == "value":
            self._value(unknown)
        elif unknown:
            self._vote(tree, [node for node in unknown if node.duplicate_of is None])

    @property
    def valued(self) -> int:
        """Different states that the model was asked to value."""
        return len(self._cache)

    def same(self, state: State) -> Hashable:
        """Equal for states of which the search follows only one."""
        return self.prompts.identity(state) if self.apart else self.prompts.key(state)

    def _mark_duplicates(self, nodes: Sequence[Node]) -> None:
        first: dict[Hashable, int] = {}
        for node in nodes:
            found = first.setdefault(self.same(node.state), node.id)
            node.duplicate_of = None if found == node.id else found

    def _value(self, nodes: Sequence[Node]) -> None:
        keys = [self.prompts.key(node.state) for node in nodes]
        asked: dict[Hashable, Node] = {}
        for key, node in zip(keys, nodes, strict=True):
            if key not in self._cache:
                asked.setdefault(key, node)
        asks = [self.prompts.value(node.state) for node in asked.values()]
        replies = self.calls.make("evaluate", asks, self.options.n_evaluate, whole=True)
        for (key, node), reply in zip(asked.items(), replies, strict=True):
            if reply:
                verdicts = [self.prompts.read_value(node.state, sample.text) for sample in reply]
                value = sum(WEIGHTS[verdict] for verdict in verdicts if verdict is not None)
                self._cache[key] = value, Counter(verdict or UNREAD for verdict in verdicts)
        for key, node in zip(keys, nodes, strict=True):
            if key in self._cache:
                node.value, node.judgements = self._cache[key]
                node.cached = asked.get(key) is not node
                self.hits += node.cached

    def _vote(self, tree: Tree, nodes: Sequence[Node]) -> None:
        if len(nodes) == 1:  # nothing to choose between
            nodes[0].value = float(self.options.n_evaluate)
            return
        states = [node.state for node in nodes]
        ballots = self.prompts.ballots(states, [tree.parent(node).state for node in nodes])
        asks = [ballot.ask for ballot in ballots]
        replies = self.calls.make("evaluate", asks, self.options.n_evaluate, whole=True)
        for ballot, reply in zip(ballots, replies, strict=True):
            if not reply:
                continue
            votes = [self.prompts.read_vote(ballot, states, sample.text) for sample in reply]
            for place in ballot.candidates:
                count = votes.count(place)
                nodes[place].value = float(count)
                nodes[place].judgements = Counter(
                    {"votes": count, "other votes": len(votes) - count - votes.count(None)}
                )
                if unread := votes.count(None):
                    nodes[place].judgements[UNREAD] = unread
