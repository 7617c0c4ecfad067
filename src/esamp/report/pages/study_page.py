"""`study_page`: all samples of a study, side by side, as one HTML file."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from esamp.analysis.load import Block
from esamp.errors import InputError
from esamp.report.pages.html import asset, escape, filled, inert_json, policy
from esamp.report.pages.study_samples import packed
from esamp.report.pages.study_view import overview, part
from esamp.study.config import Study
from esamp.study.run import TaskProblems

SCRIPTS = (
    "heat.js",
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
    """The page as HTML. Write it with ``encoding="utf-8"`` and open the file: nothing else is needed.

    The samples of a problem and seed are a deflated block of their own, which is read when it is looked at: a page of
    ten thousand samples opens as fast as one of ten. Of private tasks there are grades and lengths alone.

    All texts, labels and ids are untrusted. They travel as JSON in inert blocks and reach the document as text nodes
    only; a Content-Security-Policy admits the page's own script and style by their hashes and no request at all.

    Args:
        study: what was run.
        blocks: what `esamp.analysis.load.load` found of it.
        problems: of `esamp.study.run.load_tasks`.
        problems_shown: at most so many problems of a block have their samples on the page, which says so; None: all.

    Raises:
        InputError: no blocks, or `problems_shown` below 1.
    """
    if not blocks:
        raise InputError("no finished problems to show: esamp study run does what is missing")
    if problems_shown is not None and problems_shown < 1:
        raise InputError(f"problems_shown = {problems_shown}: give at least 1")
    style, script = asset("page.css") + asset("study.css"), "".join(asset(name) for name in SCRIPTS)
    parts = [part(block, problems[block.task], problems_shown) for block in blocks]
    data = [overview(study, each, problems[each.block.task]) for each in parts]
    chunks = [
        f'<script type="text/plain" id="chunk-{place}-{row}-{seed_row}">'
        f"{packed(each.block, item, seed, list(each.metrics), private=each.private)}</script>"
        for place, each in enumerate(parts)
        for seed_row, seed in enumerate(next(iter(each.block.arms.values())))
        for row, item in enumerate(each.items)
    ]
    slots = {
        "policy": policy(style, script),
        "title": escape(study.name),
        "style": style,
        "data": inert_json(data),
        "chunks": "\n".join(chunks),
        "script": script,
        "footer": escape(f"esamp {version('esamp')}: esamp study report"),
    }
    return filled("study.html", slots)
