"""`Cell`: one model, task, arm, group size and seed of a study, named by a hash of everything its samples depend on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from esamp.engines.base import Request
from esamp.runs.identity import json_digest
from esamp.study.arm import Arm
from esamp.study.config import Study
from esamp.study.schema import ModelSpec, TaskSpec
from esamp.tasks import registry as tasks
from esamp.tasks.base import Item

UNHASHED_TASK_OPTIONS = frozenset({"data"})
"""Task options that do not count for a cell's key: the file of the problems. Records have hashes of their problems."""
KEY_DIGITS = 24
"""Hexadecimal digits of the keys of cells and problems."""


@dataclass(frozen=True)
class Cell:
    """All groups that differ only in their problem."""

    model: ModelSpec
    task: TaskSpec
    arm: Arm
    n: int
    """samples of a group"""
    seed: int
    traces: bool = False
    """whether measurements of every token are kept"""

    def settings(self) -> dict[str, Any]:
        """Everything except the problem on which the samples depend, as JSON."""
        return {
            "model": self.model.settings(),
            "task": {
                "task": self.task.task,
                "options": {
                    name: value for name, value in self.task.options.items() if name not in UNHASHED_TASK_OPTIONS
                },
            },
            "method": self.arm.method,
            "options": self.arm.options.model_dump(mode="json"),
            "sampling": self.arm.sampling.model_dump(mode="json"),
            "n": self.n,
            "seed": self.seed,
            **({"traces": True} if self.traces else {}),  # keys of cells without traces predate this setting
        }

    @cached_property
    def key(self) -> str:
        """The cell's name in the store, a hash of its settings."""
        return json_digest(self.settings(), KEY_DIGITS)

    @property
    def title(self) -> str:
        """One line that describes the cell to readers."""
        return f"{self.model.name}, {self.task.name}, {self.arm.label}, {self.n} samples, seed {self.seed}"

    def request(self, item: Item) -> Request:
        """The engine's request for one problem."""
        chat = tasks.get(self.task.task).chat and self.model.chats()
        prompt = ({"role": "user", "content": item.prompt},) if chat and isinstance(item.prompt, str) else item.prompt
        return self.arm.request(item.id, prompt, self.n, self.seed)


def cells(study: Study) -> Iterator[Cell]:
    """All cells, ordered by model, so that each model is loaded once, then by task, group size and seed."""
    for model in study.models:
        for task in study.tasks:
            for n in study.groups:
                for seed in study.seeds:
                    for arm in study.arms:
                        yield Cell(model, task, arm, n, seed, study.traces)


def item_key(item: Item) -> str:
    """The key of a problem, a hash of its content. It reveals nothing of a private problem."""
    return json_digest([item.id, item.prompt, dict(item.data)], KEY_DIGITS)
