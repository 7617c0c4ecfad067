"""`Block`: the finished groups of a study that are compared, with the same problems and seeds for every arm."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from esamp.analysis.measurement_run import attach
from esamp.errors import InputError
from esamp.runs.failures import FailureRecord, reasons
from esamp.study.config import Study
from esamp.study.grid import cells, item_key
from esamp.study.records import Record
from esamp.study.run import TaskProblems
from esamp.study.store import Store

Computed = TypeVar("Computed")
GroupRecords = Mapping[int, Mapping[str, Record]]
"""The records of one arm by seed and problem id."""


@dataclass(frozen=True)
class FailedGroup:
    """A group without samples, because its request failed in its last attempt."""

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
    """ids of the problems that every arm has for every seed"""
    missing: int
    """number of problems that some arm lacks, including failed ones"""
    arms: Mapping[str, GroupRecords]
    graded: bool = True
    """whether the task has right answers"""
    failed: tuple[FailedGroup, ...] = ()
    results: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """the results that `cached` has computed"""

    @property
    def title(self) -> str:
        """One line that describes the block to readers."""
        return f"{self.model}, {self.task}, groups of {self.n}"

    @property
    def left_out(self) -> str:
        """Sentences about the problems that are left out of all arms, with the reasons; empty if there are none."""
        failed = len({group.item for group in self.failed})
        sentences = []
        if unfinished := self.missing - failed:
            sentences.append(f"{unfinished} more {_are(unfinished)} not finished by all methods and left out.")
        if failed:
            groups = f"{len(self.failed)} group{'s' * (len(self.failed) != 1)} failed"
            words = reasons(group.failure for group in self.failed)
            sentences.append(f"{failed} more {_are(failed)} left out of all methods because {groups}: {words}.")
        return " ".join(sentences)

    def cached(self, key: Hashable, compute: Callable[[], Computed]) -> Computed:
        """The result of `compute`, computed once per `key`, so that tables, figures and the page share it."""
        if key not in self.results:
            self.results[key] = compute()
        result: Computed = self.results[key]
        return result


def load(study: Study, store: Store, problems: Mapping[str, TaskProblems]) -> list[Block]:
    """Read all finished groups. Comparisons are paired, so a problem that one arm lacks is left out of all arms.

    Raises:
        InputError: no problem is finished by all arms, or a file is damaged.
    """
    records_by_block: dict[tuple[str, str, int], dict[str, dict[int, dict[str, Record]]]] = {}
    failed: dict[tuple[str, str, int], list[FailedGroup]] = {}
    for cell in cells(study):
        ids = {item_key(item): item.id for item in problems[cell.task.name].items}
        contents, block = store.contents(cell), (cell.model.name, cell.task.name, cell.n)
        drawn = {key: record for key, record in contents.records.items() if key in ids}
        records = {ids[key]: record for key, record in attach(study, store, problems, cell, drawn).items()}
        records_by_block.setdefault(block, {}).setdefault(cell.arm.label, {})[cell.seed] = records
        failed.setdefault(block, []).extend(
            FailedGroup(cell.arm.label, cell.seed, ids[key], failure)
            for key, failure in contents.failed.items()
            if key in ids
        )
    blocks = []
    for (model, task, n), arms in records_by_block.items():
        items = [item.id for item in problems[task].items]
        common = [item for item in items if all(item in own for seeds in arms.values() for own in seeds.values())]
        missing, graded = len(items) - len(common), problems[task].task.graded
        blocks.append(Block(model, task, n, tuple(common), missing, arms, graded, tuple(failed[model, task, n])))
    if not any(block.items for block in blocks):
        groups = [group.failure for own in failed.values() for group in own]
        failures = f"; {len(groups)} groups failed: {reasons(groups)}" if groups else ""
        raise InputError(
            f"no problem is finished by all methods in {store.root}: esamp study run does what is missing{failures}"
        )
    return [block for block in blocks if block.items]


def _are(problems: int) -> str:
    return "problem is" if problems == 1 else "problems are"
