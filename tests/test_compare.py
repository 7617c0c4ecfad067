"""`esamp compare` and `esamp methods`, with every installed method on the embedded model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from esamp.cli import main
from esamp.compare import comparison_view as compare_view
from esamp.compare.comparison import ComparedArm, Comparison, PromptResult
from esamp.engines.base import Completion, Request, Sample
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.tasks.base import Grade
from esamp.tasks.countdown import Countdown

PROMPT = "Numbers 3 5 8 9 target 24"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document that ``esamp compare --methods all`` prints, and its page."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("builtins.print", lambda *texts, **_: written.extend(map(str, texts)))
        arguments = ["-n", "16", "--max-tokens", "12", "--page", str(folder / "page.html")]
        assert main(["compare", PROMPT, *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(next(text for text in written if text.startswith("{")))
    return {**found, "page": (folder / "page.html").read_text()}


def ran(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the methods that ran."""
    return [row for row in document["methods"] if "refused" not in row]


@pytest.mark.slow
def test_every_installed_method_has_a_row(everything: dict[str, Any]) -> None:
    assert set(registry.names()) <= {row["method"] for row in everything["methods"]}
    refused = [row["label"] for row in everything["methods"] if "refused" in row]
    assert refused == ["esamp_static"]  # the mean of other prompts needs another prompt


def test_plain_sampling_runs_at_the_lower_temperatures_of_esamp(
    everything: dict[str, Any],
) -> None:
    cooled = [row["cooling"] for row in everything["methods"] if row["method"] == "vanilla"]
    assert cooled == pytest.approx([1, 1 / 1.5, 1 / 1.25])


def test_every_row_has_its_cost(everything: dict[str, Any]) -> None:
    for row in ran(everything):
        cost, shown = row["cost"], sum(sample["tokens"] for sample in row["samples"])
        assert cost["tokens"] >= shown > 0, row["label"]
        assert cost["calls"] >= 1, row["label"]
        assert cost["prompt_tokens"] > 0, row["label"]
        assert cost["seconds"] > 0, row["label"]
        assert row["distinct_per_1000_tokens"] == pytest.approx(1000 * row["distinct"] / cost["tokens"])


def test_decoding_methods_draw_the_requested_number_of_samples(everything: dict[str, Any]) -> None:
    for row in ran(everything):
        kind = registry.get(row["method"]).kind
        assert len(row["samples"]) == 16 if kind not in ("search", "selection") else len(row["samples"]) <= 16


def test_sampling_without_replacement_repeats_nothing(everything: dict[str, Any]) -> None:
    rows = {row["label"]: row for row in everything["methods"]}
    assert rows["without_replacement"]["distinct"] == 16


def test_the_page_has_all_of_them_and_the_tree(everything: dict[str, Any]) -> None:
    for row in ran(everything):
        assert row["label"] in everything["page"]
    assert "All thoughts" in everything["page"]


