"""What a report needs beyond the records: embeddings and likelihoods, computed once and kept in the store.

Each measure of a cell is a file of its own beside the records, named by a hash of how it is computed. A line belongs to
the texts of one group: were the group ever drawn again, the line would no longer be found.
"""

import base64
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from esamp.engines.base import Request, Sample
from esamp.metrics.embedding import SentenceEmbedder
from esamp.study.config import ModelSpec, Study
from esamp.study.grid import Cell, cells, item_key
from esamp.study.measured import Measured, Scored
from esamp.study.positions import POSITIONS, WINDOW, similarity
from esamp.study.records import Record
from esamp.study.run import WAIT, Problems
from esamp.study.store import Store
from esamp.tasks.base import Item

VERSION = 1
"""Raised when a measure is computed in another way, so that what was measured before is not taken for it."""
LOCAL = frozenset({"hf", "vllm"})
"""Engines whose models can be loaded here."""
Values: TypeAlias = dict[str, Any]
Measure: TypeAlias = Callable[[Request, Record], Values]
OnPart: TypeAlias = Callable[[str, int], Callable[[], None]]
"""Told what is measured and of how many groups; gives what is called after each of them."""


@dataclass(frozen=True)
class Part:
    """One kind of measurement with one model."""

    name: str
    """of its files: what is measured, and a hash of how"""
    title: str
    """what is done, for people"""
    start: Callable[[ExitStack], Measure]
    """loads the model, which the stack closes"""
    put: Callable[[Measured, Mapping[str, Any]], Measured]
    """adds what was written to what else is known of the group"""
    only: ModelSpec | None = None
    """the model whose samples it measures; None for all"""

    def covers(self, cell: Cell) -> bool:
        """Whether this part measures the cell."""
        return self.only is None or cell.model == self.only


def embedding(model: str) -> Part:
    """Sentence embeddings of the texts, and how alike the texts are from position to position."""

    def start(stack: ExitStack) -> Measure:
        encode = SentenceEmbedder(model).encode

        def measure(request: Request, record: Record) -> Values:
            texts = [sample.text or "" for sample in record.samples]
            vectors = base64.b64encode(encode(texts).astype("<f4").tobytes()).decode()
            return {"vectors": vectors, "similarity": list(map(_number, similarity(texts, encode)))}

        return measure

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        vectors = np.frombuffer(base64.b64decode(values["vectors"]), dtype="<f4").astype(np.float32)
        curve = tuple(map(_value, values["similarity"]))
        return replace(measured, vectors=vectors.reshape(values["n"], -1), similarity=curve)

    how = {"model": model, "positions": POSITIONS, "window": WINDOW}
    return Part(_name("embedding", how), "sentence embeddings", start, put)


def scoring(role: Literal["own", "second"], spec: ModelSpec) -> Part:
    """Likelihoods of the texts under a model at temperature 1, and the entropy of its distribution along them.

    The model that drew the samples reads the prompt as it was and the tokens that were drawn; a second model reads
    the texts, which it cuts into tokens of its own.
    """

    def start(stack: ExitStack) -> Measure:
        from esamp.engines.hf import HFEngine  # transformers: seconds that only measuring needs
        from esamp.search.likelihood import likelihoods

        engine = stack.enter_context(HFEngine.load(spec.model, device=spec.device, dtype=spec.dtype))

        def measure(request: Request, record: Record) -> Values:
            asked = request if role == "own" else replace(request, prompt=_plain(request))
            samples = [
                Sample(each.index, each.text or "", (each.token_ids or ()) if role == "own" else (), "stop")
                for each in record.samples
            ]
            found = likelihoods(engine, asked, samples, distribution=True)
            return {
                "nll": [_number(-each.mean) for each in found],
                "entropy": [_number(each.entropy) for each in found],
                "tokens": [each.tokens for each in found],
            }

        return measure

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        nll, entropy = (tuple(map(_value, values[name])) for name in ("nll", "entropy"))
        scored = Scored(nll, entropy, tuple(values["tokens"]))
        return replace(measured, own=scored) if role == "own" else replace(measured, second=scored)

    name = _name(role, spec.model_dump(mode="json", include={"model", "dtype"}))
    return Part(name, f"likelihoods under {spec.name}", start, put, spec if role == "own" else None)


