"""What is measured of texts without a language model: sentence embeddings, openings, topic, non-words."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esamp.analysis.part import Measure, Part, Values, digest, number, packed, part_name, unpacked, value
from esamp.analysis.positions import POSITIONS, WINDOW, similarity
from esamp.engines.base import Request
from esamp.metrics.embedding import SentenceEmbedder
from esamp.metrics.quality import LETTERS, NEAREST, RARE, first_words, nonword_share, on_topic_share
from esamp.metrics.vendi import vendi_score
from esamp.study.measured import Measured
from esamp.study.records import Record

OPENING = 30
"""Words of a text that `opening` reads."""


def embedding(model: str) -> Part:
    """Sentence embeddings of the texts, and how alike the texts are from position to position."""

    def start(stack: ExitStack) -> Measure:
        encode = SentenceEmbedder(model).encode

        def measure(request: Request, record: Record) -> Values:
            texts = _texts(record)
            return {"vectors": packed(encode(texts)), "similarity": list(map(number, similarity(texts, encode)))}

        return measure

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        vectors = unpacked(values["vectors"], values["n"])
        return replace(measured, vectors=vectors, similarity=tuple(map(value, values["similarity"])))

    how = {"model": model, "positions": POSITIONS, "window": WINDOW}
    return Part(part_name("embedding", how), "sentence embeddings", start, put)


def opening(model: str) -> Part:
    """Vendi Score of the first words of the texts, which compares texts of different lengths at equal length."""

    def start(stack: ExitStack) -> Measure:
        embedder = SentenceEmbedder(model)

        def measure(request: Request, record: Record) -> Values:
            openings = [first_words(text, OPENING) for text in _texts(record)]
            vectors = _vectors(record, embedder).copy()
            cut = [place for place, (text, own) in enumerate(zip(_texts(record), openings, strict=True)) if text != own]
            if cut:  # the others are embedded already, as they are no longer than that
                vectors[cut] = embedder.encode([openings[place] for place in cut])
            return {"vendi": number(vendi_score(vectors)) if len(openings) > 1 else None}

        return measure

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        return replace(measured, opening_vendi=value(values["vendi"]))

    return Part(part_name("opening", {"model": model, "words": OPENING}), "embeddings of openings", start, put)


def topic(model: str, task: str, prompts: Mapping[str, str]) -> Part:
    """Share of samples that are on topic, by the embeddings of all prompts of a task.

    Args:
        model: of the embeddings.
        task: its name in the study.
        prompts: what a user asks, by the ids of the problems; without a chat template.
    """
    places = {item: place for place, item in enumerate(prompts)}

    def start(stack: ExitStack) -> Measure:
        embedder = SentenceEmbedder(model)
        questions = embedder.encode(list(prompts.values()))

        def measure(request: Request, record: Record) -> Values:
            blank = np.array([[not text.strip()] for text in _texts(record)])
            vectors = np.where(blank, 0, _vectors(record, embedder))
            return {"share": number(on_topic_share(vectors, questions, places[record.item], NEAREST))}

        return measure

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        return replace(measured, on_topic=value(values["share"]))

    how = {"model": model, "prompts": digest(repr(list(prompts.items()))), "nearest": NEAREST}
    return Part(part_name("topic", how), "topics of the texts", start, put, task=task)


def nonwords() -> Part:
    """Share of words that are no English words."""

    def start(stack: ExitStack) -> Measure:
        return lambda request, record: {"share": number(nonword_share(_texts(record)))}

    def put(measured: Measured, values: Mapping[str, Any]) -> Measured:
        return replace(measured, nonwords=value(values["share"]))

    return Part(part_name("nonwords", {"below": RARE, "letters": LETTERS}), "non-words", start, put)


def _texts(record: Record) -> list[str]:
    return [sample.text or "" for sample in record.samples]


def _vectors(record: Record, embedder: SentenceEmbedder) -> NDArray[np.float32]:
    """Embeddings of the texts, which `embedding` has usually measured before."""
    known = record.measured.vectors
    return embedder.encode(_texts(record)) if known is None else known
