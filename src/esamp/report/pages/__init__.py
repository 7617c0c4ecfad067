"""Self-contained HTML pages that show samples.

samples_page     samples of several arms side by side: fill a `SamplesPage` and `render` it
study_page       all samples of a study, with its tables and maps
study_overview   what the page of a study shows of a block before a sample is opened
study_samples    the samples of one problem and seed, packed
projection       embeddings on a plane
tree_page        the tree of a search
tree_view        what is shown of each node, read from a search's details
tree_list        the tree as nested lists
tree_map         the tree as a picture
html             templates, escaping, Content-Security-Policy
"""

from esamp.report.pages.samples_page import ComparisonTable, ProblemView, SamplesPage, SampleView, render

__all__ = ["ComparisonTable", "ProblemView", "SampleView", "SamplesPage", "render"]