@pytest.mark.slow
def test_a_countdown_prompt_is_graded_and_another_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", PROMPT, "-n", "2", "--max-tokens", "8", "--methods", "vanilla min_p", "--json"]) == 0
    graded = json.loads(capsys.readouterr().out)
    assert all("solutions" in row for row in graded["methods"])
    assert main(["compare", "Numbers", "-n", "2", "--max-tokens", "8", "--methods", "vanilla", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert not any("solutions" in row for row in plain["methods"])


def test_options_of_an_arm_are_read_from_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    arms = "esamp:beta=1,signal=both,gate=false min_p:p_base=0.3 esamp+xtc:xtc_probability=1"
    assert main(["compare", PROMPT, "-n", "2", "--max-tokens", "4", "--methods", arms, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["methods"]
    assert rows[0]["options"] == {"beta": 1.0, "signal": "both", "gate": False}
    assert rows[1]["options"] == {"p_base": 0.3}
    assert rows[2]["method"] == "esamp+xtc"


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ("nonsense", "unknown method 'nonsense'"),
        ("esamp:beta", "expected an option with its value, as in beta=0.5, not 'beta'"),
        ("esamp:beta=99", "a number from 0 to 16"),
        ("esamp:nothing=1", "unknown option 'nothing'"),
        ("all vanilla", "leave the other names out"),
        (" ", "--methods is empty"),
        ("esamp+esamp", "names one method twice"),
        ("fire --temperature 0", "unknown method '--temperature'"),
    ],
)
def test_invalid_methods_are_refused_with_a_sentence(
    capsys: pytest.CaptureFixture[str], methods: str, sentence: str
) -> None:
    assert main(["compare", PROMPT, "--methods", methods]) == 2
    assert sentence in capsys.readouterr().err


def test_a_named_method_that_cannot_run_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", PROMPT, "-n", "2", "--max-tokens", "4", "--temperature", "0", "--methods", "fire"]) == 2
    assert "temperature" in capsys.readouterr().err


def test_a_page_without_a_folder_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", PROMPT, "--page", "/nowhere/at/all/page.html"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def completion(*texts: str) -> Completion:
    samples = tuple(Sample(i, text, tuple(range(5)), "stop") for i, text in enumerate(texts))
    return Completion(Request("x", PROMPT, n=len(texts), method="vanilla"), samples, 10, 2.0)


def test_the_numbers_of_a_row_match_hand_computed_values() -> None:
    grades = (
        Grade(True, "a", "a", "right"),
        Grade(True, "a ", "a", "right"),
        Grade(True, "b", "b", "right"),
        Grade(False, "c", "c", "wrong"),
    )
    result = PromptResult(
        ComparedArm("x", "vanilla"), completion("a b c d", "a b c d", "e f g h", "e f g h"), grades=grades
    )
    assert (result.distinct, result.correct, result.solutions, result.cut) == (2, 0.75, 2, 0)
    assert result.vendi == pytest.approx(2.0)  # two pairs of equal texts without common n-grams
    assert (result.cost.tokens, result.cost.calls, result.cost.seconds) == (20, 4, 2.0)
    assert result.per_thousand(2) == pytest.approx(100.0)
    refused = PromptResult(ComparedArm("y", "vanilla"), refused="no")
    assert math.isnan(refused.per_thousand(1))
    summary = compare_view.table(Comparison((PROMPT,), 4, Sampling(), ((result,), (refused,)), graded=True))
    assert summary.rows == [["x", "4", "2", "2.00", "-", "75 %", "2", "20", "4", "2.0", "100.00"]]


def test_likelihood_is_that_of_the_undisturbed_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Texts drawn at a lower temperature are more likely under the model at temperature 1."""
    arguments = ["-n", "16", "--max-tokens", "40", "--json", "--methods", "vanilla"]
    found = []
    for temperature in ("1.0", "0.5"):
        assert main(["compare", PROMPT, *arguments, "--temperature", temperature]) == 0
        found.append(json.loads(capsys.readouterr().out)["methods"][0]["nll"])
    assert 0 < found[1] < found[0] < 1.5


def test_countdown_prompts_are_recognised() -> None:
    task = Countdown()
    item = task.item(PROMPT)
    assert item is not None
    assert task.grade(item, "Answer: 3 * 8 * (9 - 5 - 3)").correct is False
    assert task.grade(item, "Answer: (9 - 5 + 8 / 8) * 3").correct is False
    assert task.grade(item, "Answer: (9 * 3) - 8 + 5").correct is True
    for other in ("Numbers target 24", "Numbers 3 5 target", "numbers 3 5 target 24", "Numbers 3 5 target 24 now"):
        assert task.item(other) is None, other


def test_methods_json_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found) == sorted(registry.names())
    for name, about in found.items():
        assert about["summary"], name
        assert not about["summary"].endswith("."), name
        assert about["citation"], name
        assert "hf" in about["engines"], name
        for option, told in about["options"].items():
            assert told["description"], (name, option)
            assert told["allowed"], (name, option)
    assert found["contrastive"]["engines"] == ["hf"]
    assert {"hf", "vllm"} <= set(found["xtc"]["engines"])
    assert found["xtc"]["options"]["xtc_threshold"]["default"] == 0.1


def test_the_list_of_methods_names_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert sorted(listed) == sorted(registry.names())


def test_a_combination_has_the_options_of_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "esamp+fire"]) == 0
    out = capsys.readouterr().out
    assert "--fire-temperature X" in out
    assert "--beta X" in out
    assert main(["methods", "esamp+override"]) == 2
    assert "cannot go together" in capsys.readouterr().err


def test_options_of_methods_that_can_be_combined_have_different_names() -> None:
    owners: dict[str, str] = {}
    free = {name: m for name, m in registry.available().items() if m.kind in ("filter", "draw", "sampler")}
    for name, method in {**free, "esamp": registry.get("esamp"), "override": registry.get("override")}.items():
        for option in method.options.model_fields:
            assert owners.setdefault(option, name) == name, option


def test_pages_escape_what_models_write(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    found = Comparison(
        (hostile,), 1, Sampling(), ((PromptResult(ComparedArm(hostile, "vanilla"), completion(hostile)),),)
    )
    from esamp.report.pages import render

    text = render(compare_view.page(found, footer=hostile))
    assert "<img" not in text
    assert "alert(1)</script>" not in text


def test_layers_of_a_search_are_those_of_its_inner_method() -> None:
    from esamp.search.over import layers

    over = registry.get("majority_vote").options.parse({"over": "esamp+xtc", "over_options": {"source_layer": 3}})
    assert layers(registry.get("majority_vote"), over) == (3,)
    assert layers(registry.get("verbalized"), registry.get("verbalized").options()) == ()
    assert layers(registry.get("xtc"), registry.get("xtc").options()) == ()
