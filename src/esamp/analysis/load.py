"""The finished groups of a study, ready to be compared: the same problems and seeds for every arm."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from esamp.analysis.measuring import attach
from esamp.errors import InputError
from esamp.runs.failures import FailureRecord, reasons
from esamp.study.config import Study
from esamp.study.grid import cells, item_key
from esamp.study.records import Record
from esamp.study.run import Problems
from esamp.study.store import Store

Result = TypeVar("Result")
Groups = Mapping[int, Mapping[str, Record]]
"""By seed and id of the problem."""


@dataclass(frozen=True)
class FailedGroup:
    """A group without samples, because its request failed when it was last tried."""

    arm: str
    seed: int
    item: str
    failure: FailureRecord


@dataclass(frozen=True)
class Block:
    """All arms on one model and task with one group size."""

    model: str
    task: str
    n: int
    items: tuple[str, ...]
    """problems that every arm has for every seed"""
    missing: int
    """problems that some arm does not have, those that failed included"""
    arms: Mapping[str, Groups]
    graded: bool = True
    """whether samples can be right"""
    failed: tuple[FailedGroup, ...] = ()
    results: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """what has been computed of it (`once`)"""

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.model}, {self.task}, groups of {self.n}"

    @property
    def left_out(self) -> str:
        """Which problems are left out of all arms and why, in sentences; empty if none are."""
        failed = len({group.item for group in self.failed})
        said = []
        if unfinished := self.missing - failed:
            said.append(f"{unfinished} more {_are(unfinished)} not finished by all methods and left out.")
        if failed:
            groups = f"{len(self.failed)} group{'s' * (len(self.failed) != 1)} failed"
            words = reasons(group.failure for group in self.failed)
            said.append(f"{failed} more {_are(failed)} left out of all methods because {groups}: {words}.")
        return " ".join(said)

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
    failed: dict[tuple[str, str, int], list[FailedGroup]] = {}
    for cell in cells(study):
        keys = {item_key(item): item.id for item in problems[cell.task.name].items}
        there, place = store.contents(cell), (cell.model.name, cell.task.name, cell.n)
        lines = {key: record for key, record in there.records.items() if key in keys}
        records = {keys[key]: record for key, record in attach(study, store, problems, cell, lines).items()}
        found.setdefault(place, {}).setdefault(cell.arm.label, {})[cell.seed] = records
        failed.setdefault(place, []).extend(
            FailedGroup(cell.arm.label, cell.seed, keys[key], failure)
            for key, failure in there.failed.items()
            if key in keys
        )
    blocks = []
    for place, arms in found.items():
        model, task, n = place
        wanted = [item.id for item in problems[task].items]
        common = [item for item in wanted if all(item in own for seeds in arms.values() for own in seeds.values())]
        left, graded = len(wanted) - len(common), problems[task].task.graded
        blocks.append(Block(model, task, n, tuple(common), left, arms, graded, tuple(failed[place])))
    if not any(block.items for block in blocks):
        groups = [group.failure for own in failed.values() for group in own]
        told = f"; {len(groups)} groups failed: {reasons(groups)}" if groups else ""
        raise InputError(
            f"no problem is finished by all methods in {store.root}: esamp study run does what is missing{told}"
        )
    return [block for block in blocks if block.items]


def _are(problems: int) -> str:
    return "problem is" if problems == 1 else "problems are"
