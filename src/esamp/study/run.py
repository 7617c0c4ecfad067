"""Running a study: every cell's missing groups, one model after the other."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from esamp.engines import registry as engines
from esamp.engines.base import Engine, Progress, check_active
from esamp.errors import OptionError
from esamp.methods import registry as methods
from esamp.search.base import answer
from esamp.search.layers import layers
from esamp.study.config import Study
from esamp.study.grid import Cell, cells, item_key
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

    @property
    def expected(self) -> float:
        """Tokens still to be generated: what a group took on average so far, or at most, if there is none yet."""
        left = self.total - self.done
        if self.done:
            return left * self.tokens / self.done
        return float(left * self.cell.n * (self.cell.arm.sampling.max_tokens or 512))


def load_tasks(study: Study) -> dict[str, Problems]:
    """The problems of each task, by its name in the study."""
    return {spec.name: _problems(spec) for spec in study.tasks}


def states(study: Study, store: Store, problems: dict[str, Problems]) -> Iterator[CellState]:
    """How far every cell is."""
    for cell in cells(study):
        wanted = {item_key(item) for item in problems[cell.task.name].items}
        done = {key: line for key, line in store.read(cell).items() if key in wanted}
        tokens = sum(line["cost"]["tokens"] for line in done.values())
        yield CellState(cell, len(done), len(wanted), tokens)


def run(
    study: Study,
    store: Store,
    problems: dict[str, Problems],
    *,
    on_cell: Callable[[Cell, int], Progress],
    on_model: Callable[[str], None] = lambda name: None,
) -> None:
    """Do what is missing of a study, and wait for what other processes are doing.

    Args:
        study: what to run.
        store: where groups go.
        problems: of `load_tasks`.
        on_cell: told of each cell that is begun and how many groups are missing; gives where its progress goes.
        on_model: told of each model before it is loaded.

    Raises:
        InactiveMethodError: a method that should have acted on a group did not; that group is not written.
        UnsupportedError: the study wants traces of an engine that keeps none.
    """
    for model in study.models if study.traces else ():
        engines.check_traces(model.engine)
    for _, group in groupby(cells(study), key=lambda cell: cell.model.name):
        own = list(group)
        if not any(_missing(cell, store, problems) for cell in own):
            continue
        on_model(own[0].model.name)
        with _start(own, logprobs=study.likelihood and not study.entropy) as engine:
            while own:
                busy = [cell for cell in own if not _run_cell(engine, cell, store, problems[cell.task.name], on_cell)]
                if busy == own:
                    time.sleep(WAIT)
                own = busy


def _run_cell(
    engine: Engine, cell: Cell, store: Store, problems: Problems, on_cell: Callable[[Cell, int], Progress]
) -> bool:
    """Whether the cell is complete now, which it is unless another process is at it."""
    file = store.open(cell)
    if file is None:
        return not _left(cell, store, problems)
    with file:
        missing = {item.id: item for item in problems.items if item_key(item) not in file.done}
        if not missing:
            return True
        progress = on_cell(cell, len(missing))
        requests = [cell.request(item) for item in missing.values()]
        for completion in answer(engine, requests, progress=progress):
            check_active(completion)
            item = missing[completion.request.id]
            file.append(item_key(item), record(problems.task, item, completion).as_json())
    return True


def _missing(cell: Cell, store: Store, problems: dict[str, Problems]) -> bool:
    return bool(_left(cell, store, problems[cell.task.name]))


def _left(cell: Cell, store: Store, problems: Problems) -> set[str]:
    return {item_key(item) for item in problems.items} - store.read(cell).keys()


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
