"""The chunks on the page of a study: the samples of all arms on one problem with one seed, packed."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esamp.analysis.load import Block
from esamp.report.pages.html import Json, clean
from esamp.report.pages.projection import plane
from esamp.study.records import Record, SampleRecord

DIGITS, DECIMALS = 4, 4
"""Significant digits and most decimals of a number on the page: enough for colours and readers."""
ORDER = ("novelty", "kl", "surprisal", "entropy", "residual", "cosine", "explained")
"""Known per-token measurements, in the order of the page."""
TOP, BOTTOM = 98, 2
"""Percentiles at which the colours end: a single outlier must not make all other colours pale."""


def packed(block: Block, item: str, seed: int, metrics: Sequence[str], *, private: bool) -> str:
    """Base64 of the deflated JSON of all samples; for a private task it has grades and lengths only."""
    records = [groups[seed][item] for groups in block.arms.values()]
    points, shares = (None, None) if private else _map(records)
    arms: list[Json] = []
    embedded = 0
    for record in records:
        own: list[Json] = []
        for sample in record.samples:
            entry = _grade(sample, graded=block.graded)
            if not private:
                entry |= _words(sample, metrics)
                if points is not None and record.measured.vectors is not None:
                    entry["at"] = short(points[embedded])
                    embedded += 1
            own.append(entry)
        arms.append(own)
    text = json.dumps({"arms": arms, "shares": shares}, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def traced(block: Block, items: Sequence[str]) -> dict[str, list[float]]:
    """For each per-token measurement that has values: where its colours begin and end."""
    vectors: dict[str, list[NDArray[np.float64]]] = {}
    for groups in block.arms.values():
        for records in groups.values():
            for item in items:
                for sample in records[item].samples:
                    for name, values in _traces(sample).items():
                        vectors.setdefault(name, []).append(values[np.isfinite(values)])
    bounds = {}
    for name, parts in vectors.items():
        values = np.concatenate(parts)
        if len(values):
            bottom, top = np.percentile(values, [BOTTOM, TOP])
            bounds[name] = [float(f"{min(bottom, 0):.3g}"), float(f"{max(top, 0):.3g}")]
    return {name: bounds[name] for name in sorted(bounds, key=_rank)}


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def short(values: ArrayLike) -> list[float | None]:
    """The values with few digits; None for those that are not finite."""
    numbers = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = DIGITS - 1 - np.floor(np.log10(np.abs(numbers)))
        scale = 10.0 ** np.clip(np.nan_to_num(digits, nan=0.0, posinf=DECIMALS, neginf=0.0), 0, DECIMALS)
        rounded = np.rint(numbers * scale) / scale + 0.0
    return [value if finite else None for value, finite in zip(rounded.tolist(), np.isfinite(rounded), strict=True)]


def _grade(sample: SampleRecord, *, graded: bool) -> dict[str, Json]:
    """The grade is right, wrong or none: no answer could be read."""
    grade = None
    if graded:
        grade = "right" if sample.correct else "none" if sample.canonical is None else "wrong"
    return {"index": sample.index, "count": sample.tokens, "cut": sample.finish_reason == "length", "grade": grade}


def _words(sample: SampleRecord, metrics: Sequence[str]) -> dict[str, Json]:
    entry: dict[str, Json] = {
        "answer": clean(sample.answer or ""),
        "canonical": clean(sample.canonical or ""),
        "reason": clean(sample.reason),
    }
    traces = _traces(sample)
    if traces and sample.pieces is not None:
        entry["pieces"] = _clean(sample.pieces)
        entry["traces"] = [short(traces[name]) if name in traces else [] for name in metrics]
    else:
        entry["text"] = clean(sample.text or "")
    return entry


def _clean(pieces: Sequence[str]) -> list[str]:
    """Every piece `clean`; cleaning the joined text first is much faster, as most texts need no change."""
    text = "".join(pieces)
    return list(pieces) if clean(text) == text else [clean(piece) for piece in pieces]


def _traces(sample: SampleRecord) -> dict[str, NDArray[np.float64]]:
    """Measurements with one value per token whose names are safe as property names in the page's script."""
    if sample.trace is None or sample.pieces is None:
        return {}
    traces = {}
    for name, values in sample.trace.items():
        numbers = np.array(values, dtype=np.float64)
        safe = name.isidentifier() and not name.startswith("_") and name != "tokens"
        if safe and numbers.shape == (len(sample.pieces),) and np.isfinite(numbers).any():
            traces[name] = numbers
    return traces


def _map(records: Sequence[Record]) -> tuple[NDArray[np.float64] | None, list[float] | None]:
    """Points of all samples with an embedding, on axes that all arms share, and the axes' shares of the variance."""
    vectors = [record.measured.vectors for record in records if record.measured.vectors is not None]
    if sum(map(len, vectors)) < 3:
        return None, None
    points = plane(np.concatenate(vectors))
    return points.points, [round(share, 3) for share in points.shares]


def counts(record: Record, *, graded: bool) -> Mapping[str, float]:
    """Counts of a group that the list of problems can show."""
    samples = record.samples
    own = {"tokens": round(sum(sample.tokens for sample in samples) / max(len(samples), 1), 1)}
    own["cut"] = float(sum(sample.finish_reason == "length" for sample in samples))
    if not graded:
        return own
    right = [sample for sample in samples if sample.correct]
    return {
        "right": len(right),
        "distinct": len({sample.canonical for sample in right}),
        "unreadable": sum(not sample.correct and sample.canonical is None for sample in samples),
        **own,
    }
