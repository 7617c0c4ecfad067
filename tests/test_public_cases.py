"""Inputs from public bug reports of other projects, in ../shared/cases: each one gets its right result."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esamp.engines.base import Completion, Failure, Outcome, Request
from esamp.engines.hf import HFEngine
from esamp.errors import UnansweredError
from esamp.sampling import Sampling
from esamp.sandbox import available
from esamp.tasks.base import Item, Task
from esamp.tasks.code import MBPP, CodeOptions, HumanEval
from esamp.tasks.contest import Contest, ContestOptions
from esamp.tasks.countdown import Problem, grade_answer
from esamp.tasks.gpqa import GPQA
from esamp.tasks.livecodebench import LiveCodeBench, LiveCodeBenchOptions
from esamp.tasks.math_answer import GSM8K, Math500
from esamp.tasks.math_verifier import MathVerifier
from support.scripted_server import ScriptedServer

Case = dict[str, Any]
needs_isolation = pytest.mark.skipif(bool(available().missing), reason="this machine cannot isolate a model's code")
both_files = pytest.mark.parametrize("outcome", ["failing", "passing"])


def lines(shared: Path, name: str) -> list[Case]:
    return [json.loads(line) for line in (shared / "cases" / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    pytest.importorskip("math_verify", reason="math-verify is not installed: pip install -e '.[tasks]'")
    with MathVerifier() as found:
        yield found


# ---- graders


@both_files
def test_answers_get_their_right_grades(shared: Path, verifier: MathVerifier, outcome: str) -> None:
    def given(answer: object) -> Item:
        return Item("x", "", {"answer": answer})

    def right(case: Case) -> bool:
        task, text = case["task"], case["text"]
        if task == "game24":
            return grade_answer(Problem(tuple(case["numbers"]), case["target"]), text).correct
        if task == "aime":
            return Contest([]).grade(given(int(case["gold"])), text).correct
        if task == "gpqa":
            return GPQA([]).grade(given(case["gold"]), text).correct
        kind = {"math500": Math500, "gsm8k": GSM8K}[task]
        return kind([], verifier).grade(given(kind.reference(case["gold"])), text).correct

    assert wrong(lines(shared, f"graders-{outcome}"), right) == []


@needs_isolation
@both_files
def test_programs_get_their_right_grades(shared: Path, outcome: str) -> None:
    data, rows = shared / "data" / "code", shared / "cases" / "livecodebench-rows.jsonl"
    tasks: dict[str, Task] = {
        "humaneval": HumanEval.build(CodeOptions(data=str(data / "HumanEval.jsonl.gz"), run_code=True)),
        "mbpp": MBPP.build(CodeOptions(data=str(data / "mbpp.jsonl"), run_code=True)),
        "livecodebench": LiveCodeBench.build(LiveCodeBenchOptions(data=str(rows), run_code=True)),
    }
    items = {
        name: {item.id.removeprefix("livecodebench/"): item for item in task.items()} for name, task in tasks.items()
    }

    def right(case: Case) -> bool:
        return tasks[case["task"]].grade(items[case["task"]][case["item"]], case["text"]).correct

    assert wrong(lines(shared, f"code-{outcome}"), right) == []


def test_a_contest_with_a_negative_answer_loads(shared: Path) -> None:
    file = shared / "cases" / "amc23-negative.jsonl"
    [item] = Contest.build(ContestOptions.parse({"contest": "amc23", "data": str(file)})).items()
    assert item.data["answer"] == -1


def wrong(cases: list[Case], right: Callable[[Case], bool]) -> list[str]:
    """The ids of the cases with a wrong grade."""
    return [case["id"] for case in cases if right(case) is not case["right"]]


# ---- engines


def texts(found: Outcome) -> list[str]:
    """The texts of the samples; empty for a request that failed and can be repeated."""
    if isinstance(found, Failure):
        assert isinstance(found.error, UnansweredError)
        return []
    return [sample.text for sample in found.samples]


def test_a_server_response_is_read_or_fails_only_its_request(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")
    from esamp.engines.openai import OpenAIEngine

    server = ScriptedServer()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    asked = Request("r", ({"role": "user", "content": "hello"},), 2, Sampling(max_tokens=8), "vanilla", seed=1)
    read = {}
    try:
        with OpenAIEngine.load("some", retries=0, timeout=20) as engine:
            for case in lines(shared, "server-failing"):
                server.replies = [(200, case["response"])]
                [read[case["id"]]] = map(texts, engine.outcomes([asked]))
    finally:
        server.close()
    assert (read.pop("server-01"), read.pop("server-06")) == (["answer", ""], ["answer", "answer"])
    assert all(found in ([], ["answer", "answer"]) for found in read.values())


@pytest.fixture
def stories(shared: Path, tmp_path: Path) -> Callable[[Case], HFEngine]:
    """A function that loads the model from a copy of its folder with the changes of a case."""
    source = shared / "models" / "stories260K"

    def load(changes: Case) -> HFEngine:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in source.iterdir():
            if changes.get(file.name) != "removed":
                (folder / file.name).write_bytes(file.read_bytes())
        for name, values in changes.items():
            if values != "removed":
                path = folder / name
                kept = json.loads(path.read_text()) if path.exists() else {}
                path.write_text(json.dumps(kept | values))
        return HFEngine.load(folder, device="cpu")

    return load


def sampled(engine: HFEngine, case: Case, method: str) -> Completion:
    asked = case["request"]
    settings = {name: asked[name] for name in ("temperature", "max_tokens", "stop") if name in asked}
    request = Request("r", asked["prompt"], asked["n"], Sampling.parse(settings), method, seed=asked.get("seed", 0))
    [found] = engine.generate([request])
    return found


def tokens(engine: HFEngine, case: Case, method: str) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in sampled(engine, case, method).samples]


def cases_that_change_the_folder(shared: Path) -> list[Case]:
    return [case for case in lines(shared, "engine-failing") if "generation_config.json" in case.get("change", {})]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_settings_of_a_model_s_folder_change_no_sample(shared: Path, stories: Callable[[Case], HFEngine]) -> None:
    plain, expected = stories({}), dict[tuple[str, str], list[tuple[int, ...]]]()
    differ = []
    for case in cases_that_change_the_folder(shared):
        engine = stories(case["change"])
        for method in ("vanilla", "esamp"):
            asked = json.dumps(case["request"]), method
            if asked not in expected:
                expected[asked] = tokens(plain, case, method)
            if tokens(engine, case, method) != expected[asked]:
                differ.append((case["id"], method))
    assert differ == []


def test_sample_texts_continue_the_prompt_and_end_before_stop_texts(
    shared: Path, stories: Callable[[Case], HFEngine]
) -> None:
    cases = {case["id"]: case for case in lines(shared, "engine-failing")}
    engine = stories({})
    spaced = sampled(engine, cases["hf-02"], "vanilla")
    for sample in spaced.samples:
        ids = [*engine.tokenizer(cases["hf-02"]["request"]["prompt"]).input_ids, *sample.token_ids]
        whole = engine.tokenizer.decode(ids, skip_special_tokens=True)
        assert cases["hf-02"]["request"]["prompt"] + sample.text == whole
    for name in ("hf-03", "hf-04"):
        case = cases[name]
        found = sampled(engine, case, case["request"]["method"])
        assert min(len(sample.token_ids) for sample in found.samples) > 3
        assert all(stop not in sample.text for stop in case["request"]["stop"] for sample in found.samples)
