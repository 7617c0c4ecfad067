"""`Cell`: one model, one task, one way to decode, one group size, one seed. Named by a hash of all that decides it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from esamp.engines.base import Request
from esamp.errors import InputError
from esamp.study.config import Arm, Study
from esamp.study.specs import ModelSpec, TaskSpec
from esamp.tasks import registry as tasks
from esamp.tasks.base import Item

PLACEMENT = frozenset({"device", "batch_rows", "base_url", "label"})
"""What a model's samples do not depend on, beyond rounding."""
UNHASHED = frozenset({"data"})
"""Where a task's problems are read from. Each record has a hash of its problem instead."""


@dataclass(frozen=True)
class Cell:
    """All groups of samples that differ by their problem alone."""

    model: ModelSpec
    task: TaskSpec
    arm: Arm
    n: int
    """samples of a group"""
    seed: int
    traces: bool = False
    """whether every token is measured"""

    def settings(self) -> dict[str, Any]:
        """Everything that the samples depend on beside the problem, as JSON."""
        return {
            "model": {**self.model.model_dump(mode="json", exclude=set(PLACEMENT)), "chat": chats(self.model)},
            "task": {
                "task": self.task.task,
                "options": {name: v for name, v in self.task.options.items() if name not in UNHASHED},
            },
            "method": self.arm.method,
            "options": self.arm.options.model_dump(mode="json"),
            "sampling": self.arm.sampling.model_dump(mode="json"),
            "n": self.n,
            "seed": self.seed,
            **({"traces": True} if self.traces else {}),  # without, it is the cell that it always was
        }

    @cached_property
    def key(self) -> str:
        """Its name in the store: 24 hexadecimal digits of a hash of its settings."""
        text = json.dumps(self.settings(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.model.name}, {self.task.name}, {self.arm.label}, {self.n} samples, seed {self.seed}"

    def request(self, item: Item) -> Request:
        """What the engine gets for one problem."""
        chat = tasks.get(self.task.task).chat and chats(self.model)
        prompt = ({"role": "user", "content": item.prompt},) if chat and isinstance(item.prompt, str) else item.prompt
        return Request(item.id, prompt, self.n, self.arm.sampling, self.arm.method, self.arm.options, self.seed)


def cells(study: Study) -> Iterator[Cell]:
    """All cells, model by model, so that each model is loaded once; the seeds of a comparison next to each other."""
    for model in study.models:
        for task in study.tasks:
            for n in study.groups:
                for seed in study.seeds:
                    for arm in study.arms:
                        yield Cell(model, task, arm, n, seed, study.traces)


def chats(model: ModelSpec) -> bool:
    """Whether the model's prompts go through a chat template.

    Raises:
        InputError: the file does not say so, and the model's tokenizer cannot be loaded.
    """
    try:
        return model.chats()
    except InputError as error:
        raise InputError(f"{error}; if only its chat template is missing, write chat = true or chat = false") from error


def item_key(item: Item) -> str:
    """Names a problem by its content: 24 hexadecimal digits. Tells nothing of a problem that nobody knows."""
    text = json.dumps([item.id, item.prompt, dict(item.data)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:24]
