"""Tables as text: Markdown for people, CSV for programs."""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import PurePath

from esamp.analysis.measures import MEASURES
from esamp.metrics.intervals import Interval
from esamp.quoting import one_line

LINK = re.compile(r"\](?=[(\[:])|!(?=\[)")
"""What makes brackets a link, a reference or an image."""
PERCENT = {measure.name: measure.decimals for measure in MEASURES if measure.percent}
"""Measures shown in percent, with their decimals."""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells may hold anything."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """Labels may hold anything: a cell is one line without bars, tags, links, images and control characters."""
    plain = one_line(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "&#96;")
    return LINK.sub(r"\g<0>\\", plain)


def figure(path: PurePath, alt: str, caption: str) -> str:
    """A picture with a text for those who do not see it and a caption for all."""
    words = cell(alt).replace("[", "(").replace("]", ")")
    return f"![{words}](<{path.as_posix()}>)\n\n*{caption}*"


def csv_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def numbers(interval: Interval) -> tuple[str, str, str]:
    """Estimate, low and high, with all their digits."""
    return repr(interval.estimate), repr(interval.low), repr(interval.high)


def head_of(measure: str) -> str:
    """How a measure's column is called."""
    return f"{measure} %" if is_share(measure) else measure


def is_share(measure: str) -> bool:
    """Whether a measure is shown in percent."""
    return measure in PERCENT or measure.startswith("pass@")


def shown(measure: str, interval: Interval) -> str:
    """An estimate and its interval."""
    if math.isnan(interval.estimate):
        return "-"
    scale, digits = (100, PERCENT.get(measure, 0)) if is_share(measure) else (1, 2)
    digits = 0 if abs(interval.estimate) >= 100 else digits
    low, high = (f"{scale * bound:.{digits}f}" for bound in (interval.low, interval.high))
    bounds = "" if math.isnan(interval.low) else f" [{low}, {high}]"
    return f"{scale * interval.estimate:.{digits}f}{bounds}"


def change(measure: str, interval: Interval, p: float | None) -> str:
    """A difference, its interval and its corrected p-value, if it was tested."""
    scale, digits = (100, max(1, PERCENT.get(measure, 0))) if is_share(measure) else (1, 2)
    low, high = (f"{scale * bound:+.{digits}f}" for bound in (interval.low, interval.high))
    bounds = "" if math.isnan(interval.low) else f" [{low}, {high}]"
    return f"{scale * interval.estimate:+.{digits}f}{bounds}" + ("" if p is None else f", p = {p:.2g}")


def equal(measure: str) -> str:
    """What is held equal in a comparison."""
    return {"non-words": "the same share of non-words", "on topic": "the same share on topic"}.get(
        measure, f"the same {measure}"
    )
