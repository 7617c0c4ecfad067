"""`esamp demo --task countdown` on the embedded model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esamp.cli import main
from esamp.compare import countdown_demo, countdown_demo_view
from esamp.compare.countdown_demo import CountdownResult
from esamp.engines.base import Completion, Request, Sample
from esamp.engines.hf import HFEngine
from esamp.report.pages import render
from esamp.tasks.base import Grade
from esamp.tasks.countdown import Countdown


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load(trace=True)


@pytest.fixture(scope="module")
def results(engine: HFEngine) -> list[CountdownResult]:
    return countdown_demo.run(engine, Countdown(), Countdown().items(limit=2), samples=3, max_tokens=24)


def graded(name: str, distinct: list[int], samples: int = 4) -> CountdownResult:
    """An arm whose problems have the given numbers of distinct correct solutions."""
    grades, completions = [], []
    for found in distinct:
        right = [Grade(True, f"a{n}", f"a{n}", "correct") for n in range(found)]
        grades.append(tuple(right + [Grade(False, None, None, "no answer")] * (samples - found)))
        texts = tuple(Sample(n, "x", (n,), "stop") for n in range(samples))
        completions.append(Completion(Request("p", "p", n=samples), texts, 1, 1.0, {"explained_variance": 0.0}))
    return CountdownResult(replace(countdown_demo.ARMS[0], label=name), tuple(completions), tuple(grades))


def test_demo_runs_every_arm_on_the_same_budget(results: list[CountdownResult]) -> None:
    assert [result.arm for result in results] == list(countdown_demo.ARMS)
    for result in results:
        assert len(result.correct) == len(result.solved) == 2
        assert all(len(completion.samples) == 3 for completion in result.completions)
        steered = sum(completion.telemetry["rows_steered"] for completion in result.completions)
        assert (steered > 0) == result.arm.options.steers


def test_the_observed_baseline_equals_plain_sampling(engine: HFEngine, results: list[CountdownResult]) -> None:
    observed = results[0].completions[0]
    plain = next(engine.generate([replace(observed.request, method="vanilla", options=None)]))
    assert [s.token_ids for s in plain.samples] == [s.token_ids for s in observed.samples]
    trace = observed.samples[0].trace
    assert trace is not None
    assert trace.novelty[1:].isfinite().all()


def test_demo_page_holds_every_sample_and_its_novelty(results: list[CountdownResult]) -> None:
    page = countdown_demo_view.page(results, Countdown().items(limit=2), shown=1, footer="made here")
    assert [problem.id for problem in page.problems] == ["countdown/test/000"]
    for result in results:
        views = page.problems[0].arms[result.arm.label]
        assert ["".join(view.tokens) for view in views] == [s.text for s in result.completions[0].samples]
        assert all(len(view.novelty) == len(view.tokens) for view in views)
    assert "made here" in render(page)


def test_distinct_counts_a_solution_once() -> None:
    same = Grade(True, "2+1", "1+2", "correct")
    arm = graded("twice", [0])
    assert replace(arm, grades=((same, same, Grade(False, "1", "1", "wrong")),)).distinct.tolist() == [1]


def test_verdict_claims_only_what_differs() -> None:
    rng = np.random.default_rng(0)
    base = graded(countdown_demo.BASELINE.label, list(rng.integers(0, 2, 30)))
    better = graded("better", [int(n) for n in base.distinct + 2])
    even = graded("even", [int(n) for n in rng.permutation(base.distinct)])
    both = countdown_demo_view.verdict([base, better, even])[0]
    assert "better +2.00 [+2.00, +2.00]" in both
    assert "even" not in both
    assert countdown_demo_view.verdict([base, even])[0].startswith("No arm differs")


def test_demo_json_is_complete(results: list[CountdownResult]) -> None:
    document = json.loads(json.dumps(countdown_demo_view.as_json(results)))
    assert [arm["arm"] for arm in document["arms"]] == [arm.label for arm in countdown_demo.ARMS]
    assert len(document["comparisons"]) == len(countdown_demo.ARMS) - 1


def test_demo_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out.html"
    size = ["--problems", "2", "-n", "2", "--max-tokens", "16"]
    assert main(["demo", "--task", "countdown", *size, "--page", str(page)]) == 0
    assert "plain sampling, temperature 1" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")


def test_demo_refuses_a_page_in_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--page", str(tmp_path / "missing" / "out.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
