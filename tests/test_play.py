"""The playground without a browser: settings, program, runs, markup."""

import ast
import math
import re
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esamp.engines.base import Request
from esamp.engines.hf.following import Step
from esamp.errors import EsampError, OptionError, PromptError
from esamp.explorer.config import ESampConfig
from esamp.play import drawing as drawings
from esamp.play import markup
from esamp.play.drawing import ArmView, Drawing, View
from esamp.play.findings import RunFindings, find
from esamp.play.following import Follower
from esamp.play.map import sample_map
from esamp.play.palette import colours, style
from esamp.play.playground import Playground
from esamp.play.program import Origin, program
from esamp.play.settings import MOST_SAMPLES, SETTINGS, Choice, of_preset, read
from esamp.play.sources import LocalModel, ServerSource
from esamp.report.pages import ComparisonTable, SampleView
from esamp.report.pages.html import clean
from esamp.report.pages.projection import plane
from esamp.sampling import Sampling
from support.hf_models import count_hooks
from support.page_checks import HOSTILE
from support.play_runs import PROMPT, embedded, finished, plain_scorer, values, wait_until
from support.scripted_server import ScriptedServer, completion


@pytest.fixture(scope="module")
def source() -> LocalModel:
    return embedded()


@pytest.fixture
def playground(source: LocalModel) -> Iterator[Playground]:
    started = Playground(source, plain_scorer())
    yield started
    started.close()


def texts(view: ArmView) -> list[str]:
    return ["".join(sample.tokens) for sample in view.samples]


