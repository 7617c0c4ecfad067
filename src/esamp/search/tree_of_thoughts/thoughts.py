"""The thought generator and the state evaluator: the paper's G(p, s, k) and V(p, S)."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.budget import BudgetedCalls
from esamp.search.tree_of_thoughts.prompts import WEIGHTS, Prompts, Query
from esamp.search.tree_of_thoughts.tree import Node, State, Tree

MAX_EXAMPLES, EXAMPLE_LENGTH = 10, 120
"""Number of rejected lines that are reported, and most characters of each."""
UNREAD = "unread"
"""the judgement of a text without a rating or a vote; it adds nothing to a value"""


@dataclass
class ThoughtGenerator:
    """Asks the model for next thoughts, and adds the valid ones to the tree."""

    prompts: Prompts
    calls: BudgetedCalls
    options: TreeOfThoughtsOptions
    levels: int
    rejected: int = 0
    examples: list[str] = field(default_factory=list)

    def expand(self, tree: Tree, parents: Sequence[Node]) -> list[Node]:
        """The new children of all parents, in the order of the parents and of the thoughts in each text."""
        to_answer: list[Node] = []
        to_continue: list[Node] = []
        for node in parents:
            levels = self.levels - node.depth
            if levels > 0:
                tree.mark_expanded(node)
                (to_answer if self.prompts.answers_next(node.state, levels) else to_continue).append(node)
        return self._answers(tree, to_answer) + self._thoughts(tree, to_continue)

    def first_query(self, root: State) -> Query:
        """The first query of the search."""
        if self.prompts.answers_next(root, self.levels):
            return self.prompts.answer(root)
        return self._query(root)

    def record(self) -> dict[str, Any]:
        """The number of lines that were no valid thoughts, and some of them, as JSON values."""
        return {"count": self.rejected, "examples": list(self.examples)}

    def _query(self, state: State) -> Query:
        return self.prompts.propose(state) if self.options.generate == "propose" else self.prompts.sample(state)

    def _thoughts(self, tree: Tree, parents: Sequence[Node]) -> list[Node]:
        queries = [self._query(node.state) for node in parents]
        replies = self.calls.run("generate", queries, self.options.draws, all_or_none=False)
        children = []
        for parent, reply in zip(parents, replies, strict=True):
            found: dict[State, tuple[int, ...]] = {}
            for sample in reply:
                parsed = self.prompts.read(parent.state, sample.text)
                self._reject(parsed.rejected)
                for state in parsed.states if self.options.generate == "propose" else parsed.states[:1]:
                    found.setdefault(state, sample.token_ids)
            children += [self._add(tree, parent, state, tokens) for state, tokens in found.items()]
        return children

    def _answers(self, tree: Tree, parents: Sequence[Node]) -> list[Node]:
        children = []
        if self.options.answer_by == "steps":
            composed = [(parent, self.prompts.compose(parent.state)) for parent in parents]
            children += [
                self._add(tree, parent, state, parent.tokens) for parent, state in composed if state is not None
            ]
            parents = [parent for parent, state in composed if state is None]
        queries = [self.prompts.answer(node.state) for node in parents]
        draws = 1 if self.prompts.answer_once else self.options.draws
        replies = self.calls.run("answer", queries, draws, all_or_none=False)
        for parent, reply in zip(parents, replies, strict=True):
            found: dict[State, tuple[int, ...]] = {}
            for sample in reply:
                found.setdefault(self.prompts.read_answer(parent.state, sample.text), sample.token_ids)
            children += [self._add(tree, parent, state, tokens) for state, tokens in found.items()]
        return children

    def _add(self, tree: Tree, parent: Node, state: State, tokens: tuple[int, ...]) -> Node:
        canonical = self.prompts.canonical(state) if state.finished else ""
        return tree.add(parent, state, label=self.prompts.label(state), tokens=tokens, canonical=canonical)

    def _reject(self, texts: Sequence[str]) -> None:
        self.rejected += len(texts)
        self.examples += [text[:EXAMPLE_LENGTH] for text in texts[: MAX_EXAMPLES - len(self.examples)]]


@dataclass
class StateEvaluator:
    """Sets the values of nodes.

    By value: v(s) = sum over n_evaluate texts of the weight of each rating. States with equal keys have the same value:
    it is computed once in a search and cached. By vote: v(s) = number of votes for s among n_evaluate on each ballot.
    States whose rating is certain need no call: v(s) = n_evaluate times the weight of that rating.
    """

    prompts: Prompts
    calls: BudgetedCalls
    options: TreeOfThoughtsOptions
    several_answers: bool = False
    """whether states of equal value are kept apart if they lead to different answers"""
    hits: int = 0
    """nodes whose value was cached"""
    _cache: dict[Hashable, tuple[float, Counter[str]]] = field(default_factory=dict)

    def evaluate(self, tree: Tree, nodes: Sequence[Node]) -> None:
        """Mark duplicates among `nodes`, and set the value of every node for which the budget suffices."""
        self._mark_duplicates(nodes)
        unknown = []
        for node in nodes:
            rating = self.prompts.known_rating(node.state)
            if rating is None:
                unknown.append(node)
            else:
                node.value = self.options.n_evaluate * WEIGHTS[rating]
                node.judgements = Counter({f"certainly {rating}": 1})
        if unknown and self.options.evaluate == "value":
            self._value(unknown)
        elif unknown:
            self._vote(tree, [node for node in unknown if node.duplicate_of is None])

    @property
    def cached_states(self) -> int:
        """Number of different states that the model has evaluated."""
        return len(self._cache)

    def merge_key(self, state: State) -> Hashable:
        """Equal for states of which the search follows only one."""
        return self.prompts.identity(state) if self.several_answers else self.prompts.key(state)

    def _mark_duplicates(self, nodes: Sequence[Node]) -> None:
        first: dict[Hashable, int] = {}
        for node in nodes:
            original = first.setdefault(self.merge_key(node.state), node.id)
            node.duplicate_of = None if original == node.id else original

    def _value(self, nodes: Sequence[Node]) -> None:
        keys = [self.prompts.key(node.state) for node in nodes]
        new: dict[Hashable, Node] = {}
        for key, node in zip(keys, nodes, strict=True):
            if key not in self._cache:
                new.setdefault(key, node)
        queries = [self.prompts.value(node.state) for node in new.values()]
        replies = self.calls.run("evaluate", queries, self.options.n_evaluate, all_or_none=True)
        for (key, node), reply in zip(new.items(), replies, strict=True):
            if reply:
                ratings = [self.prompts.read_value(node.state, sample.text) for sample in reply]
                value = sum(WEIGHTS[rating] for rating in ratings if rating is not None)
                self._cache[key] = value, Counter(rating or UNREAD for rating in ratings)
        for key, node in zip(keys, nodes, strict=True):
            if key in self._cache:
                node.value, node.judgements = self._cache[key]
                node.cached = new.get(key) is not node
                self.hits += node.cached

    def _vote(self, tree: Tree, nodes: Sequence[Node]) -> None:
        if len(nodes) == 1:  # the only candidate gets all votes without a call
            nodes[0].value = float(self.options.n_evaluate)
            return
        states = [node.state for node in nodes]
        ballots = self.prompts.ballots(states, [tree.parent(node).state for node in nodes])
        queries = [ballot.query for ballot in ballots]
        replies = self.calls.run("evaluate", queries, self.options.n_evaluate, all_or_none=True)
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
