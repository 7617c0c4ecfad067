"""What a report needs beyond the records: embeddings and likelihoods, computed once and kept in the store.

Each measure of a cell is a file of its own beside the records, named by a hash of how it is computed. A line belongs to
the texts of one group: were the group ever drawn again, the line would no longer be found.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from esamp.analysis.part import Measure, Part, Values, count, digest, number, part_name, value
from esamp.analysis.text_parts import embedding, nonwords, opening, topic
from esamp.engines.base import Request, Sample
from esamp.errors import InputError
from esamp.quoting import one_line, shown
from esamp.study.config import Study
from esamp.study.grid import Cell, cells, item_key
from esamp.study.measured import Measured, Scored
from esamp.study.records import Record
from esamp.study.run import WAIT, Problems
from esamp.study.specs import ModelSpec
from esamp.study.store import Contents, Store
from esamp.tasks.base import Item

LOCAL = frozenset({"hf", "vllm"})
"""Engines whose models can be loaded here."""
OnPart: TypeAlias = Callable[[str, int], Callable[[], None]]
"""Told what is measured and of how many groups; gives what is called after each of them."""


def scoring(role: Literal["own", "second"], spec: ModelSpec, *, entropy: bool = True) -> Part:
    """Likelihoods of the texts under a model at temperature 1, and with `entropy` that of its distribution along them.

    The model that drew the samples reads the prompt as it was and the tokens that were drawn; a second model reads
    the texts, which it cuts into tokens of its own.
    """

    def start(stack: ExitStack) -> Measure:
        from esamp.engines.hf import HFEngine  # transformers: seconds that only measuring needs

        engine = stack.enter_context(HFEngine.load(spec.model, device=spec.device, dtype=spec.dtype))

        def measure(request: Request, record: Record) -> Values:
            asked = request if role == "own" else replace(request, prompt=_plain(request))
            samples = [
                Sample(each.index, each.text or "", (each.token_ids or ()) if role == "own" else (), "stop")
                for each in record.samples
            ]
            found = engine.score(asked, samples, distribution=entropy)
            return {
                "nll": [number(-each.mean) for each in found],
                "entropy": [number(each.entropy) for each in found],
                "tokens": [each.tokens for each in found],
            }

        return measure

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        nll, entropy = (tuple(map(value, values[name])) for name in ("nll", "entropy"))
        scored = Scored(nll, entropy, tuple(map(count, values["tokens"])))
        return replace(measured, own=scored) if role == "own" else replace(measured, second=scored)

    settings = spec.model_dump(mode="json", include={"model", "dtype"})
    name = part_name(role, settings if entropy else {**settings, "entropy": False})
    return Part(name, f"likelihoods under {spec.name}", start, put, spec if role == "own" else None, role=role)


def parts(study: Study, problems: Mapping[str, Problems]) -> list[Part]:
    """What the study asks to be measured, in this order. A server tells no likelihoods, so its model's are left out."""
    wanted: list[Part] = []
    if study.embedder is not None:
        wanted += [embedding(study.embedder), opening(study.embedder)]
        known = {name: own.prompts for name, own in problems.items() if not own.task.private}
        wanted += [topic(study.embedder, name, prompts) for name, prompts in known.items()]
    if study.words:
        wanted.append(nonwords())
    if study.likelihood:
        wanted += [scoring("own", model, entropy=study.entropy) for model in study.models if model.engine in LOCAL]
    if study.second_model is not None:
        wanted.append(scoring("second", ModelSpec(model=study.second_model)))
    return wanted


def measure(
    study: Study,
    store: Store,
    problems: Mapping[str, Problems],
    *,
    on_part: OnPart,
    on_torn: Callable[[Path], None] = lambda path: None,
) -> None:
    """Measure every finished group that is not measured yet. Groups whose texts are not kept are left out.

    `on_torn` is told of each file whose last line an interruption had cut off.

    Raises:
        InputError: a model cannot be loaded.
        MissingDependencyError: what the study asks for needs packages that are not installed.
    """
    earlier: list[Part] = []
    for part in parts(study, problems):
        asked = [(cell, _missing(study, part, cell, store, problems)) for cell in cells(study)]
        todo = [(cell, missing) for cell, missing in asked if missing]
        if todo:
            done = on_part(part.title, sum(len(missing) for _, missing in todo))
            with ExitStack() as stack:
                work = part.start(stack)
                for cell, missing in todo:
                    known = _known(earlier, store, cell, {key: record for key, (_, record) in missing.items()})
                    items = {key: item for key, (item, _) in missing.items()}
                    _measure_cell(
                        part, cell, {key: (items[key], known[key]) for key in missing}, store, work, done, on_torn
                    )
        earlier.append(part)


