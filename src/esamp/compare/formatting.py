"""Numbers and samples as the views of comparisons show them."""

import math

from esamp.engines.base import Sample
from esamp.report.pages import SampleView
from esamp.tasks.base import Grade


def number_text(value: float, digits: int, unit: str = "") -> str:
    """A number with its unit, or a dash if it was not measured."""
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else "-"


def finite_or_none(value: float) -> float | None:
    """A number for JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def sample_view(sample: Sample, *, plain: bool = False, grade: Grade | None = None) -> SampleView:
    """A sample for the HTML page, with its trace if there is one.

    Args:
        sample: text and trace. A trace whose pieces do not join to the text (which a stop text may have cut) is left
            out.
        plain: whether the method changes nothing, so that the divergence is zero rather than not measured.
        grade: of the sample, if it was graded.
    """
    correct, answer, reason = (None, "", "") if grade is None else (grade.correct, grade.canonical or "", grade.reason)
    trace = sample.trace
    if trace is None or "".join(trace.pieces) != sample.text:
        return SampleView([sample.text], correct=correct, answer=answer, reason=reason)
    return SampleView(
        tokens=trace.pieces,
        novelty=trace.novelty.tolist(),
        kl=[0.0] * len(trace.pieces) if plain else trace.kl.tolist(),
        surprisal=trace.surprisal.tolist(),
        correct=correct,
        answer=answer,
        reason=reason,
    )
