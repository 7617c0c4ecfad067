"""The page in Gradio: its components, and what happens when a visitor runs a prompt."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from esamp.errors import EsampError
from esamp.play import markup
from esamp.play.drawing import View
from esamp.play.map import sample_map
from esamp.play.palette import style
from esamp.play.playground import Playground
from esamp.play.program import program
from esamp.play.settings import CHOICES, SETTINGS, Choice, Setting, of_preset, read
from esamp.report.pages.html import escape

TITLE = "ESamp playground"
PROMPT = "Describe an imaginary animal in one sentence."
PRESET = SETTINGS[0].name
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
"""Arguments of all events: they are not part of an API, and the page shows progress itself."""
QUEUE = 32
"""Most runs that wait for their turn."""
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
MONOSPACE = ("ui-monospace", "Menlo", "Consolas", "Noto Sans Mono", "DejaVu Sans Mono", "monospace")
Update = dict[Any, Any]
"""New values by component."""


@dataclass(frozen=True)
class Outputs:
    """The components that a run changes."""

    status: Any
    columns: tuple[Any, Any]
    legend: Any
    figures: Any
    map: Any
    code: Any

    def all(self) -> list[Any]:
        """All of them."""
        return [self.status, *self.columns, self.legend, self.figures, self.map, self.code]


def build(playground: Playground) -> Any:
    """The page as ``gradio.Blocks``, which `esamp.play.server` serves."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        _html(_head(playground), elem_id="head")
        prompt = gr.Textbox(
            PROMPT, label="Prompt", lines=1, max_lines=8, max_length=20_000, elem_id="prompt", autofocus=True
        )
        fields = _fields()
        with gr.Row(elem_classes="actions"):
            run = gr.Button("Run", variant="primary", elem_id="run", scale=0)
            stop = gr.Button("Stop", elem_id="stop", scale=0)
            status = _html('<p role="status"></p>', elem_id="status")
        outputs = _outputs(status)

        def start(request: gr.Request, text: str, *values: Any) -> Iterator[Update]:
            yield from _run(playground, str(request.session_hash), text, values, outputs)

        def wait(request: gr.Request) -> str:
            playground.stop(str(request.session_hash))  # a visitor has one run
            return markup.waiting()

        def halt(request: gr.Request) -> str:
            playground.stop(str(request.session_hash), wait=True)
            return markup.stopped()

        def leave(request: gr.Request) -> None:
            playground.stop(str(request.session_hash))

        inputs = [prompt, *fields]
        _follow_preset(fields[0], fields)
        others = [field for field, setting in zip(fields, SETTINGS, strict=True) if setting.name != PRESET]
        events = [run.click, prompt.submit, *(field.submit for field in others)]
        begun = gr.on(events, wait, None, status, queue=False, **PRIVATE)
        running = begun.then(start, inputs, outputs.all(), concurrency_limit=1, concurrency_id="source", **PRIVATE)
        stop.click(halt, None, status, queue=False, cancels=[running], **PRIVATE)
        blocks.unload(leave)
    blocks.queue(max_size=QUEUE, default_concurrency_limit=1)
    return blocks


def appearance() -> dict[str, Any]:
    """Theme and style, as arguments of ``gradio.mount_gradio_app``. Nothing in them is loaded from elsewhere."""
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=list(FONTS), font_mono=list(MONOSPACE))
    return {"theme": theme, "css": style()}


def _head(playground: Playground) -> str:
    source = playground.source
    sent = "Prompts go through its chat template." if source.chats else "It continues the prompt as plain text."
    return (
        f"<h1>{TITLE}</h1><p>The same prompt with plain sampling and with Exploratory Sampling, which tilts each token "
        f"toward what the samples so far did not make predictable. Model: <b>{escape(source.name)}</b>. {sent}</p>"
    )


def _html(value: str = "", **more: Any) -> Any:
    """A part of the page that `esamp.play.markup` fills, without Gradio's own style."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **more)


def _fields() -> list[Any]:
    """A component for each of `SETTINGS`, and what they mean."""
    with gr.Row(elem_classes="settings"):
        fields = [_field(setting) for setting in SETTINGS]
    items = "".join(
        f"<dt>{escape(each.title)}</dt><dd>{escape(each.description)} ({escape(each.help)})</dd>" for each in SETTINGS
    )
    _html(f"<details class='note'><summary>What the settings mean</summary><dl>{items}</dl></details>")
    return fields


def _field(setting: Setting) -> Any:
    common = {"label": setting.title, "elem_id": setting.name, "min_width": 120}
    if setting.name == PRESET:
        return gr.Dropdown(list(CHOICES), value=setting.start, **common)
    start = of_preset(str(SETTINGS[0].start))[setting.name] if setting.by_preset else setting.start
    return gr.Number(start, step=0.05 if isinstance(start, float) else 1, **common)


def _follow_preset(preset: Any, fields: list[Any]) -> None:
    """Show a preset's values when it is chosen."""
    following = [setting.name for setting in SETTINGS if setting.by_preset]

    def values(name: str) -> list[float]:
        return [of_preset(name)[setting] for setting in following]

    targets = [field for field, setting in zip(fields, SETTINGS, strict=True) if setting.by_preset]
    preset.input(values, preset, targets, queue=False, **PRIVATE)


def _outputs(status: Any) -> Outputs:
    legend = _html(elem_id="legend")
    with gr.Row(elem_classes="arms"):
        columns = (_html(elem_id="plain"), _html(elem_id="esamp"))
    with gr.Row(elem_classes="results"):
        figures, map = _html(elem_id="figures"), _html(elem_id="map")
    code = gr.Code(
        language="python",
        label="The same samples in Python",
        interactive=False,
        visible=False,
        elem_id="code",
        buttons=["copy"],
    )
    return Outputs(status, columns, legend, figures, map, code)


def _run(
    playground: Playground, visitor: str, text: str, values: tuple[Any, ...], outputs: Outputs
) -> Iterator[Update]:
    """The updates of a run from its start to its end."""
    try:
        choice = read(text, {setting.name: value for setting, value in zip(SETTINGS, values, strict=True)})
    except EsampError as error:
        yield {outputs.status: markup.problem(str(error))}
        return
    code = program(playground.source.origin, choice)
    yield {outputs.figures: "", outputs.map: "", outputs.code: gr.Code(code, visible=True)}
    with playground.drawing(visitor, choice) as drawing:
        view, shown = drawing.look(), None
        while True:
            if view is not shown:
                yield _update(view, shown, choice, outputs, measures=playground.source.measures)
            if view.over:
                return
            shown = view
            view = drawing.look(seen=shown)


def _update(view: View, shown: View | None, choice: Choice, outputs: Outputs, *, measures: bool) -> Update:
    """What differs between a view and the one shown before it."""
    update: Update = {outputs.status: markup.status(view)}
    for index, arm in enumerate(view.arms):
        if shown is None or arm is not shown.arms[index]:
            update[outputs.columns[index]] = markup.column(arm, choice.n)
            update[outputs.legend] = markup.legend(view.arms[-1], measures=measures)
    if view.findings is not None:
        for index, (arm, remark) in enumerate(zip(view.arms, view.findings.remarks, strict=True)):
            update[outputs.columns[index]] = markup.column(arm, choice.n, remark)
        update[outputs.figures] = markup.figures(view.findings)
        update[outputs.map] = sample_map(view.findings, [arm.arm.label for arm in view.arms])
    return update
