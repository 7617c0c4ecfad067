"""Running a study: every cell's missing groups, one model after the other."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from esamp.engines import registry as engines
from esamp.engines.base import Completion, Engine, Progress
from esamp.engines.checks import check_active
from esamp.errors import OptionError
from esamp.methods import registry as methods
from esamp.runs.failures import FailureRecord, Failures
from esamp.search.base import outcomes
from esamp.search.over import layers
from esamp.study.config import Study
from esamp.study.grid import Cell, cells, item_key
from esamp.study.keys import check_keys
from esamp.study.places import at, entry
from esamp.study.records import record
from esamp.study.specs import TaskSpec
from esamp.study.store import Store
from esamp.tasks import registry as tasks
from esamp.tasks.base import Item, Task

WAIT = 2.0
"""Seconds between two looks at cells that other processes work on."""


@dataclass(frozen=True)
class Problems:
    """A task that is loaded, and the items of a study."""

    task: Task
    items: Sequence[Item]

    @cached_property
    def prompts(self) -> Mapping[str, str]:
        """All prompts of the task by the ids of their problems, of which the study may have only the first."""
        return {item.id: item.prompt for item in (*self.task.items(), *self.items)}


@dataclass(frozen=True)
class CellState:
    """How far a cell has come."""

    cell: Cell
    done: int
    total: int
    tokens: float
    """generated so far"""
    failed: Mapping[str, FailureRecord] = field(default_factory=dict)
    """groups that failed when they were last tried, by the ids of their problems"""

    @property
    def expected(self) -> float:
        """Tokens still to be generated: what a group took on average so far, or at most, if there is none yet."""
        left = self.total - self.done - sum(not failure.retry for failure in self.failed.values())
        if self.done:
            return left * self.tokens / self.done
        return float(left * self.cell.n * (self.cell.arm.sampling.max_tokens or 512))


def load_tasks(study: Study) -> dict[str, Problems]:
    """The problems of each task, by its name in the study.

    Raises:
        EsampError: they cannot be loaded; names the task's place in the file.
    """
    loaded = {}
    for number, spec in enumerate(study.tasks, 1):
        with at(entry("tasks", number)):
            loaded[spec.name] = _problems(spec)
    return loaded


def states(study: Study, store: Store, problems: dict[str, Problems]) -> Iterator[CellState]:
    """How far every cell is."""
    for cell in cells(study):
        wanted = {item_key(item): item.id for item in problems[cell.task.name].items}
        there = store.contents(cell)
        done = [record for key, record in there.records.items() if key in wanted]
        tokens = sum(record.cost["tokens"] for record in done)
        failed = {wanted[key]: failure for key, failure in there.failed.items() if key in wanted}
        yield CellState(cell, len(done), len(wanted), tokens, failed)


def failures(study: Study, found: Iterable[CellState], *, skipped: bool = False) -> Failures:
    """The groups of a study that failed; with `skipped` only those that are not tried again."""
    every = list(found)
    records = [each for state in every for each in state.failed.values() if not (skipped and each.retry)]
    return Failures(sum(state.total for state in every), study.max_failed, "groups", records)


def run(
    study: Study,
    store: Store,
    problems: dict[str, Problems],
    *,
    on_cell: Callable[[Cell, int], Progress],
    on_model: Callable[[str], None] = lambda name: None,
    on_torn: Callable[[Path], None] = lambda path: None,
    send_key_to: Collection[str] = (),
) -> None:
    """Do what is missing of a study, and wait for what other processes are doing.

    A group that fails is written down as such, and the others go on; `failures` tells which did.

    Args:
        study: what to run.
        store: where groups go.
        problems: of `load_tasks`.
        on_cell: told of each cell that is begun and how many groups are missing; gives where its progress goes.
        on_model: told of each model before it is loaded.
        on_torn: told of each file whose last line an interruption had cut off: its group is done again.
        send_key_to: servers, beside the environment's, that may get the environment's key although only the study's
            file names them.

    Raises:
        InputError: the key would go to another server.
        InactiveMethodError: a method that should have acted on a group did not; that group is not written.
        UnsupportedError: the study wants traces of an engine that keeps none.
        FailedRequestsError: more groups failed than the study allows.
    """
    check_keys(study, send_key_to)
    for model in study.models if study.traces else ():
        engines.check_traces(model.engine)
    failed = failures(study, states(study, store, problems), skipped=True)
    failed.check()
    work = Work(store, problems, failed, on_cell, on_torn)
    for _, group in groupby(cells(study), key=lambda cell: cell.model.name):
        own = list(group)
        if not any(map(work.left, own)):
            continue
        on_model(own[0].model.name)
        with _start(own, logprobs=study.likelihood and not study.entropy) as engine:
            while own:
                busy = [cell for cell in own if not work.run(engine, cell)]
                if busy == own:
                    time.sleep(WAIT)
                own = busy


@dataclass(frozen=True)
class Work:
    """What a run of a study needs for every cell."""

    store: Store
    problems: Mapping[str, Problems]
    failed: Failures
    on_cell: Callable[[Cell, int], Progress]
    on_torn: Callable[[Path], None]

    def run(self, engine: Engine, cell: Cell) -> bool:
        """Whether the cell is settled now, which it is unless another process is at it."""
        file = self.store.open(cell)
        if file is None:
            return not self.left(cell)
        problems = self.problems[cell.task.name]
        with file:
            if file.torn:
                self.on_torn(file.path)
            missing = {item.id: item for item in problems.items if not file.is_finished(item_key(item))}
            if not missing:
                return True
            progress = self.on_cell(cell, len(missing))
            requests = [cell.request(item) for item in missing.values()]
            for outcome in outcomes(engine, requests, progress=progress):
                item = missing[outcome.request.id]
                if isinstance(outcome, Completion):
                    check_active(outcome)
                    file.append(item_key(item), record(problems.task, item, outcome).as_json())
                    continue
                progress(outcome.request.n, 0)
                failure = FailureRecord.of(outcome.error, private=problems.task.private)
                file.append(item_key(item), {"item": item.id, "failure": failure.as_json()})
                self.failed.add(failure)
        return True

    def left(self, cell: Cell) -> set[str]:
        """The keys of problems that are neither done nor would fail again."""
        items = self.problems[cell.task.name].items
        return {item_key(item) for item in items} - self.store.contents(cell).settled


def _problems(spec: TaskSpec) -> Problems:
    kind = tasks.get(spec.task)
    task = kind.build(kind.options.parse(spec.options))
    last = None if spec.limit is None else spec.skip + spec.limit
    items = task.items(limit=last)[spec.skip :]
    if not items:
        raise OptionError(f"task {spec.name!r}: skip = {spec.skip} leaves no problem")
    return Problems(task, items)


def _start(own: Sequence[Cell], *, logprobs: bool) -> Engine:
    """The model of these cells, with the layers that their methods read."""
    wanted: set[int] = set()
    if engines.ENTRIES[own[0].model.engine].keeps_layers:
        for cell in own:
            wanted |= set(layers(methods.get(cell.arm.method), cell.arm.options))
    return own[0].model.start(sorted(wanted), trace=own[0].traces, logprobs=logprobs)
