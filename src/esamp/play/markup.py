"""What a run looks like as HTML. All texts are untrusted: they pass `escape`, and no other markup contains them."""

import math
from collections.abc import Sequence

from esamp.compare.formatting import number_text
from esamp.explorer.config import ESampConfig
from esamp.play.drawing import ArmView, View
from esamp.play.findings import RunFindings
from esamp.report.pages import ComparisonTable, SampleView
from esamp.report.pages.html import escape

STEPS = 7
"""Colours of the scale."""
FULL = 0.98
"""Quantile of the measured values at which the scale ends, so that one outlier does not make all others pale."""
WORDS = {"waiting": "waits", "drawing": "is drawing", "finished": "has finished", "stopped": "has stopped"}

WAITING, STOPPED = "Waits for its turn.", "Stopped. Nothing is running."


def top(samples: Sequence[SampleView]) -> float:
    """The novelty at which the scale ends: the quantile `FULL` of all tokens; 0 if nothing was measured."""
    values = sorted(v for sample in samples for v in sample.novelty if v is not None and math.isfinite(v))
    return values[math.floor(FULL * (len(values) - 1))] if values else 0.0


def column(view: ArmView, n: int, remark: str = "") -> str:
    """One arm: what it is, what its `n` samples amount to, and the samples as a list."""
    scale = top(view.samples)
    cursor = '<span class="cursor" aria-hidden="true"></span>' if view.state == "drawing" else ""
    items = [
        f'<li><span class="number" aria-hidden="true">{index + 1}</span>'
        f'<p dir="auto">{_text(sample, scale, titles=view.state == "finished")}{cursor}</p></li>'
        for index, sample in enumerate(view.samples)
    ]
    if not items:
        words = {"waiting": WAITING, "drawing": f"Draws {n} samples."}
        items = [f'<li class="empty"><p>{words.get(view.state, "No samples were drawn.")}</p></li>']
    amount = f"<b>{escape(remark)}</b>" if remark else "\u00a0"
    return (
        f'<h2>{_name(view)}</h2><p class="about">{escape(about(view))}<br>{amount}</p>'
        f'<ol class="drawn">{"".join(items)}</ol>'
    )


def about(view: ArmView) -> str:
    """The settings of an arm in words, and its time once it has finished."""
    sampling = view.arm.request("about", "", 1, 0).own_sampling
    parts = [f"temperature {sampling.temperature:g}"]
    if isinstance(view.arm.options, ESampConfig):
        parts = [f"preset {view.arm.options.preset}", f"beta {view.arm.options.beta:g}", *parts]
    if sampling.min_p:
        parts.append(f"min-p {sampling.min_p:g}")
    if view.state == "finished":
        parts.append(f"{view.seconds:.1f} s")
    return ", ".join(parts)


def _text(sample: SampleView, scale: float, *, titles: bool) -> str:
    if not sample.novelty or scale <= 0:
        return escape("".join(sample.tokens)) or "<i>(no text)</i>"
    return "".join(
        _token(token, value, scale, titles=titles) for token, value in zip(sample.tokens, sample.novelty, strict=True)
    )


def _token(token: str, value: float | None, scale: float, *, titles: bool) -> str:
    if value is None or not math.isfinite(value):
        return f"<span>{escape(token)}</span>"
    step = min(STEPS - 1, math.floor(value / scale * STEPS))
    title = f' title="novelty {value:.3g}"' if titles else ""
    return f'<span class="c{step}"{title}>{escape(token)}</span>'


def legend(view: ArmView, *, measures: bool) -> str:
    """The scale of novelty, or why there is none."""
    if not measures:
        return (
            '<p class="note">A server gives whole answers and no measurements of tokens: texts appear when they are '
            "complete, without the colours of novelty and without perplexity.</p>"
        )
    scale = top(view.samples)
    if scale <= 0:
        return '<p class="note">Each token of ESamp is coloured by its novelty once it is measured.</p>'
    bounds = [f"{scale * step / STEPS:.2g}" for step in range(STEPS)]
    items = "".join(f'<li><i class="c{step}"></i>{bound}</li>' for step, bound in enumerate(bounds))
    return (
        f'<p class="note" id="scale-name">Novelty of ESamp\u2019s tokens: how far the model\u2019s state is from what '
        "the samples so far made predictable. A sample\u2019s first token is not measured.</p>"
        f'<ol class="scale" aria-labelledby="scale-name">{items}</ol>'
    )


def status(view: View) -> str:
    """One line about the run, which screen readers announce."""
    if view.state == "failed":
        return f'<p class="error" role="alert">{escape(view.error)}</p>'
    words = {
        "waiting": WAITING,
        "running": " ".join(f"{_name(arm)} {WORDS[arm.state]}." for arm in view.arms),
        "measuring": "Measures the texts.",
        "finished": "Done.",
        "stopped": STOPPED,
    }
    running = " data-running" if view.state == "running" else ""  # the style shows cursors only then
    return f'<p role="status"{running}>{words[view.state]}</p>'


def waiting() -> str:
    """The same before a run's turn."""
    return f'<p role="status">{WAITING}</p>'


def stopped() -> str:
    """The same after a run was stopped."""
    return f'<p role="status">{STOPPED}</p>'


def _name(arm: ArmView) -> str:
    return escape(arm.arm.label[:1].upper() + arm.arm.label[1:])


def problem(message: str) -> str:
    """A message about a prompt or a setting that cannot be used."""
    return f'<p class="error" role="alert">{escape(message)}</p>'


def figures(findings: RunFindings) -> str:
    """The table of figures with its explanation."""
    note = "".join(f"<p>{escape(sentence)}</p>" for sentence in (findings.table.note, *findings.missing))
    return (
        f'<h2>Figures</h2><div class="scroll" role="region" aria-label="Figures" tabindex="0">{_table(findings.table)}'
        f'</div><details class="note"><summary>What the columns are</summary>{note}</details>'
        '<p class="note">One prompt and one seed show how the methods behave here; they do not rank them.</p>'
    )


def _table(table: ComparisonTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(
        f'<tr{" class=marked" if first == table.marked else ""}><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def percent(share: float) -> str:
    """A share as a percentage."""
    return number_text(100 * share, 0, " %")
