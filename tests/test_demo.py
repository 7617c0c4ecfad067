"""`esamp demo` on a chat model: table, samples, JSON and page, and missing packages."""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from esamp.analysis.open_prompts import DEMO_PROMPTS, OTHER_PROMPTS
from esamp.analysis.text_scores import TextScorer, TextScores
from esamp.cli import main
from esamp.cli.samples import clipped, console_for
from esamp.compare import chat_demo, chat_demo_view
from esamp.compare.chat_demo import ARMS, DEFAULT, ChatResult
from esamp.engines.base import Completion, Request, Sample
from esamp.engines.hf import HFEngine
from esamp.engines.token_trace import TokenTrace
from esamp.models import SMOLLM2
from esamp.study.arm import Arm
from support.chat_model import save_chat_model

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

Output = pytest.CaptureFixture[str]
COOL, HOT = (arm for arm in ARMS if chat_demo.is_unfiltered(arm))
SIZE = ("-n", "4", "--max-tokens", "16")


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sentence_transformers", "wordfreq"):
        monkeypatch.setitem(sys.modules, module, None)


def outcome(arm: Arm, vendi: list[float], nll: float) -> ChatResult:
    """A result with these Vendi Scores and `nll` nats per token."""
    completions = []
    for _ in vendi:
        values = torch.tensor([9.0, nll, nll])  # the first token does not count
        trace = TokenTrace(values, values, values, ("a", "b", "c"))
        samples = tuple(Sample(index, f"text {index}", (1, 2, 3), "stop", trace) for index in range(5))
        completions.append(Completion(Request("x", "x", n=5), samples, 1, 1.0))
    return ChatResult(arm, tuple(completions), tuple(TextScores(vendi=value) for value in vendi))


# ---- what is compared


def test_perplexity_is_the_undisturbed_models_for_every_arm(chat_model: Path) -> None:
    engine = HFEngine.load(chat_model, trace=True)
    meter = TextScorer(None, words=False)
    for found in chat_demo.run(engine, ["A b c"], meter, chat=True, samples=3, max_tokens=8):
        completion = found.completions[0]
        exact = [each.total for each in engine.score(completion.request, completion.samples)]
        firsts = [replace(sample, token_ids=sample.token_ids[:1]) for sample in completion.samples]
        first = [each.total for each in engine.score(completion.request, firsts)]
        tokens = sum(len(sample.token_ids) - 1 for sample in completion.samples)
        assert found.nll[0] == pytest.approx((sum(first) - sum(exact)) / tokens, rel=1e-3), found.arm.label


def test_gain_is_over_plain_sampling_interpolated_in_log_perplexity() -> None:
    arms = [outcome(COOL, [4, 6], 1.0), outcome(HOT, [8, 10], 3.0), outcome(DEFAULT, [8, 9], 1.5)]
    found = chat_demo.gain(arms)
    assert found.plain == pytest.approx(6.0)  # a quarter of the way: 5 and 7
    assert found.difference.estimate == pytest.approx(2.5)
    assert found.where == "at the same perplexity"


@pytest.mark.parametrize(
    ("nll", "plain", "words"), [(0.5, 5, "temperature 0.7, which has a higher"), (4.0, 9, "temperature 1, which has a")]
)
def test_outside_of_plain_samplings_range_the_nearer_temperature_is_named(nll: float, plain: float, words: str) -> None:
    found = chat_demo.gain([outcome(COOL, [4, 6], 1.0), outcome(HOT, [8, 10], 3.0), outcome(DEFAULT, [8, 9], nll)])
    assert found.plain == pytest.approx(plain)
    assert words in found.where


def test_samples_are_shown_beside_plain_sampling_of_the_nearest_perplexity() -> None:
    arms = [outcome(COOL, [4, 6, 5], 1.0), outcome(HOT, [8, 10, 9], 3.0), outcome(DEFAULT, [5, 9, 6], 2.5)]
    assert chat_demo.comparable(arms).arm == HOT
    assert chat_demo.most_telling(arms) == 1  # the difference is -1 there, and -3 elsewhere
    cooler = [*arms[:2], outcome(DEFAULT, [5, 6, 9], 1.5)]
    assert chat_demo.comparable(cooler).arm == COOL
    assert chat_demo.most_telling(cooler) == 2
    left, right = chat_demo_view.beside(arms, 1)
    assert left == right == [f"text {index}" for index in range(4)]


