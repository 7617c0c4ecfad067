"""The finished groups of a study, ready to be compared: the same problems and seeds for every arm."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from esamp.errors import InputError
from esamp.study.config import Study
from esamp.study.grid import cells, item_key
from esamp.study.measuring import attach
from esamp.study.records import Record
from esamp.study.run import Problems
from esamp.study.store import Store

Result = TypeVar("Result")
Groups = Mapping[int, Mapping[str, Record]]
"""By seed and id of the problem."""


@dataclass(frozen=True)
class Block:
    """All arms on one model and task with one group size."""

    model: str
    task: str
    n: int
    items: tuple[str, ...]
    """problems that every arm has for every seed"""
    missing: int
    """problems that some arm does not have yet"""
    arms: Mapping[str, Groups]
    graded: bool = True
    """whether samples can be right"""
    results: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """what has been computed of it (`once`)"""

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.model}, {self.task}, groups of {self.n}"

    def once(self, what: Hashable, compute: Callable[[], Result]) -> Result:
        """Compute `what` when it is first asked for: tables, figures and the page show the same numbers."""
        if what not in self.results:
            self.results[what] = compute()
        result: Result = self.results[what]
        return result


def load(study: Study, store: Store, problems: Mapping[str, Problems]) -> list[Block]:
    """Read everything that is finished. A comparison is paired, so a problem that one arm lacks is left out of all.

    Raises:
        InputError: nothing at all is finished, or a file is damaged.
    """
    found: dict[tuple[str, str, int], dict[str, dict[int, dict[str, Record]]]] = {}
    for cell in cells(study):
        keys = {item_key(item): item.id for item in problems[cell.task.name].items}
        lines = {key: Record.of_json(line) for key, line in store.read(cell).items() if key in keys}
        records = {keys[key]: record for key, record in attach(study, store, problems, cell, lines).items()}
        arms = found.setdefault((cell.model.name, cell.task.name, cell.n), {})
        arms.setdefault(cell.arm.label, {})[cell.seed] = records
    blocks = []
    for (model, task, n), arms in found.items():
        wanted = [item.id for item in problems[task].items]
        common = [item for item in wanted if all(item in own for seeds in arms.values() for own in seeds.values())]
        blocks.append(Block(model, task, n, tuple(common), len(wanted) - len(common), arms, problems[task].task.graded))
    if not any(block.items for block in blocks):
        raise InputError(f"no problem is finished by all methods in {store.root}: esamp study run does what is missing")
    return [block for block in blocks if block.items]
