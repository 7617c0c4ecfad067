"""The files that connect evaluation harnesses to a server; tests that need a harness skip if it is not installed."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from esamp.tasks import registry
from esamp.tasks.countdown.solver import solve

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "harnesses"
COUNTDOWN = registry.get("countdown")


def load_module(name: str) -> ModuleType:
    """Import one of the files."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, FOLDER / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers() -> tuple[str, list[str]]:
    """The first problem's id, and four answers: right, the same written differently, wrong, none."""
    item = COUNTDOWN.build(COUNTDOWN.options()).items()[0]
    numbers, target = item.data["numbers"], item.data["target"]
    assert isinstance(numbers, tuple)
    assert isinstance(target, int)
    right = solve(numbers, target)[0]
    return item.id, [f"Answer: {right}", f"so\nAnswer: ({right})", f"Answer: {right} + 1", "no"]


def test_the_page_links_every_harness_file() -> None:
    page = (DOCS / "harnesses.md").read_text()
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.*") if "__pycache__" not in path.parts}
    assert files == {
        "inspect_esamp.py",
        "lm_eval_groups.py",
        "lm_eval_tasks/countdown.py",
        "lm_eval_tasks/countdown.yaml",
    }
    for name in ("inspect_esamp.py", "lm_eval_groups.py", "lm_eval_tasks"):
        assert f"(harnesses/{name})" in page
    assert "--tasks esamp_countdown" in page


def test_the_lm_eval_task_names_existing_functions_and_settings() -> None:
    text = (FOLDER / "lm_eval_tasks" / "countdown.yaml").read_text()
    task = yaml.safe_load(re.sub(r"!function (\S+)", r"'\1'", text))
    functions = {
        node.name
        for node in ast.parse((FOLDER / "lm_eval_tasks" / "countdown.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert {task["custom_dataset"], task["process_results"]} == {f"countdown.{name}" for name in functions}
    assert task["generation_kwargs"]["vllm_xargs"] == {"method": "esamp"}
    assert task["filter_list"][0]["filter"] == [{"function": "take_first_k", "k": task["repeats"]}]
    assert registry.get("countdown").name in task["task"]


def test_lm_eval_grades_count_solved_problems_and_distinct_right_answers() -> None:
    pytest.importorskip("datasets", reason="pip install 'esamp[tasks]'")
    module = load_module("lm_eval_tasks/countdown.py")
    name, texts = answers()
    assert module.grades({"id": name}, [texts]) == {"samples": 4, "right": 0.5, "solved": 1, "distinct_right": 1}
    assert module.grades({"id": name}, [texts[2:]]) == {"samples": 2, "right": 0, "solved": 0, "distinct_right": 0}
    rows = module.dataset()["test"]
    assert rows.num_rows == 300
    assert (rows[0]["id"], rows[0]["prompt"][:8]) == (name, "Numbers ")


def test_lm_eval_requests_the_repeats_of_a_prompt_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval pins other versions: test it in an environment of its own")
    from lm_eval.api.instance import Instance

    module = load_module("lm_eval_groups.py")
    model = module.Groups(
        base_url="http://127.0.0.1:9/v1/completions", model="m", tokenizer_backend=None, tokenized_requests=False
    )
    payloads: list[dict[str, Any]] = []

    def answer(messages: list[str], *, generate: bool, gen_kwargs: dict[str, Any]) -> dict[str, Any]:
        payloads.append(model._create_payload(messages, generate=generate, gen_kwargs=dict(gen_kwargs)))
        return {"choices": [{"index": n, "text": f"{messages[0]}{n}"} for n in range(gen_kwargs["n"])]}

    monkeypatch.setattr(model, "model_call", answer)
    options = {"max_gen_toks": 5, "until": [], "vllm_xargs": {"method": "esamp"}}
    requests = [Instance("generate_until", {}, (text, options), place) for place, text in enumerate("abaab")]
    assert model.generate_until(requests) == ["a0", "b0", "a1", "a2", "b1"]
    assert [(each["prompt"], each["n"], each["vllm_xargs"]) for each in payloads] == [
        (["a"], 3, {"method": "esamp"}),
        (["b"], 2, {"method": "esamp"}),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inspect_grades_every_choice(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai pins other versions: test it in an environment of its own")
    from inspect_ai import eval as evaluate
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput, ModelUsage, get_model

    _, texts = answers()
    choices = [ChatCompletionChoice(message=ChatMessageAssistant(content=text)) for text in texts]
    output = ModelOutput(model="m", choices=choices, usage=ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2))
    model = get_model("mockllm/model", custom_outputs=[output])
    task = load_module("inspect_esamp.py").esamp("countdown", limit=1)
    [log] = evaluate(task, model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    assert log.samples[0].scores["all_choices"].value == {
        "samples": 4,
        "right": 0.5,
        "solved": 1.0,
        "distinct_right": 1,
    }