def parts(study: Study) -> list[Part]:
    """What the study asks to be measured. Servers do not tell likelihoods, so their models' own are left out."""
    wanted: list[Part] = [] if study.embedder is None else [embedding(study.embedder)]
    if study.likelihood:
        wanted += [scoring("own", model) for model in study.models if model.engine in LOCAL]
    if study.second_model is not None:
        wanted.append(scoring("second", ModelSpec(model=study.second_model)))
    return wanted


def measure(study: Study, store: Store, problems: Mapping[str, Problems], *, on_part: OnPart) -> None:
    """Measure every finished group that is not measured yet. Groups whose texts are not kept are left out.

    Raises:
        InputError: a model cannot be loaded.
        MissingDependencyError: sentence embeddings are asked for and their packages are not installed.
    """
    for part in parts(study):
        asked = [(cell, _missing(part, cell, store, problems)) for cell in cells(study)]
        todo = [(cell, missing) for cell, missing in asked if missing]
        if not todo:
            continue
        done = on_part(part.title, sum(len(missing) for _, missing in todo))
        with ExitStack() as stack:
            work = part.start(stack)
            for cell, missing in todo:
                _measure_cell(part, cell, missing, store, work, done)


def attach(study: Study, store: Store, cell: Cell, records: Mapping[str, Record]) -> dict[str, Record]:
    """The records of a cell, by the keys of their problems, with what has been measured of them."""
    found = dict(records)
    for part in parts(study):
        lines = store.read(cell, part.name) if part.covers(cell) else {}
        for key, record in found.items():
            if (line := lines.get(_line_key(key, record))) is not None:
                found[key] = replace(record, measured=part.put(record.measured, line))
    return found


def _missing(part: Part, cell: Cell, store: Store, problems: Mapping[str, Problems]) -> dict[str, tuple[Item, Record]]:
    """By the keys of their lines: problems and records of the study that this part has still to measure."""
    own = problems[cell.task.name]
    if own.task.private or not part.covers(cell):
        return {}
    items = {item_key(item): item for item in own.items}
    done = store.read(cell, part.name)
    finished = {key: Record.of_json(line) for key, line in store.read(cell).items() if key in items}
    keyed = {_line_key(key, record): (items[key], record) for key, record in finished.items()}
    return {key: each for key, each in keyed.items() if key not in done}


def _measure_cell(
    part: Part,
    cell: Cell,
    missing: Mapping[str, tuple[Item, Record]],
    store: Store,
    work: Measure,
    done: Callable[[], None],
) -> None:
    """Another process may be measuring the same cell: what it did meanwhile is not done again."""
    while (file := store.open(cell, part.name)) is None:
        time.sleep(WAIT)
    with file:
        for key, (item, record) in missing.items():
            if key not in file.done:
                file.append(key, {"item": record.item, "n": len(record.samples), **work(cell.request(item), record)})
            done()


def _name(kind: str, settings: Mapping[str, Any]) -> str:
    text = json.dumps({"version": VERSION, **settings}, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _line_key(key: str, record: Record) -> str:
    """Of one group's texts."""
    texts = json.dumps([[sample.text, sample.token_ids] for sample in record.samples])
    return f"{key}-{hashlib.sha256(texts.encode()).hexdigest()[:12]}"


def _plain(request: Request) -> str:
    """The prompt as text, for a model that may have no template for chats."""
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n\n".join(turn["content"] for turn in request.prompt)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _value(number: float | None) -> float:
    return math.nan if number is None else number
