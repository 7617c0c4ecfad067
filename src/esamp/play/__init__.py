"""The playground, `esamp play`: a web page that shows plain sampling and ESamp side by side while they draw.

settings    the settings of the page, read from the declarations of options
program     the Python program that draws the same samples
sources     where samples come from: a model in this process, or a server
following   the texts of samples while they are drawn
drawing     `Drawing`: one run of the page, in a thread of its own
playground  `Playground`: the source, the scorer, and the runs of all visitors
findings    figures and map of a finished run
markup      what a run looks like as HTML
palette     the colours of the package's other pages, for this one
page        the page itself, in Gradio
access      admits only visitors with the token
server      the web server
"""