# ---- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "option 'n' = 0: expected a whole number from 1"),
        ({"n": MOST_SAMPLES + 1}, "this page takes at most 64"),
        ({"n": 2.5}, "option 'n' = 2.5: expected a whole number"),
        ({"n": None}, "Samples is empty"),
        ({"beta": 17}, "option 'beta' = 17: expected a number from 0 to 16"),
        ({"temperature": -1}, "option 'temperature' = -1: expected a number from 0 to 100"),
        ({"max_tokens": 513}, "at most 512"),
        ({"seed": -1}, "option 'seed' = -1"),
        ({"preset": "<b>"}, "option 'preset' = '<b>': expected one of"),
        ({"esamp_temperature": "hot"}, "option 'temperature' = 'hot'"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_with_its_name_and_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        read(PROMPT, values(**changes))


@pytest.mark.parametrize("prompt", ["", " \n ", None, 3])
def test_an_empty_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(PromptError, match="type a text"):
        read(prompt, values())


def test_the_values_of_a_preset_are_those_of_its_declaration() -> None:
    assert of_preset("paper") == {"beta": ESampConfig(preset="paper").beta, "esamp_temperature": 1.0}
    assert of_preset("open") == {"beta": 0.5, "esamp_temperature": 0.8}


def test_only_what_differs_from_the_preset_is_set() -> None:
    _, explored = read(PROMPT, values(**of_preset("answers"), preset="answers")).arms
    assert explored.options.model_fields_set == {"preset"}
    assert explored.sampling.model_fields_set == {"max_tokens"}
    sampling = explored.request("r", PROMPT, 1, 0).own_sampling
    assert (sampling.temperature, sampling.min_p) == (1.0, 0.1)
    _, changed = read(PROMPT, values(beta=1, esamp_temperature=1.5)).arms
    assert changed.options == ESampConfig(preset="open", beta=1)
    assert changed.sampling == Sampling(max_tokens=12, temperature=1.5)


# ---- the program


def run_of(choice: Choice, source: LocalModel) -> View:
    started = Drawing(source, plain_scorer(), choice, threading.Lock())
    started.start()
    return finished(started)


@pytest.mark.parametrize("preset", ["open", "paper", "answers"])
def test_the_program_draws_the_samples_of_the_page(source: LocalModel, preset: str) -> None:
    choice = read(PROMPT, values(preset=preset, **of_preset(preset), seed=5, n=4, max_tokens=60))
    view = run_of(choice, source)
    assert view.state == "finished", view.error
    names: dict[str, list[str]] = {}
    exec(program(source.origin, choice), names)
    assert [texts(arm) for arm in view.arms] == [names["plain"], names["explored"]]
    assert names["plain"] != names["explored"]  # else the comparison would show nothing


@given(st.text(min_size=1))
def test_no_prompt_becomes_code_of_the_program(prompt: str) -> None:
    if not prompt.strip():
        return
    text = program(Origin("a 'name'", dtype="bfloat16", chat=True), read(prompt, values()))
    assert all(character.isprintable() or character == "\n" for character in text)
    tree = ast.parse(text)
    assert [type(node) for node in tree.body] == [ast.Import, *[ast.Assign] * 4, *[ast.Expr] * 2]
    assigned = tree.body[1]
    assert isinstance(assigned, ast.Assign)
    assert ast.literal_eval(assigned.value) == prompt


def test_the_program_for_a_server_names_its_address() -> None:
    text = program(Origin(None, endpoint="http://127.0.0.1:8000/v1", chat=True), read("Hi", values()))
    assert 'esamp.load(None, engine="openai", base_url="http://127.0.0.1:8000/v1")' in text
    assert "chat=True" in text


# ---- following the transformers engine


@pytest.mark.parametrize("method", ["vanilla", "esamp"])
def test_followed_samples_are_those_of_the_completion(source: LocalModel, method: str) -> None:
    request = Request("r", PROMPT, 4, Sampling(max_tokens=60, stop=("13", "20")), method)
    follower = Follower(source.tokenizer, 4)
    drawn = source.draw(request, follower.add, lambda: None)
    assert len({len(sample.token_ids) for sample in drawn.samples}) > 1  # some end before others
    for view, sample in zip(follower.views(), drawn.samples, strict=True):
        assert sample.trace is not None
        assert tuple(view.tokens) == sample.trace.pieces
        if method == "esamp":
            assert torch.allclose(torch.tensor(view.novelty), sample.trace.novelty, equal_nan=True)


def test_each_step_reports_the_tokens_of_the_live_rows(source: LocalModel) -> None:
    requests = [Request(name, f"Numbers 3 5 8 target {name}", 3, Sampling(max_tokens=60)) for name in ("19", "24")]
    steps: list[Step] = []
    drawn = list(source._engine.outcomes(requests, on_step=steps.append))
    counts = sum(step.live.long() for step in steps)
    assert isinstance(counts, torch.Tensor)
    lengths = [len(sample.token_ids) for outcome in drawn for sample in outcome.samples]  # type: ignore[union-attr]
    assert counts.tolist() == lengths
    first = [int(step.tokens[4]) for step in steps if step.live[4]]
    assert tuple(first) == drawn[1].samples[1].token_ids  # type: ignore[union-attr]


def test_an_exception_of_the_follower_ends_the_decoding(source: LocalModel) -> None:
    hooks = count_hooks(source._engine.model)
    calls = []

    def on_step(step: Step) -> None:
        calls.append(step)
        if len(calls) == 3:
            raise EsampError("enough")

    with pytest.raises(EsampError, match="enough"):
        source.draw(Request("r", PROMPT, 2, Sampling(max_tokens=50)), on_step, lambda: None)
    assert len(calls) == 3
    assert count_hooks(source._engine.model) == hooks


# ---- runs


def long_choice(**changes: object) -> Choice:
    return read(PROMPT, values(n=2, max_tokens=400, **changes))


def test_samples_grow_while_they_are_drawn(playground: Playground) -> None:
    seen: list[int] = []
    with playground.drawing("a", read(PROMPT, values(n=8, max_tokens=200))) as run:
        view = run.look()
        while not view.over:
            seen.append(sum(len(sample.tokens) for sample in view.arms[0].samples))
            view = run.look(seen=view)
    assert view.state == "finished", view.error
    assert view.findings is not None
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


def test_a_stopped_run_keeps_its_samples_and_leaves_nothing_running(playground: Playground) -> None:
    with playground.drawing("a", long_choice()) as run:
        wait_until(lambda: bool(run.look().arms[0].samples))
        playground.stop("a")
        view = finished(run)
    assert view.state == "stopped"
    assert view.arms[0].samples
    run.join()
    assert playground.running == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "esamp-play"]


def test_a_run_that_no_page_looks_at_ends(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "PATIENCE", 0.3)
    with playground.drawing("a", long_choice()) as run:
        begun = time.monotonic()
        run.join()
        assert run.look().state == "stopped"
        assert time.monotonic() - begun < 30


def test_closing_waits_for_runs_whose_visitors_have_left(source: LocalModel) -> None:
    """Their threads may still draw a token; the process would abort if they were within PyTorch at its exit."""
    started = Playground(source, plain_scorer())
    with started.drawing("a", long_choice()) as run:
        wait_until(lambda: bool(run.look().arms[0].samples))
    started.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "esamp-play"]


def test_a_visitor_cannot_stop_the_run_of_another_one(playground: Playground) -> None:
    with playground.drawing("a", long_choice()) as first, playground.drawing("b", read("Numbers", values())) as second:
        wait_until(lambda: first.look().state == "running")
        assert second.look().state == "waiting"
        playground.stop("c")
        playground.stop("b")
        assert finished(second).state == "stopped"
        assert first.look().state == "running"


