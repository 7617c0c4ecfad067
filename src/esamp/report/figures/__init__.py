"""The figures of a report, drawn with matplotlib and written as SVG and PNG.

files      `figures`: all figures of a study as files
contents   which figures a block gets, with captions and alternative texts
series     the numbers behind the figures: curves and points with intervals
plots      curves and points on matplotlib's axes
styles     colour, marker and line of every arm
requirement whether matplotlib is installed
canvas     matplotlib with fixed settings: layout, legend, labels, saving
"""

from esamp.report.figures.files import FORMATS, FigureFile, figures

__all__ = ["FORMATS", "FigureFile", "figures"]
