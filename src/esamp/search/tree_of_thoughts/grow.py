"""Growth: the children of states, asked for together, and the books of what could not be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.calls import Calls
from esamp.search.tree_of_thoughts.prompts import Ask, Prompts
from esamp.search.tree_of_thoughts.tree import Node, State, Tree

SHOWN, WIDTH = 10, 120
"""How many of the rejected lines are shown as examples, and how many characters of each."""


@dataclass
class Grower:
    """Asks for the thoughts that follow, and makes children of those that can be used."""

    prompts: Prompts
    calls: Calls
    options: TreeOfThoughtsOptions
    levels: int
    rejected: int = 0
    examples: list[str] = field(default_factory=list)

    def grow(self, tree: Tree, parents: Sequence[Node]) -> list[Node]:
        """The children of all parents, in the order of their parents and of the texts."""
        last: list[Node] = []
        more: list[Node] = []
        for node in parents:
            levels = self.levels - node.depth
            if levels > 0:
                tree.visit(node)
                (last if self.prompts.answers_next(node.state, levels) else more).append(node)
        return self._answers(tree, last) + self._thoughts(tree, more)

    def first_ask(self, root: State) -> Ask:
        """The question that every search begins with."""
        if self.prompts.answers_next(root, self.levels):
            return self.prompts.answer(root)
        return self._ask(root)

    def record(self) -> dict[str, Any]:
        """How many lines were no possible thoughts, and some of them."""
        return {"count": self.rejected, "examples": list(self.examples)}

    def _ask(self, state: State) -> Ask:
        return self.prompts.propose(state) if self.options.generate == "propose" else self.prompts.sample(state)

    def _thoughts(self, tree: Tree, parents: Sequence[Node]) -> list[Node]:
        asks = [self._ask(node.state) for node in parents]
        replies = self.calls.make("generate", asks, self.options.draws, whole=False)
        children = []
        for parent, reply in zip(parents, replies, strict=True):
            found: dict[State, tuple[int, ...]] = {}
            for sample in reply:
                reading = self.prompts.read(parent.state, sample.text)
                self._reject(reading.rejected)
                for state in reading.states if self.options.generate == "propose" else reading.states[:1]:
                    found.setdefault(state, sample.token_ids)
            children += [self._add(tree, parent, state, tokens) for state, tokens in found.items()]
        return children

    def _answers(self, tree: Tree, parents: Sequence[Node]) -> list[Node]:
        if self.options.answer_by == "steps":
            composed = [(parent, self.prompts.compose(parent.state)) for parent in parents]
            children = [
                self._add(tree, parent, state, parent.tokens) for parent, state in composed if state is not None
            ]
            parents = [parent for parent, state in composed if state is None]
        else:
            children = []
        asks = [self.prompts.answer(node.state) for node in parents]
        draws = 1 if self.prompts.answer_once else self.options.draws
        replies = self.calls.make("answer", asks, draws, whole=False)
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
        self.examples += [text[:WIDTH] for text in texts[: SHOWN - len(self.examples)]]
