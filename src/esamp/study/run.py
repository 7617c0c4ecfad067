"""Run a study: draw the missing groups of every cell, one model after the other."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from esamp.engines import registry as engines
from esamp.engines.base import Completion, Engine, Progress
from esamp.errors import OptionError
from esamp.methods import registry as methods
from esamp.runs.decode import decode
from esamp.runs.failures import FailureRecord, Failures
from esamp.sampling import DEFAULT_TOKENS
from esamp.search.over import layers
from esamp.study.api_key_check import check_api_key
from esamp.study.config import Study
from esamp.study.grid import Cell, cells, item_key
from esamp.study.locations import ErrorLocation, table_location
from esamp.study.records import graded_record
from esamp.study.schema import TaskSpec
from esamp.study.store import Store
from esamp.tasks import registry as tasks
from esamp.tasks.base import Item, Task

POLL_SECONDS = 2.0
"""Time between two attempts to work on cells that other processes are working on."""


@dataclass(frozen=True)
class TaskProblems:
    """A loaded task, and the problems of it that a study uses."""

    task: Task
    items: Sequence[Item]

    @cached_property
    def prompts(self) -> Mapping[str, str]:
        """The prompts of all problems of the task, by problem id, including those that the study does not use."""
        return {item.id: item.prompt for item in (*self.task.items(), *self.items)}


@dataclass(frozen=True)
class CellState:
    """The progress of a cell."""

    cell: Cell
    done: int
    """finished groups"""
    total: int
    """groups of the study"""
    tokens: float
    """tokens generated so far"""
    failed: Mapping[str, FailureRecord] = field(default_factory=dict)
    """groups that failed in their last attempt, by problem id"""

    @property
    def expected(self) -> float:
        """Tokens still to be generated, from the mean of the finished groups, or the maximum if there is none."""
        left = self.total - self.done - sum(not failure.retry for failure in self.failed.values())
        if self.done:
            return left * self.tokens / self.done
        return float(left * self.cell.n * (self.cell.arm.sampling.max_tokens or DEFAULT_TOKENS))


def load_tasks(study: Study) -> dict[str, TaskProblems]:
    """The problems of each task, by the task's name in the study.

    Raises:
        EsampError: a task cannot be loaded; the message names its location in the file.
    """
    loaded = {}
    for number, spec in enumerate(study.tasks, 1):
        with ErrorLocation(table_location("tasks", number)):
            loaded[spec.name] = _load_task(spec)
    return loaded


def states(study: Study, store: Store, problems: Mapping[str, TaskProblems]) -> Iterator[CellState]:
    """The progress of every cell of a study."""
    for cell in cells(study):
        ids = {item_key(item): item.id for item in problems[cell.task.name].items}
        contents = store.contents(cell)
        done = [record for key, record in contents.records.items() if key in ids]
        tokens = sum(record.cost["tokens"] for record in done)
        failed = {ids[key]: failure for key, failure in contents.failed.items() if key in ids}
        yield CellState(cell, len(done), len(ids), tokens, failed)


def failures(study: Study, cell_states: Iterable[CellState], *, skipped: bool = False) -> Failures:
    """The failed groups of a study; with `skipped` only those that are not retried."""
    cell_states = list(cell_states)
    records = [failure for state in cell_states for failure in state.failed.values() if not (skipped and failure.retry)]
    return Failures(sum(state.total for state in cell_states), study.max_failed, "groups", records)


def run(
    study: Study,
    store: Store,
    problems: Mapping[str, TaskProblems],
    *,
    on_cell: Callable[[Cell, int], Progress],
    on_model: Callable[[str], None] = lambda name: None,
    on_torn: Callable[[Path], None] = lambda path: None,
    send_key_to: Collection[str] = (),
) -> None:
    """Draw the missing groups of a study, and wait for cells that other processes are working on.

    A failed group is recorded, and the run goes on; see `failures`.

    Args:
        study: the study to run.
        store: where finished groups are written.
        problems: from `load_tasks`.
        on_cell: called with each cell before it is run and the number of its missing groups; returns the callback for
            its progress.
        on_model: called with the name of each model before it is loaded.
        on_torn: called with each file whose last line was cut off by an interruption; its group is drawn again.
        send_key_to: servers named only by the study's file that may get the API key of the environment.

    Raises:
        InputError: the API key would go to another server.
        InactiveMethodError: a method should have acted on a group and did not; that group is not written.
        UnsupportedError: the study keeps traces, and an engine has none.
        FailedRequestsError: more groups failed than the study allows.
    """
    check_api_key(study, send_key_to)
    for model in study.models if study.traces else ():
        engines.check_traces(model.engine)
    failed = failures(study, states(study, store, problems), skipped=True)
    failed.check()
    runner = CellRunner(store, problems, failed, on_cell, on_torn)
    for _, group in groupby(cells(study), key=lambda cell: cell.model.name):
        of_model = list(group)
        if not any(map(runner.unfinished, of_model)):
            continue
        on_model(of_model[0].model.name)
        with _start_engine(of_model, logprobs=study.likelihood and not study.entropy) as engine:
            remaining = of_model
            while remaining:
                busy = [cell for cell in remaining if not runner.run(engine, cell)]
                if busy == remaining:
                    time.sleep(POLL_SECONDS)
                remaining = busy


@dataclass(frozen=True)
class CellRunner:
    """Draws the missing groups of cells; the arguments of `run` that all cells share."""

    store: Store
    problems: Mapping[str, TaskProblems]
    failed: Failures
    on_cell: Callable[[Cell, int], Progress]
    on_torn: Callable[[Path], None]

    def run(self, engine: Engine, cell: Cell) -> bool:
        """Finish a cell unless another process is working on it, and return whether it is finished now."""
        file = self.store.open(cell)
        if file is None:
            return not self.unfinished(cell)
        problems = self.problems[cell.task.name]
        with file:
            if file.torn:
                self.on_torn(file.path)
            missing = {item.id: item for item in problems.items if not file.is_finished(item_key(item))}
            if not missing:
                return True
            progress = self.on_cell(cell, len(missing))
            for outcome in decode(engine, [cell.request(item) for item in missing.values()], progress=progress):
                item = missing[outcome.request.id]
                if isinstance(outcome, Completion):
                    file.append(item_key(item), graded_record(problems.task, item, outcome).as_json())
                    continue
                failure = FailureRecord.of(outcome.error, private=problems.task.private)
                file.append(item_key(item), {"item": item.id, "failure": failure.as_json()})
                self.failed.add(failure)
        return True

    def unfinished(self, cell: Cell) -> set[str]:
        """The keys of problems that are neither finished nor would fail again."""
        items = self.problems[cell.task.name].items
        return {item_key(item) for item in items} - self.store.contents(cell).resolved


def _load_task(spec: TaskSpec) -> TaskProblems:
    kind = tasks.get(spec.task)
    task = kind.build(kind.options.parse(spec.options))
    stop = None if spec.limit is None else spec.skip + spec.limit
    items = task.items(limit=stop)[spec.skip :]
    if not items:
        raise OptionError(f"task {spec.name!r}: skip = {spec.skip} leaves no problem")
    return TaskProblems(task, items)


def _start_engine(of_model: Sequence[Cell], *, logprobs: bool) -> Engine:
    """Load the model of these cells, keeping the layers that their methods read."""
    model = of_model[0].model
    depths: set[int] = set()
    if engines.ENTRIES[model.engine].keeps_layers:
        for cell in of_model:
            depths |= set(layers(methods.get(cell.arm.method), cell.arm.options))
    return model.start(sorted(depths), trace=of_model[0].traces, logprobs=logprobs)
