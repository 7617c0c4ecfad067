"""Presentations: which groups a judge sees together, in which order, under which letters.

A round of a comparison of k groups has k presentations. A random order of the groups is drawn for the round and rotated
by one place from presentation to presentation. Each group is therefore shown once at each place: a judge's preference
for a place cancels out and can be measured. For two groups these are both orders. The samples of a group have the same
random order in all presentations of a round.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from esamp.judge.groups import ProblemGroups
from esamp.judge.options import JudgeOptions
from esamp.judge.prompt import ShownGroups, judge_prompt, letters


@dataclass(frozen=True)
class Presentation:
    """Some groups of one problem, shown to one judge in one order."""

    groups: ProblemGroups
    judge: str
    arms: tuple[str, ...]
    """the arms compared, in the study's order"""
    round: int
    turn: int
    """number of the presentation within its round"""
    options: JudgeOptions

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The arms in the order in which they are shown; the first one is group A."""
        drawn = list(self.arms)
        self._random("order").shuffle(drawn)
        return (*drawn[self.turn :], *drawn[: self.turn])

    @property
    def names(self) -> str:
        """The letters of the groups, as one string."""
        return letters(len(self.arms))

    def shown(self) -> ShownGroups:
        """The problem and the groups as the judge sees them, cut to the options' limits."""
        options, cut = self.options, set()
        shown = []
        for number, arm in enumerate(self.order):
            texts = list(self.groups.texts[arm])
            self._random(f"samples of {arm}").shuffle(texts)
            texts = texts[: options.samples]
            cut |= {(number, index) for index, text in enumerate(texts) if len(text) > options.sample_chars}
            shown.append([_encodable(text[: options.sample_chars]) for text in texts])
        problem = _encodable(self.groups.problem[-options.prompt_chars :])
        return ShownGroups(problem, shown, frozenset(cut), options.sample_chars)

    def prompt(self) -> str:
        """The complete text that the judge reads."""
        return judge_prompt(self.shown(), self.options.criterion, self.options.mode)

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits that identify the presentation: a hash of judge, prompt, order and settings."""
        values = [self.judge, *self._where, self.round, self.turn, self.order, self.options.settings(), self.prompt()]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def _where(self) -> tuple[str | int, ...]:
        block = self.groups.block
        return block.model, block.task, block.n, self.groups.item, self.groups.seed

    def _random(self, purpose: str) -> random.Random:
        """A generator that is the same for all judges and all presentations of a round."""
        return random.Random(json.dumps([self.options.seed, *self._where, self.arms, self.round, purpose]))


def presentations(problems: Sequence[ProblemGroups], options: JudgeOptions) -> Iterator[Presentation]:
    """All presentations that the options describe, problem by problem."""
    for groups in problems:
        arms = tuple(groups.texts)
        comparisons = list(itertools.combinations(arms, 2)) if options.mode == "pairwise" else [arms]
        for number in range(options.rounds):
            for judge in dict.fromkeys(options.judge):
                for compared in comparisons:
                    for turn in range(len(compared)):
                        yield Presentation(groups, judge, compared, number, turn, options)


def _encodable(text: str) -> str:
    """`text` with lone surrogates replaced, which UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()
