"""`esamp compare` on prompts without a right answer, and on files of prompts."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from esamp.analysis.text_scores import TextScores
from esamp.cli import main
from esamp.compare import comparison_view as compare_view
from esamp.compare.comparison import ComparedArm, Comparison, PromptResult
from esamp.engines.base import Completion, Request, Sample
from esamp.report.pages import ComparisonTable
from esamp.sampling import Sampling
from esamp.tasks.base import Grade
from support.chat_model import save_chat_model

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

Output = pytest.CaptureFixture[str]
PROMPTS = ("Write a poem.", "Suggest a name.", "Tell me a story.")
SIZE = ("-n", "3", "--max-tokens", "12")


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    lines = [{"prompt": PROMPTS[0], "id": "poem"}, {"messages": [{"role": "user", "content": PROMPTS[1]}]}]
    path.write_text("\n".join(json.dumps(line) for line in [*lines, {"prompt": PROMPTS[2]}]))
    return path


def result(label: str, vendi: float, *, nll: float = 1.0, correct: bool | None = None) -> PromptResult:
    """A result with four samples of five tokens each."""
    samples = tuple(Sample(index, f"{label} {index}", tuple(range(5)), "stop") for index in range(4))
    grades = () if correct is None else (Grade(correct, "a", "a", ""),) * 4
    completion = Completion(Request("x", "x", n=4), samples, 10, 2.0)
    return PromptResult(
        ComparedArm(label, "vanilla"), completion, grades=grades, nll=nll, scores=TextScores(vendi, 0.01, 0, 1, 0)
    )


def survey(*arms: tuple[PromptResult, ...], graded: bool = False) -> Comparison:
    return Comparison(PROMPTS[: len(arms[0])], 4, Sampling(), arms, graded=graded)


def cells(summary: ComparisonTable, row: int) -> dict[str, str]:
    return dict(zip(summary.columns, summary.rows[row], strict=True))


# ---- the numbers


def test_means_over_three_prompts_have_intervals() -> None:
    summary = compare_view.table(survey(tuple(result("a", vendi, nll=vendi) for vendi in (1.0, 2.0, 3.0))))
    found = cells(summary, 0)
    assert found["Vendi"] == "2.00 [1.00,3.00]"
    assert found["PPL"] == "7.4 [2.7,20.1]"  # of the mean likelihood: e^2 [e, e^3]
    assert found["non-words"] == "1.0 % [1.0,1.0]"
    assert found["tokens"] == "60"
    assert found["s"] == "2.0"  # one batch, so one wall time
    assert "95 % bootstrap intervals" in summary.note


def test_means_over_two_prompts_have_no_intervals() -> None:
    summary = compare_view.table(survey((result("a", 1.0), result("a", 3.0))))
    assert cells(summary, 0)["Vendi"] == "2.00"
    assert "too few for intervals" in summary.note
    assert compare_view.differences(survey((result("a", 1.0), result("a", 3.0)))) == []


def test_differences_are_paired_by_prompt() -> None:
    first = tuple(result("a", vendi) for vendi in (1.0, 2.0, 3.0))
    second = tuple(result("b", vendi) for vendi in (2.0, 3.0, 4.0))
    [(label, interval)] = compare_view.differences(survey(first, second))
    assert label == "b"
    assert (interval.estimate, interval.low, interval.high) == (1.0, 1.0, 1.0)


def test_graded_files_have_shares_of_right_samples_and_no_measures_of_prose() -> None:
    arm = tuple(result("a", 1.0, correct=correct) for correct in (True, True, False))
    summary = compare_view.table(survey(arm, graded=True))
    assert cells(summary, 0)["right"].startswith("67 % [")
    assert cells(summary, 0)["solutions"] == "0.7"
    assert "loops" not in summary.columns


def test_an_arm_that_did_not_run_has_no_row() -> None:
    refused = (PromptResult(ComparedArm("b", "vanilla"), refused="no"),)
    found = survey((result("a", 1.0), result("a", 2.0)), refused)
    assert [row[0] for row in compare_view.table(found).rows] == ["a"]
    assert [each.arm.label for each in found.refused] == ["b"]
    methods: Any = compare_view.as_json(found)["methods"]
    assert methods[1] == {"label": "b", "method": "vanilla", "options": {}, "cooling": 1.0, "refused": "no"}


# ---- the command


def test_an_open_prompt_shows_two_samples_an_arm_and_measures_of_prose(chat_model: Path, capsys: Output) -> None:
    methods = "vanilla esamp:beta=0.25,distiller=mean esamp min_p:p_base=0.05"
    arguments = ["--model", str(chat_model), *SIZE, "--methods", methods]
    assert main(["compare", PROMPTS[0], *arguments]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith(f"> {PROMPTS[0]}\n")
    assert out.count("\n  - ") == 2 * 4
    for head in ("Vendi", "PPL", "loops", "on topic"):  # noise has no words to look up
        assert head in out
    assert "sentence embeddings" in " ".join(out.split())
    assert "chat template" in err


def test_a_file_of_prompts_has_means_and_all_answers(chat_model: Path, prompts: Path, capsys: Output) -> None:
    arguments = ["--model", str(chat_model), *SIZE, "--methods", "vanilla esamp majority_vote"]
    assert main(["compare", "--input", str(prompts), *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompts"] == list(PROMPTS)
    for method in found["methods"]:
        assert len(method["answers"]) == 3
        assert method["means"]["vendi"]["low"] <= method["means"]["vendi"]["estimate"]
        assert {"nonwords", "loops", "on_topic", "empty", "nll"} <= set(method["means"])
    assert found["methods"][0]["vendi_difference"] is None
    assert set(found["methods"][1]["vendi_difference"]) == {"estimate", "low", "high"}


def test_a_file_of_prompts_is_printed_on_80_columns(chat_model: Path, prompts: Path, capsys: Output) -> None:
    arguments = ["--model", str(chat_model), *SIZE, "--methods", "vanilla esamp:beta=0.25,distiller=mean"]
    assert main(["compare", "--input", str(prompts), *arguments]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "paired by prompt: esamp:beta=0.25,distiller=mean" in " ".join(out.split())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"prompt": "a"}\nnonsense\n', ":2: not valid JSON"),
        ('{"text": "a"}\n', ':1: expected either "prompt" or "messages"'),
        ('{"prompt": 3}\n', ':1: "prompt" should be a text'),
        ('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', "was already used"),
        ("\n", "has no prompts"),
    ],
)
def test_bad_lines_are_named_before_a_model_is_loaded(
    content: str, sentence: str, tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    assert main(["compare", "--input", str(path), "--raw", "--model", "no/model"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_prompt_and_file_are_mutually_exclusive(prompts: Path, capsys: Output) -> None:
    for arguments in (["compare"], ["compare", "x", "--input", str(prompts)]):
        assert main(arguments) == 2
        assert "give one prompt as an argument, or a file" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_refused_first(tmp_path: Path, capsys: Output) -> None:
    assert main(["compare", "x", "--model", "no/model", "--page", str(tmp_path)]) == 2
    assert "cannot write the page" in capsys.readouterr().err


def test_without_embeddings_diversity_is_by_ngrams_and_says_so(
    chat_model: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sentence_transformers", "wordfreq"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["compare", PROMPTS[0], "--model", str(chat_model), *SIZE, "--methods", "vanilla"]) == 0
    out, err = capsys.readouterr()
    assert "sentence-transformers" in err
    assert "n-grams of words, which saturate" in " ".join(out.split())
    assert "on topic" not in out
    assert "loops" in out


@pytest.mark.browser
def test_the_page_of_open_prompts_has_no_dead_controls(
    chat_model: Path, prompts: Path, tmp_path: Path, open_page: Callable[[Path], "Tab"]
) -> None:
    path = tmp_path / "page.html"
    arguments = ["--model", str(chat_model), *SIZE, "--methods", "vanilla esamp", "--page", str(path)]
    assert main(["compare", "--input", str(prompts), *arguments]) == 0
    tab = open_page(path)
    tab.set_viewport_size({"width": 1280, "height": 800})
    assert tab.locator("#problem option").count() == 3
    assert tab.get_by_role("radio", name="Change by exploring (KL)").is_checked()
    assert tab.locator("#filter").is_hidden()
    assert "not graded" not in tab.locator("body").inner_text()
    box = tab.locator(".sample").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 800
