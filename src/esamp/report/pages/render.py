"""`render`: a `Page` becomes one HTML file that needs no network and runs no text of a model."""

import math
from collections.abc import Sequence

from esamp.report.pages.html import Json, asset, escape, filled, inert_json, policy
from esamp.report.pages.page import Page, ProblemView, SampleView, Summary
from esamp.report.pages.tree import tree_section, tree_style

COMPACT = 7
"""Columns up to which the table stands beside the text above the samples; a broader one goes below it."""


def render(page: Page) -> str:
    """The page as HTML. Write it with ``encoding="utf-8"`` and open the file: nothing else is needed.

    All texts are untrusted. Those in the page's frame are escaped; samples travel as JSON in an inert block and reach
    the document as text nodes only; a Content-Security-Policy admits the page's own script and style by their hashes
    and no request at all. Lone surrogates become U+FFFD and control characters their pictures.
    """
    style, script = (
        asset("page.css") + asset("page_samples.css") + (tree_style() if page.trees else ""),
        "".join(asset(name) for name in ("heat.js", "tokens.js", "page.js")),
    )
    slots = {
        "policy": policy(style, script),
        "title": escape(page.title),
        "style": style,
        "lead": _paragraph("lead", page.intro[:1]),
        "intro": _paragraph("intro", page.intro[1:]),
        "summary": _table(page.summary),
        "noun": escape(page.noun),
        "nouns": escape(page.noun.lower()),
        "trees": "".join(
            f"<section><h2>{escape(name)}</h2>{tree_section(details, 'tree' + 'x' * place)}</section>"
            for place, (name, details) in enumerate(page.trees.items())
        ),
        "data": inert_json(_payload(page)),
        "script": script,
        "footer": escape(page.footer),
    }
    return filled("page.html", slots)


def _paragraph(name: str, sentences: Sequence[str]) -> str:
    return f'<p class="{name}">{escape(" ".join(sentences))}</p>' if sentences else ""


def _table(summary: Summary) -> str:
    if not summary.columns:
        return ""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in summary.columns)
    body = "".join(
        f"<tr{_mark(first, summary)}>"
        f'<th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in summary.rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    note = f'<p class="note">{escape(summary.note)}</p>' if summary.note else ""
    folded = f"<details><summary>What the columns are</summary>{note}</details>" if note else ""
    region = f'<div class="scroll" role="region" aria-label="Comparison of the arms" tabindex="0">{table}</div>'
    return f'<div class="summary{" broad" if len(summary.columns) > COMPACT else ""}">{region}{folded}</div>'


def _mark(first: str, summary: Summary) -> str:
    return ' class="marked"' if summary.marked and first == summary.marked else ""


def _payload(page: Page) -> Json:
    problems = [_problem(problem, page.arms) for problem in page.problems]
    return {"arms": page.arms, "problems": problems, "opens": page.opens, "noun": page.noun}


def _problem(problem: ProblemView, arms: Sequence[str]) -> Json:
    return {
        "id": problem.id,
        "prompt": problem.prompt,
        "reference": problem.reference,
        "arms": [[_sample(sample) for sample in problem.arms[arm]] for arm in arms],
        "remarks": [problem.remarks.get(arm, "") for arm in arms],
    }


def _sample(sample: SampleView) -> Json:
    return {
        "tokens": sample.tokens,
        "novelty": _numbers(sample.novelty),
        "kl": _numbers(sample.kl),
        "surprisal": _numbers(sample.surprisal),
        "correct": sample.correct,
        "answer": sample.answer,
        "reason": sample.reason,
    }


def _numbers(values: Sequence[float | None]) -> Json:
    """Four significant digits are more than a colour or a reader can use; what is not finite becomes null."""
    return [float(f"{value:.4g}") if value is not None and math.isfinite(value) else None for value in values]