def test_a_run_after_another_visitors_draws_what_it_draws_alone(playground: Playground, source: LocalModel) -> None:
    choice = read(PROMPT, values(seed=3))
    alone = run_of(choice, source)
    with playground.drawing("a", long_choice()) as first, playground.drawing("b", choice) as second:
        wait_until(lambda: first.look().state == "running")
        second.look()
        playground.stop("a")
        view = finished(second)
    assert [texts(arm) for arm in view.arms] == [texts(arm) for arm in alone.arms]


def test_a_prompt_that_is_too_long_is_an_error_of_the_run(playground: Playground) -> None:
    with playground.drawing("a", read("7 " * 2000, values())) as run:
        view = finished(run)
    assert view.state == "failed"
    assert "exceed the model's context" in view.error


# ---- a server


def test_a_server_answers_in_one_piece(script: ScriptedServer) -> None:
    script.replies[:] = [(200, completion(3, text="an answer"))]
    server = ServerSource(Origin(None, endpoint=script.url))
    drawn = server.draw(
        Request("r", "Hi", 3, Sampling(max_tokens=4), "vanilla"), lambda step: pytest.fail("no steps"), lambda: None
    )
    assert [sample.text for sample in drawn.samples] == ["an answer"] * 3
    assert not server.measures
    assert "without the colours of novelty" in markup.legend(ArmView(read("Hi", values()).arms[1]), measures=False)


def test_a_stop_ends_a_request_at_a_server_at_once(script: ScriptedServer) -> None:
    script.replies[:] = [(200, completion(3))]
    script.pause = 15.0
    server = ServerSource(Origin(None, endpoint=script.url))
    run = Drawing(server, plain_scorer(), read("Hi", values()), threading.Lock())
    run.start()
    wait_until(lambda: bool(script.bodies))
    begun = time.monotonic()
    run.stop()
    run.join()
    assert time.monotonic() - begun < 10
    assert run.look().state == "stopped"


# ---- what the page shows


class Tags(HTMLParser):
    """The elements and attributes of a piece of HTML, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names, self.attributes, self.text = set[str](), set[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data


OWN = {"h2", "p", "br", "b", "ol", "li", "span", "i", "ul", "svg", "g", "title", "circle", "rect", "text", "details"}
OWN |= {"summary", "div", "table", "thead", "tbody", "tr", "th", "td"}
HANDLERS = ("on", "href", "src", "style")
MARKUP = (*HOSTILE, "[x](javascript:alert(1))", "$$\\href{javascript:alert(1)}{x}$$", "${alert(1)} {{alert(1)}} `x`")


@pytest.mark.parametrize("text", MARKUP)
def test_texts_of_models_and_visitors_stay_texts(text: str) -> None:
    arm = read("Hi", values()).arms[1]
    view = ArmView(arm, "finished", (SampleView([text], [2.0]), SampleView([text])))
    points = plane(torch.eye(4).numpy())
    summary = some_table()
    found = RunFindings(summary, (text, text), ((text, "b"), ("c", text)), points, (text,))
    whole = [markup.column(view, 2, text), markup.figures(found), sample_map(found, [text, "ESamp"])]
    whole += [markup.status(View((view,), "failed", error=text)), markup.problem(text)]
    for piece in whole:
        tags = Tags(piece)
        assert tags.names <= OWN
        assert not any(name.startswith(HANDLERS) for name in tags.attributes)
    assert clean(text) in Tags(whole[0]).text


def some_table() -> ComparisonTable:
    choice = read(PROMPT, values())
    drawn = [embedded().draw(choice.request(arm, chat=False), lambda step: None, lambda: None) for arm in choice.arms]
    return find(PROMPT, choice.arms, drawn, plain_scorer()).table


def test_colours_rise_with_novelty_and_end_at_the_scale() -> None:
    values_ = [float(number) for number in range(100)]
    sample = SampleView([f"t{number} " for number in range(100)], values_)
    assert markup.top([sample]) == 97.0  # the 98th percentile of 0..99
    classes = re.findall(r'class="c(\d)"', markup.column(ArmView(read("Hi", values()).arms[1], samples=(sample,)), 1))
    assert [int(step) for step in classes] == [min(6, math.floor(7 * value / 97)) for value in values_]


def test_a_token_that_was_not_measured_has_no_colour() -> None:
    sample = SampleView(["a", "b", "c"], [float("nan"), 1.0, None])
    piece = markup.column(ArmView(read("Hi", values()).arms[1], samples=(sample,)), 1)
    assert '<span>a</span><span class="c6">b</span><span>c</span>' in piece


def test_every_colour_of_the_style_is_declared() -> None:
    light, dark = colours()
    assert set(light) == set(dark)
    assert light["--ink"] != dark["--ink"]
    assert set(re.findall(r"var\((--[\w-]+)\)", style())) <= set(light)


def test_each_setting_shows_the_description_of_its_declaration() -> None:
    for setting in SETTINGS:
        assert setting.description
        assert setting.help
