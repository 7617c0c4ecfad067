"""Tables and numbers as text, in Markdown and CSV."""

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
"""Where Markdown would read brackets as a link, a reference or an image."""
PERCENT = {measure.name: measure.decimals for measure in MEASURES if measure.percent}
"""Measures shown in percent, with their number of decimals."""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells may contain any characters."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """`text` as one line in which bars, tags, links, images and control characters are escaped."""
    plain = one_line(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "&#96;")
    return LINK.sub(r"\g<0>\\", plain)


def figure_markdown(path: PurePath, alt: str, caption: str) -> str:
    """A picture with its alternative text, and a caption below."""
    words = cell(alt).replace("[", "(").replace("]", ")")
    return f"![{words}](<{path.as_posix()}>)\n\n*{caption}*"


def csv_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A CSV file with a line of heads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def numbers(interval: Interval) -> tuple[str, str, str]:
    """Estimate and bounds with all their digits."""
    return repr(interval.estimate), repr(interval.low), repr(interval.high)


def head_of(measure: str) -> str:
    """Head of a measure's column."""
    return f"{measure} %" if is_share(measure) else measure


def is_share(measure: str) -> bool:
    """Whether a measure is shown in percent."""
    return measure in PERCENT or measure.startswith("pass@")


def shown(measure: str, interval: Interval) -> str:
    """An estimate and its interval, in percent for shares; a dash for NaN."""
    if math.isnan(interval.estimate):
        return "-"
    scale, digits = (100, PERCENT.get(measure, 0)) if is_share(measure) else (1, 2)
    digits = 0 if abs(interval.estimate) >= 100 else digits
    low, high = (f"{scale * bound:.{digits}f}" for bound in (interval.low, interval.high))
    bounds = "" if math.isnan(interval.low) else f" [{low}, {high}]"
    return f"{scale * interval.estimate:.{digits}f}{bounds}"


def change(measure: str, interval: Interval, p: float | None) -> str:
    """A difference with its sign, its interval, and its corrected p-value `p` (None: not tested)."""
    scale, digits = (100, max(1, PERCENT.get(measure, 0))) if is_share(measure) else (1, 2)
    low, high = (f"{scale * bound:+.{digits}f}" for bound in (interval.low, interval.high))
    bounds = "" if math.isnan(interval.low) else f" [{low}, {high}]"
    return f"{scale * interval.estimate:+.{digits}f}{bounds}" + ("" if p is None else f", p = {p:.2g}")


def equal(measure: str) -> str:
    """``the same perplexity`` and the like, for sentences on comparisons at an equal level."""
    return {"non-words": "the same share of non-words", "on topic": "the same share on topic"}.get(
        measure, f"the same {measure}"
    )
