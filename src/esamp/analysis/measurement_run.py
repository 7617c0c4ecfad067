"""Measure finished groups with embedding and language models, once, and keep the results in the store.

Each measurement of a cell is a file beside the records, named by a hash of the measurement's settings. A line is named
by a hash of one group's texts: if the group is drawn again, its old line is not found.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from esamp.analysis.likelihood_measurement import likelihoods
from esamp.analysis.measurement import DIGITS, MeasureGroup, Measurement
from esamp.analysis.text_measurements import embedding, nonwords, opening, topic
from esamp.errors import InputError
from esamp.quoting import one_line, shown
from esamp.runs.identity import json_digest
from esamp.study.config import Study
from esamp.study.grid import Cell, cells, item_key
from esamp.study.group_measurements import GroupLikelihoods
from esamp.study.records import Record
from esamp.study.run import POLL_SECONDS, TaskProblems
from esamp.study.schema import ModelSpec
from esamp.study.store import CellContents, Store
from esamp.tasks.base import Item

LOCAL_ENGINES = frozenset({"hf", "vllm"})
"""Engines whose models can be loaded into this process, so that likelihoods can be measured."""
OnMeasurement: TypeAlias = Callable[[str, int], Callable[[], None]]
"""Called with the title of a measurement and its number of groups; returns a callback for each measured group."""


def measurements(study: Study, problems: Mapping[str, TaskProblems]) -> list[Measurement]:
    """The measurements that a study requests, in the order in which they run. Models behind servers are left out."""
    requested: list[Measurement] = []
    if study.embedder is not None:
        requested += [embedding(study.embedder), opening(study.embedder)]
        public = {name: loaded.prompts for name, loaded in problems.items() if not loaded.task.private}
        requested += [topic(study.embedder, name, prompts) for name, prompts in public.items()]
    if study.words:
        requested.append(nonwords())
    if study.likelihood:
        local = [model for model in study.models if model.engine in LOCAL_ENGINES]
        requested += [likelihoods("own", model, entropy=study.entropy) for model in local]
    if study.second_model is not None:
        requested.append(likelihoods("second", ModelSpec(model=study.second_model)))
    return requested


def measure(
    study: Study,
    store: Store,
    problems: Mapping[str, TaskProblems],
    *,
    on_measurement: OnMeasurement,
    on_torn: Callable[[Path], None] = lambda path: None,
) -> None:
    """Run the missing measurements of every finished group. Groups of private tasks have no texts and are left out.

    Args:
        study: the study whose groups are measured.
        store: has the finished groups, and gets the results.
        problems: from `esamp.study.run.load_tasks`.
        on_measurement: for progress.
        on_torn: called with each file whose last line was cut off by an interruption.

    Raises:
        InputError: a model cannot be loaded.
        MissingDependencyError: a measurement needs packages that are not installed.
    """
    earlier: list[Measurement] = []
    for measurement in measurements(study, problems):
        by_cell = [(cell, _missing(study, measurement, cell, store, problems)) for cell in cells(study)]
        work = [(cell, missing) for cell, missing in by_cell if missing]
        if work:
            on_group = on_measurement(measurement.title, sum(len(missing) for _, missing in work))
            with ExitStack() as stack:
                measure_group = measurement.start(stack)
                for cell, missing in work:
                    records = _with_measurements(earlier, store, cell, {key: rec for key, (_, rec) in missing.items()})
                    groups = {key: (item, records[key]) for key, (item, _) in missing.items()}
                    _measure_cell(measurement, cell, groups, store, measure_group, on_group, on_torn)
        earlier.append(measurement)


def attach(
    study: Study, store: Store, problems: Mapping[str, TaskProblems], cell: Cell, records: Mapping[str, Record]
) -> dict[str, Record]:
    """The records of a cell, by the keys of their problems, with the results of their measurements.

    Raises:
        InputError: a line of a measurement is invalid; the message has its location.
    """
    drawn = (
        {key: _with_drawn(record) for key, record in records.items()} if _likelihood_while_drawing(study) else records
    )
    by_line = {_line_key(key, record): record for key, record in drawn.items()}
    measured = _with_measurements(measurements(study, problems), store, cell, by_line)
    return dict(zip(records, measured.values(), strict=True))


def _with_measurements(
    of: Sequence[Measurement], store: Store, cell: Cell, records: Mapping[str, Record]
) -> dict[str, Record]:
    """The records, by the keys of their lines, with the results of some measurements."""
    updated = dict(records)
    for measurement in of:
        contents = store.contents(cell, measurement.name) if measurement.covers(cell) else CellContents({}, {})
        for key in updated.keys() & contents.done.keys():
            updated[key] = _with_line(measurement, updated[key], contents.done[key], contents.locations[key])
    return updated


def _with_line(measurement: Measurement, record: Record, line: Mapping[str, Any], location: str) -> Record:
    """The record with the values of one line.

    Raises:
        InputError: the line is invalid; the message has its location.
    """
    try:
        if line["n"] != len(record.samples):
            raise ValueError(f"it is of {shown(line['n'])} samples, not of {len(record.samples)}")
        measured = measurement.add(record.measured, line)
        measured.check(len(record.samples))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else one_line(str(error))
        raise InputError(f"{location}: {reason}: delete that line, and it is measured again") from None
    return replace(record, measured=measured)


def _missing(
    study: Study, measurement: Measurement, cell: Cell, store: Store, problems: Mapping[str, TaskProblems]
) -> dict[str, tuple[Item, Record]]:
    """Problems and records without a result of this measurement, by the keys of their lines."""
    loaded = problems[cell.task.name]
    if loaded.task.private or not measurement.covers(cell):
        return {}
    items = {item_key(item): item for item in loaded.items}
    done = store.read(cell, measurement.name)
    finished = {key: record for key, record in store.contents(cell).records.items() if key in items}
    if measurement.role == "own" and _likelihood_while_drawing(study):
        finished = {key: record for key, record in finished.items() if _with_drawn(record).measured.own is None}
    by_line = {_line_key(key, record): (items[key], record) for key, record in finished.items()}
    return {key: group for key, group in by_line.items() if key not in done}


def _likelihood_while_drawing(study: Study) -> bool:
    """Whether the log-probabilities that an engine may keep while it draws samples suffice for the study."""
    return study.likelihood and not study.entropy


def _with_drawn(record: Record) -> Record:
    """The record with the likelihoods that the engine kept while drawing, unless some sample has none."""
    nll = []
    for sample in record.samples:
        if sample.logprob is None:
            return record
        nll.append(-sample.logprob / sample.tokens if sample.tokens else math.nan)
    entropy = tuple(math.nan for _ in nll)
    own = GroupLikelihoods(tuple(nll), entropy, tuple(sample.tokens for sample in record.samples))
    return replace(record, measured=replace(record.measured, own=own))


def _measure_cell(
    measurement: Measurement,
    cell: Cell,
    groups: Mapping[str, tuple[Item, Record]],
    store: Store,
    measure_group: MeasureGroup,
    on_group: Callable[[], None],
    on_torn: Callable[[Path], None],
) -> None:
    """Measure the groups of a cell, except those that another process has measured in the meantime."""
    while (file := store.open(cell, measurement.name)) is None:
        time.sleep(POLL_SECONDS)
    with file:
        if file.torn:
            on_torn(file.path)
        for key, (item, record) in groups.items():
            if key not in file.done:
                values = measure_group(cell.request(item), record)
                file.append(key, {"item": record.item, "n": len(record.samples), **values})
            on_group()


def _line_key(key: str, record: Record) -> str:
    """The key of a line: the problem's key, and a hash of the group's texts."""
    texts = [[sample.text, sample.token_ids] for sample in record.samples]
    return f"{key}-{json_digest(texts, DIGITS)}"
