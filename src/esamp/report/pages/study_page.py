"""`study_page`: all samples of a study, side by side, as one HTML file."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from esamp.analysis.load import Block
from esamp.errors import InputError
from esamp.report.pages.html import asset, document, escape, inert_json
from esamp.report.pages.study_overview import PageBlock, overview
from esamp.report.pages.study_samples import packed
from esamp.study.config import Study
from esamp.study.run import TaskProblems

SCRIPTS = (
    "elements.js",
    "colouring.js",
    "tokens.js",
    "study_data.js",
    "study_table.js",
    "study_list.js",
    "study_map.js",
    "study_samples.js",
    "study.js",
)


def study_page(
    study: Study, blocks: Sequence[Block], problems: Mapping[str, TaskProblems], *, problems_shown: int | None = None
) -> str:
    """The page as HTML. Write it with ``encoding="utf-8"`` and open the file in a browser.

    The samples of each problem and seed are a deflated block of their own, a chunk. The page unpacks a chunk when it is
    shown, so that a page of ten thousand samples opens as fast as one of ten. For private tasks the page has grades and
    lengths only.

    All texts, labels and ids are untrusted. They are stored as JSON in inert blocks and inserted as text nodes only. A
    Content-Security-Policy admits the page's own script and style by their hashes, and no request.

    Args:
        study: the study that was run.
        blocks: its finished blocks, from `esamp.analysis.load.load`.
        problems: the problems of its tasks, from `esamp.study.run.load_tasks`.
        problems_shown: most problems of a block whose samples are on the page; None for all.

    Raises:
        InputError: there are no blocks, or `problems_shown` is below 1.
    """
    if not blocks:
        raise InputError("the study has no finished problems to show; esamp study run generates what is missing")
    if problems_shown is not None and problems_shown < 1:
        raise InputError(f"problems_shown = {problems_shown}: expected at least 1")
    shown = [PageBlock.build(block, problems[block.task], problems_shown) for block in blocks]
    data = [overview(study, each, problems[each.block.task]) for each in shown]
    chunks = [
        f'<script type="text/plain" id="chunk-{number}-{row}-{seed_row}">'
        f"{packed(each.block, item, seed, list(each.metrics), private=each.private)}</script>"
        for number, each in enumerate(shown)
        for seed_row, seed in enumerate(next(iter(each.block.arms.values())))
        for row, item in enumerate(each.items)
    ]
    slots = {
        "data": inert_json(data),
        "chunks": "\n".join(chunks),
        "footer": escape(f"esamp {version('esamp')}: esamp study report"),
    }
    style, script = asset("page.css") + asset("study.css"), "".join(asset(name) for name in SCRIPTS)
    return document("study.html", slots, title=study.name, style=style, script=script)
