"""The HTML page that shows samples: fill a `Page`, `render` it, write the text to a file, open it from disk."""

from esamp.report.pages.page import Page, ProblemView, SampleView, Summary
from esamp.report.pages.render import render

__all__ = ["Page", "ProblemView", "SampleView", "Summary", "render"]
