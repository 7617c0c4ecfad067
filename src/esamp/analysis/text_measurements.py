"""Measurements of the texts without a language model: sentence embeddings, openings, topics, non-words."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.measurement import (
    DIGITS,
    MeasureGroup,
    Measurement,
    StoredValues,
    decode_vectors,
    encode_vectors,
    measurement_name,
    read_number,
    stored_number,
)
from esamp.analysis.positions import POSITIONS, WINDOW, similarity
from esamp.engines.base import Request
from esamp.metrics.embedding import SentenceEmbedder
from esamp.metrics.quality import LETTERS, NEAREST, RARE, first_words, nonword_share, on_topic_share
from esamp.metrics.vendi import vendi_score
from esamp.runs.identity import text_digest
from esamp.study.group_measurements import GroupMeasurements
from esamp.study.records import Record

OPENING = 30
"""Words of a text that count as its opening."""


def embedding(model: str) -> Measurement:
    """Sentence embeddings of the texts, and the similarity of the texts at each of `POSITIONS`."""

    def start(stack: ExitStack) -> MeasureGroup:
        encode = SentenceEmbedder(model).encode

        def measure(request: Request, record: Record) -> StoredValues:
            texts = _texts(record)
            return {
                "vectors": encode_vectors(encode(texts)),
                "similarity": list(map(stored_number, similarity(texts, encode))),
            }

        return measure

    def add(measured: GroupMeasurements, values: Mapping[str, Any]) -> GroupMeasurements:
        vectors = decode_vectors(values["vectors"], values["n"])
        return replace(measured, vectors=vectors, similarity=tuple(map(read_number, values["similarity"])))

    how = {"model": model, "positions": POSITIONS, "window": WINDOW}
    return Measurement(measurement_name("embedding", how), "sentence embeddings", start, add)


def opening(model: str) -> Measurement:
    """Vendi Score of the openings of the texts, so that texts of different lengths are compared at equal length."""

    def start(stack: ExitStack) -> MeasureGroup:
        embedder = SentenceEmbedder(model)

        def measure(request: Request, record: Record) -> StoredValues:
            openings = [first_words(text, OPENING) for text in _texts(record)]
            vectors = _vectors(record, embedder).copy()
            texts = _texts(record)
            longer = [index for index, text in enumerate(texts) if text != openings[index]]
            if longer:  # a text that is no longer than its opening already has its embedding
                vectors[longer] = embedder.encode([openings[index] for index in longer])
            return {"vendi": stored_number(vendi_score(vectors)) if len(openings) > 1 else None}

        return measure

    def add(measured: GroupMeasurements, values: Mapping[str, Any]) -> GroupMeasurements:
        return replace(measured, opening_vendi=read_number(values["vendi"]))

    return Measurement(
        measurement_name("opening", {"model": model, "words": OPENING}), "embeddings of openings", start, add
    )


def topic(model: str, task: str, prompts: Mapping[str, str]) -> Measurement:
    """Share of samples that are on topic; see `esamp.metrics.quality.on_topic_share`.

    Args:
        model: sentence-transformers model of the embeddings.
        task: the task's name in the study.
        prompts: all prompts of the task by problem id, without a chat template.
    """
    rows = {item: row for row, item in enumerate(prompts)}

    def start(stack: ExitStack) -> MeasureGroup:
        embedder = SentenceEmbedder(model)
        questions = embedder.encode(list(prompts.values()))

        def measure(request: Request, record: Record) -> StoredValues:
            blank = np.array([[not text.strip()] for text in _texts(record)])
            vectors = np.where(blank, 0, _vectors(record, embedder))
            return {"share": stored_number(on_topic_share(vectors, questions, rows[record.item], NEAREST))}

        return measure

    def add(measured: GroupMeasurements, values: Mapping[str, Any]) -> GroupMeasurements:
        return replace(measured, on_topic=read_number(values["share"]))

    how = {"model": model, "prompts": text_digest(repr(list(prompts.items())), DIGITS), "nearest": NEAREST}
    return Measurement(measurement_name("topic", how), "topics of the texts", start, add, task=task)


def nonwords() -> Measurement:
    """Share of words that are not English words."""

    def start(stack: ExitStack) -> MeasureGroup:
        return lambda request, record: {"share": stored_number(nonword_share(_texts(record)))}

    def add(measured: GroupMeasurements, values: Mapping[str, Any]) -> GroupMeasurements:
        return replace(measured, nonwords=read_number(values["share"]))

    return Measurement(measurement_name("nonwords", {"below": RARE, "letters": LETTERS}), "non-words", start, add)


def _texts(record: Record) -> list[str]:
    return [sample.text or "" for sample in record.samples]


def _vectors(record: Record, embedder: SentenceEmbedder) -> NDArray[np.float32]:
    """Embeddings of the texts: the stored ones, or new ones where there are none."""
    stored = record.measured.vectors
    return embedder.encode(_texts(record)) if stored is None else stored