def test_verdict_claims_a_gain_only_if_the_interval_is_above_zero() -> None:
    plain = [outcome(COOL, [4, 4, 4], 1.0), outcome(HOT, [8, 8, 8], 3.0)]
    better = chat_demo_view.verdict([*plain, outcome(DEFAULT, [9, 9.5, 10], 2.0)])[0]
    assert better.startswith("9.5 effectively different texts of 5 by ESamp and 6.0 by plain sampling")
    assert "+3.5 [+3.0, +4.0]" in better
    mixed = chat_demo_view.verdict([*plain, outcome(DEFAULT, [3, 6, 11], 2.0)])[0]
    assert mixed.startswith("No gain that can be told from chance")


def test_prompts_for_the_topic_measure_are_sixty_different_ones() -> None:
    assert len({*DEMO_PROMPTS, *OTHER_PROMPTS}) == 60


def test_the_prompts_of_the_demo_are_a_random_sample() -> None:
    kinds = {"Describe", "Imagine", "Invent", "Suggest", "Tell", "Write"}
    pool = sorted(prompt for prompt in (*DEMO_PROMPTS, *OTHER_PROMPTS) if prompt.split()[0] in kinds)
    assert set(random.Random(0).sample(pool, 3)) == set(DEMO_PROMPTS)


def test_a_text_is_on_topic_when_few_prompts_are_nearer_and_an_empty_one_never_is() -> None:
    meter = TextScorer.start()
    assert meter.missing == ()
    meter.set_prompts(DEMO_PROMPTS)
    own = "Players roll dice to move around the board. Collect a card on each square. Most cards win the game."
    scores = meter.score(DEMO_PROMPTS[0], [own, "Boil the potatoes, then fry the eggs.", own, " "])
    assert scores.on_topic == 0.5
    assert scores.empty == 0.25
    assert 2 < scores.vendi < 4


def test_a_cut_sample_ends_with_a_whole_word_and_a_mark() -> None:
    console = console_for(False)
    shown = clipped("one two three four five six seven", 10, 2, console).plain
    assert shown == "one two\nthree …"
    assert clipped("one two", 10, 2, console).plain == "one two"
    word = clipped("w" * 50, 10, 2, console).plain
    assert all(len(line) <= 10 for line in word.splitlines())
    assert word.endswith("…")
    assert clipped("a \x1b[31mb", 40, 2, console).plain == "a \\x1b[31mb"


# ---- the command


