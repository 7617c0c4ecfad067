"""What the page of a study holds of one problem and seed: the samples of every arm, packed until they are shown."""

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
"""Significant digits, and at most so many decimals: more than a colour or a reader can use."""
ORDER = ("novelty", "kl", "surprisal", "entropy", "residual", "cosine", "explained")
"""Measurements that are known, as the page lists them."""
TOP, BOTTOM = 98, 2
"""Percentiles at which the colours end: one outlier must not bleach the rest."""


def packed(block: Block, item: str, seed: int, metrics: Sequence[str], *, private: bool) -> str:
    """Base64 of the deflated JSON of all samples; of a private task grades and lengths alone."""
    records = [groups[seed][item] for groups in block.arms.values()]
    points, shares = (None, None) if private else _map(records)
    arms: list[Json] = []
    place = 0
    for record in records:
        own: list[Json] = []
        for sample in record.samples:
            told = _grade(sample, graded=block.graded)
            if not private:
                told |= _words(sample, metrics)
                if points is not None and record.measured.vectors is not None:
                    told["at"] = short(points[place])
                    place += 1
            own.append(told)
        arms.append(own)
    text = json.dumps({"arms": arms, "shares": shares}, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def traced(block: Block, items: Sequence[str]) -> dict[str, list[float]]:
    """The values at which the colours of each per-token measurement begin and end; none for those never measured."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for groups in block.arms.values():
        for records in groups.values():
            for item in items:
                for sample in records[item].samples:
                    for name, values in _traces(sample).items():
                        found.setdefault(name, []).append(values[np.isfinite(values)])
    bounds = {}
    for name, parts in found.items():
        values = np.concatenate(parts)
        if len(values):
            bottom, top = np.percentile(values, [BOTTOM, TOP])
            bounds[name] = [float(f"{min(bottom, 0):.3g}"), float(f"{max(top, 0):.3g}")]
    return {name: bounds[name] for name in sorted(bounds, key=_rank)}


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def short(values: ArrayLike) -> list[float | None]:
    """Few digits; None for what is not finite."""
    numbers = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = DIGITS - 1 - np.floor(np.log10(np.abs(numbers)))
        scale = 10.0 ** np.clip(np.nan_to_num(digits, nan=0.0, posinf=DECIMALS, neginf=0.0), 0, DECIMALS)
        rounded = np.rint(numbers * scale) / scale + 0.0
    return [value if finite else None for value, finite in zip(rounded.tolist(), np.isfinite(rounded), strict=True)]


def _grade(sample: SampleRecord, *, graded: bool) -> dict[str, Json]:
    """right, wrong, or none: no answer that can be read."""
    grade = None
    if graded:
        grade = "right" if sample.correct else "none" if sample.canonical is None else "wrong"
    return {"index": sample.index, "count": sample.tokens, "cut": sample.finish_reason == "length", "grade": grade}


def _words(sample: SampleRecord, metrics: Sequence[str]) -> dict[str, Json]:
    told: dict[str, Json] = {
        "answer": clean(sample.answer or ""),
        "canonical": clean(sample.canonical or ""),
        "reason": clean(sample.reason),
    }
    traces = _traces(sample)
    if traces and sample.pieces is not None:
        told["pieces"] = _clean(sample.pieces)
        told["traces"] = [short(traces[name]) if name in traces else [] for name in metrics]
    else:
        told["text"] = clean(sample.text or "")
    return told


def _clean(pieces: Sequence[str]) -> list[str]:
    """Every piece `clean`; a look at all at once is much faster than at each."""
    whole = "".join(pieces)
    return list(pieces) if clean(whole) == whole else [clean(piece) for piece in pieces]


def _traces(sample: SampleRecord) -> dict[str, NDArray[np.float64]]:
    """Measurements that have one value a token, with a name that means nothing to a script."""
    if sample.trace is None or sample.pieces is None:
        return {}
    found = {}
    for name, values in sample.trace.items():
        numbers = np.array(values, dtype=np.float64)
        sound = name.isidentifier() and not name.startswith("_") and name != "tokens"
        if sound and numbers.shape == (len(sample.pieces),) and np.isfinite(numbers).any():
            found[name] = numbers
    return found


def _map(records: Sequence[Record]) -> tuple[NDArray[np.float64] | None, list[float] | None]:
    """Where all samples that have an embedding lie, on axes that all arms share."""
    vectors = [record.measured.vectors for record in records if record.measured.vectors is not None]
    if sum(map(len, vectors)) < 3:
        return None, None
    found = plane(np.concatenate(vectors))
    return found.points, [round(share, 3) for share in found.shares]


def counts(record: Record, *, graded: bool) -> Mapping[str, float]:
    """What the list of problems can show of a group."""
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
