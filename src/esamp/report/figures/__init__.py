"""The figures of a report: what was measured, drawn with matplotlib, as SVG and PNG."""

from esamp.report.figures.files import FORMATS, Figure, figures

__all__ = ["FORMATS", "Figure", "figures"]