def test_output_has_table_sentence_and_samples_on_80_columns(chat_model: Path, tmp_path: Path, capsys: Output) -> None:
    page = tmp_path / "demo.html"
    assert main(["demo", "--model", str(chat_model), *SIZE, "--page", str(page)]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    for arm in ARMS:
        assert arm.label in out
    for head in ("Vendi", "perplexity", "non-words", "loops", "on topic", "tokens"):
        assert head in out.splitlines()[0]
    assert "effectively different texts of 4" in " ".join(out.split())
    assert "does not rank them elsewhere" in " ".join(out.split())
    shown = out[out.index("\n> ") :]
    assert any(prompt in shown for prompt in DEMO_PROMPTS)
    assert shown.count("plain sampling, temperature") == 1
    assert all(shown.count(f"{number}. ") >= 2 for number in range(1, 5))
    assert f"{page}" in err


def test_json_has_every_number_by_prompt(chat_model: Path, tmp_path: Path, capsys: Output) -> None:
    page = tmp_path / "demo.html"
    assert main(["demo", "--model", str(chat_model), *SIZE, "--page", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"task", "model", "n", "max_tokens", "seed", "prompts", "shown", "arms", "gain", "verdict", "page"} == set(
        found
    )
    assert [arm["arm"] for arm in found["arms"]] == [arm.label for arm in ARMS]
    assert [arm["default"] for arm in found["arms"]] == [False] * 4 + [True]
    assert sum(arm["comparable"] for arm in found["arms"]) == 1
    for arm in found["arms"]:
        for name in ("vendi", "perplexity", "nonwords", "loops", "on_topic", "empty"):
            assert len(arm[name]) == len(DEMO_PROMPTS), name
        assert [len(texts) for texts in arm["samples"]] == [4] * len(DEMO_PROMPTS)
        assert all(1 <= value <= 4 for value in arm["vendi"])
    assert found["gain"]["low"] <= found["gain"]["estimate"] <= found["gain"]["high"]
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.usefixtures("without_extras")
def test_missing_extras_are_named_first_and_their_columns_left_out(
    chat_model: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    load = HFEngine.load

    def watched(*given: Any, **options: Any) -> HFEngine:
        told.append(capsys.readouterr().err)
        return load(*given, **options)

    monkeypatch.setattr(HFEngine, "load", watched)
    assert main(["demo", "--model", str(chat_model), *SIZE, "--page", str(tmp_path / "demo.html")]) == 0
    out = capsys.readouterr().out
    assert "sentence-transformers" in told[0]
    assert "wordfreq" in told[0]
    assert "word n-grams" in told[0]
    assert "on topic" not in out
    assert "non-words" not in out.splitlines()[0]
    assert "loops" in out.splitlines()[0]
    assert "word n-grams" in " ".join(out.split())


@pytest.mark.parametrize("task", ["open", "countdown"])
def test_a_page_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    task: str, tmp_path: Path, capsys: Output
) -> None:
    arguments = ["demo", "--task", task, "--model", "no/model", "--page"]
    assert main([*arguments, str(tmp_path)]) == 2
    assert "cannot write the page" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "missing" / "demo.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_checking_the_page_leaves_no_file(tmp_path: Path, capsys: Output) -> None:
    page = tmp_path / "demo.html"
    assert main(["demo", "--model", str(tmp_path / "no_model"), "--page", str(page)]) == 2
    assert not page.exists()
    page.write_text("mine")
    assert main(["demo", "--model", str(tmp_path / "no_model"), "--page", str(page)]) == 2
    assert page.read_text() == "mine"


def test_flags_of_the_countdown_demo_are_refused_without_it(capsys: Output) -> None:
    assert main(["demo", "--problems", "2"]) == 2
    assert "--problems belongs to --task countdown" in capsys.readouterr().err


@pytest.mark.browser
def test_page_opens_on_samples_coloured_by_change_without_dead_controls(
    chat_model: Path, tmp_path: Path, open_page: Callable[[Path], "Tab"]
) -> None:
    path = tmp_path / "demo.html"
    assert main(["demo", "--model", str(chat_model), *SIZE, "--page", str(path)]) == 0
    tab = open_page(path)
    tab.set_viewport_size({"width": 1280, "height": 800})
    assert tab.get_by_role("radio", name="Change by exploring (KL)").is_checked()
    right = tab.locator(".arm:nth-child(2)")
    assert right.locator("select option:checked").text_content() == DEFAULT.label
    assert right.locator(", ".join(f".token.colour-{level}" for level in range(1, 7))).count() > 0
    left = tab.locator(".arm:nth-child(1)")
    assert "plain sampling" in (left.locator("select option:checked").text_content() or "")
    assert left.locator(".token").count() == left.locator(".token.colour-0").count()
    box = right.locator(".sample").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 800
    assert tab.locator(".grade").count() == 0
    assert (
        tab.locator("button:visible, input:visible, select:visible").evaluate_all("all => all.some(e => e.disabled)")
        is False
    )
    for label in ("Correct", "Wrong"):
        assert not tab.get_by_label(label, exact=True).is_visible()


@pytest.mark.slow
def test_demo_runs_on_the_chat_model(tmp_path: Path, capsys: Output) -> None:
    size = ["-n", "2", "--max-tokens", "16"]
    assert main(["demo", *size, "--page", str(tmp_path / "demo.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == SMOLLM2
    plain = found["arms"][1]
    assert np.mean(plain["nonwords"]) < 0.1  # words, not noise
    assert max(plain["perplexity"]) < 1000
