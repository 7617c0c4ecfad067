"""`render`: a `SamplesPage` as one HTML file that needs no network and runs nothing that a model wrote.

Every text of a page may come from a model and is untrusted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from esamp.errors import InputError
from esamp.report.pages.html import Json, asset, document, escape, inert_json
from esamp.report.pages.tree_page import tree_section, tree_style

COMPACT = 7
"""Most columns of a table that stands beside the text above the samples; a wider table goes below the text."""
SCRIPTS = ("elements.js", "colouring.js", "tokens.js", "samples.js")


@dataclass(frozen=True)
class SampleView:
    """One sample, token by token.

    A trace (`novelty`, `kl`, `surprisal`) has one number per token, with NaN or None where nothing was measured. It is
    empty if the sample was not traced.

    Raises:
        InputError: a trace and `tokens` differ in length.
    """

    tokens: Sequence[str]
    """decoded pieces that join to the sample's text"""
    novelty: Sequence[float | None] = ()
    """norm of the steering error e"""
    kl: Sequence[float | None] = ()
    """KL(steered || reference) in nats"""
    surprisal: Sequence[float | None] = ()
    """-log p of the token under the reference distribution, in nats"""
    correct: bool | None = None
    """None if the sample is not graded"""
    answer: str = ""
    """the parsed answer in the task's canonical form; the page counts the different answers of the correct samples"""
    reason: str = ""
    """why the sample is right or wrong, or why no answer could be parsed"""

    def __post_init__(self) -> None:
        for name, values in (("novelty", self.novelty), ("kl", self.kl), ("surprisal", self.surprisal)):
            if len(values) not in (0, len(self.tokens)):
                raise InputError(
                    f"{name} has {len(values)} values for {len(self.tokens)} tokens: give one value per token, "
                    "NaN where it is unknown"
                )


@dataclass(frozen=True)
class ProblemView:
    """One problem with the samples of every arm (a decoding method with its settings)."""

    id: str
    prompt: str
    reference: str
    """the expected answer; empty if there is none to show"""
    arms: Mapping[str, Sequence[SampleView]]
    """samples by the name of the arm; all problems of a page have the same arms"""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """summary of an arm's samples, by its name; without one the page counts all and the correct samples"""


@dataclass(frozen=True)
class ComparisonTable:
    """A table with a row for each arm. The caller formats the cells.

    Raises:
        InputError: a row has more or fewer cells than there are columns.
    """

    columns: Sequence[str]
    """column heads; the first column holds the names of the arms"""
    rows: Sequence[Sequence[str]]
    note: str = ""
    """explains the numbers and intervals; shown below the table"""
    marked: str = ""
    """first cell of the row to emphasise; empty for none"""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"the row {list(row)!r} has {len(row)} cells for {len(self.columns)} columns")


@dataclass(frozen=True)
class SamplesPage:
    """The content of a page.

    At first, the page shows the first two arms left and right. Put the baseline first.

    Raises:
        InputError: problems have the same id or different arms, or there is no problem number `opens`.
    """

    title: str
    intro: Sequence[str]
    """sentences; the first is shown in large print and should state the result in full"""
    summary: ComparisonTable
    problems: Sequence[ProblemView]
    footer: str = ""
    """how the page was made: version, command"""
    trees: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """searches to draw below the samples, by name: `Completion.details` of `tree_of_thoughts`"""
    opens: int = 0
    """index of the problem that is shown first"""
    noun: str = "Problem"
    """what the page calls a problem: 'Problem' or 'Prompt'"""

    def __post_init__(self) -> None:
        if self.problems and not 0 <= self.opens < len(self.problems):
            raise InputError(f"opens = {self.opens}: expected the index of one of {len(self.problems)} problems")
        seen: set[str] = set()
        for problem in self.problems:
            if problem.id in seen:
                raise InputError(f"two problems have the id '{problem.id}': give each its own id")
            seen.add(problem.id)
            if set(problem.arms) != set(self.arms):
                raise InputError(f"problem '{problem.id}' has the arms {list(problem.arms)}, not {list(self.arms)}")

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms in the order of the first problem."""
        return tuple(self.problems[0].arms) if self.problems else ()


def render(page: SamplesPage) -> str:
    """The page as HTML. Write it with ``encoding="utf-8"`` and open the file in a browser.

    The texts of the page's frame are escaped. Samples are stored as JSON in an inert block and inserted as text nodes
    only. A Content-Security-Policy admits the page's own script and style by their hashes, and no request. Lone
    surrogates become U+FFFD, and control characters their pictures.
    """
    slots = {
        "lead": _paragraph("lead", page.intro[:1]),
        "intro": _paragraph("intro", page.intro[1:]),
        "summary": _table(page.summary),
        "noun": escape(page.noun),
        "nouns": escape(page.noun.lower()),
        "trees": "".join(
            f"<section><h2>{escape(name)}</h2>{tree_section(details, 'tree' + 'x' * index)}</section>"
            for index, (name, details) in enumerate(page.trees.items())
        ),
        "data": inert_json(_payload(page)),
        "footer": escape(page.footer),
    }
    style = asset("page.css") + asset("samples.css") + (tree_style() if page.trees else "")
    script = "".join(asset(name) for name in SCRIPTS)
    return document("samples.html", slots, title=page.title, style=style, script=script)


def _paragraph(name: str, sentences: Sequence[str]) -> str:
    return f'<p class="{name}">{escape(" ".join(sentences))}</p>' if sentences else ""


def _table(table: ComparisonTable) -> str:
    if not table.columns:
        return ""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join(
        f"<tr{_mark(first, table)}>"
        f'<th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in table.rows
    )
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    folded = f"<details><summary>What the columns are</summary>{note}</details>" if note else ""
    region = f'<div class="scroll" role="region" aria-label="Comparison of the arms" tabindex="0">{grid}</div>'
    return f'<div class="summary{" broad" if len(table.columns) > COMPACT else ""}">{region}{folded}</div>'


def _mark(first: str, table: ComparisonTable) -> str:
    return ' class="marked"' if table.marked and first == table.marked else ""


def _payload(page: SamplesPage) -> Json:
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
    """Four significant digits, enough for colours and readers; null for what is not finite."""
    return [float(f"{value:.4g}") if value is not None and math.isfinite(value) else None for value in values]
