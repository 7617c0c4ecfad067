"""The map of a run's samples: an SVG picture, and the same as a table."""

from collections.abc import Sequence

import numpy as np

from esamp.play.findings import RunFindings
from esamp.play.markup import percent
from esamp.quoting import shortened
from esamp.report.pages.html import escape

WIDTH, HEIGHT, MARGIN = 640, 360, 26
"""Size of the picture and room at its edges, in its own units."""
WORDS = 70
"""Characters of a sample in the table."""
MARKS = ("plain", "explored")
"""Class of an arm's marks: circles for plain sampling, squares for ESamp."""


def sample_map(findings: RunFindings, labels: Sequence[str]) -> str:
    """The map with its legend and its table.

    Args:
        findings: of a run with two arms.
        labels: of the arms.
    """
    if findings.map is None:
        return (
            '<h2>Map of the samples</h2><p class="note">The map needs sentence embeddings, which are not installed.</p>'
        )
    arms = [arm for arm, texts in enumerate(findings.texts) for _ in texts]
    numbers = [number for texts in findings.texts for number in range(1, len(texts) + 1)]
    points = _placed(findings.map.points)
    names = [f"{labels[arm]} {number}" for arm, number in zip(arms, numbers, strict=True)]
    marks = "".join(
        _mark(arm, number, x, y, name) for arm, number, (x, y), name in zip(arms, numbers, points, names, strict=True)
    )
    first, second = map(percent, findings.map.shares)
    keys = "".join(f'<li class="{kind}"><i></i>{escape(label)}</li>' for kind, label in zip(MARKS, labels, strict=True))
    note = (
        f"Each mark is a sample, by the embedding of its text: what stands close says something similar. The axes hold "
        f"{first} and {second} of the differences between the texts."
    )
    return (
        f'<h2>Map of the samples</h2><ul class="keys">{keys}</ul>'
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="map-note">{marks}</svg>'
        f'<p class="note" id="map-note">{note}</p>'
        f'<details class="note"><summary>The map as a table</summary>{_as_table(findings, names)}</details>'
    )


def _placed(points: np.ndarray) -> list[tuple[float, float]]:
    """Points `[n, 2]` in the picture, both axes in the same scale, centred."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    spans = high - low
    scale = min((room[axis] / spans[axis] for axis in range(2) if spans[axis] > 0), default=1.0)
    middle, centre = (low + high) / 2, np.array([WIDTH, HEIGHT]) / 2
    return [(float(x), float(y)) for x, y in centre + (points - middle) * scale * np.array([1, -1])]


def _mark(arm: int, number: int, x: float, y: float, name: str) -> str:
    title = f"<title>{escape(name)}</title>"
    kind = MARKS[arm]
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="13"/>'
        if arm == 0
        else (f'<rect x="{x - 12:.1f}" y="{y - 12:.1f}" width="24" height="24" rx="3"/>')
    )
    return f'<g class="{kind}">{title}{shape}<text x="{x:.1f}" y="{y + 4.5:.1f}">{number}</text></g>'


def _as_table(findings: RunFindings, names: Sequence[str]) -> str:
    texts = [text for own in findings.texts for text in own]
    places = [] if findings.map is None else findings.map.points.tolist()
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{x:+.2f}</td><td>{y:+.2f}</td>'
        f'<td class="start">{escape(shortened(" ".join(text.split()), WORDS))}</td></tr>'
        for name, (x, y), text in zip(names, places, texts, strict=True)
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("sample", "first axis", "second axis", "begins with"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="The map as a table" tabindex="0">{table}</div>'