def attach(
    study: Study, store: Store, problems: Mapping[str, Problems], cell: Cell, records: Mapping[str, Record]
) -> dict[str, Record]:
    """The records of a cell, by the keys of their problems, with what has been measured of them."""
    drawn = {key: _drawn(record) for key, record in records.items()} if _while_drawing(study) else records
    lines = {_line_key(key, record): record for key, record in drawn.items()}
    return dict(zip(records, _known(parts(study, problems), store, cell, lines).values(), strict=True))


def _known(measured: Sequence[Part], store: Store, cell: Cell, records: Mapping[str, Record]) -> dict[str, Record]:
    """The records, by the keys of their lines, with what these parts have measured of them."""
    found = dict(records)
    for part in measured:
        there = store.contents(cell, part.name) if part.covers(cell) else Contents({}, {})
        for key in found.keys() & there.done.keys():
            found[key] = _with_measured(part, found[key], there.done[key], there.places[key])
    return found


def _with_measured(part: Part, record: Record, line: Mapping[str, Any], where: str) -> Record:
    """The record with what a line says of it.

    Raises:
        InputError: the line says something else; names its place.
    """
    try:
        if line["n"] != len(record.samples):
            raise ValueError(f"it is of {shown(line['n'])} samples, not of {len(record.samples)}")
        measured = part.put(record.measured, line)
        measured.check(len(record.samples))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else one_line(str(error))
        raise InputError(f"{where}: {reason}: delete that line, and it is measured again") from None
    return replace(record, measured=measured)


def _missing(
    study: Study, part: Part, cell: Cell, store: Store, problems: Mapping[str, Problems]
) -> dict[str, tuple[Item, Record]]:
    """By the keys of their lines: problems and records of the study that this part has still to measure."""
    own = problems[cell.task.name]
    if own.task.private or not part.covers(cell):
        return {}
    items = {item_key(item): item for item in own.items}
    done = store.read(cell, part.name)
    finished = {key: record for key, record in store.contents(cell).records.items() if key in items}
    if part.role == "own" and _while_drawing(study):
        finished = {key: record for key, record in finished.items() if _drawn(record).measured.own is None}
    keyed = {_line_key(key, record): (items[key], record) for key, record in finished.items()}
    return {key: each for key, each in keyed.items() if key not in done}


def _while_drawing(study: Study) -> bool:
    """Whether what an engine kept of the likelihoods while it drew the samples is all that the study asks for."""
    return study.likelihood and not study.entropy


def _drawn(record: Record) -> Record:
    """The record with the likelihoods that were kept while its samples were drawn, if those of all were."""
    nll = []
    for sample in record.samples:
        if sample.logprob is None:
            return record
        nll.append(-sample.logprob / sample.tokens if sample.tokens else math.nan)
    nothing = tuple(math.nan for _ in nll)
    own = Scored(tuple(nll), nothing, tuple(sample.tokens for sample in record.samples))
    return replace(record, measured=replace(record.measured, own=own))


def _measure_cell(
    part: Part,
    cell: Cell,
    missing: Mapping[str, tuple[Item, Record]],
    store: Store,
    work: Measure,
    done: Callable[[], None],
    on_torn: Callable[[Path], None],
) -> None:
    """Another process may be measuring the same cell: what it did meanwhile is not done again."""
    while (file := store.open(cell, part.name)) is None:
        time.sleep(WAIT)
    with file:
        if file.torn:
            on_torn(file.path)
        for key, (item, record) in missing.items():
            if key not in file.done:
                file.append(key, {"item": record.item, "n": len(record.samples), **work(cell.request(item), record)})
            done()


def _line_key(key: str, record: Record) -> str:
    """Of one group's texts."""
    texts = json.dumps([[sample.text, sample.token_ids] for sample in record.samples])
    return f"{key}-{digest(texts)}"


def _plain(request: Request) -> str:
    """The prompt as text, for a model that may have no template for chats."""
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n\n".join(turn["content"] for turn in request.prompt)
