"""Every task that loads data: from a file named in a study, and one clear error without a file and a network."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esamp.errors import InputError, OptionError
from esamp.study import config
from esamp.study.run import load_tasks
from esamp.tasks import registry, sources

CODE = {"task_id": "HumanEval/900", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f): pass"}
CONTEST = {
    "question_id": "abc900_a",
    "question_content": "Print 3.",
    "contest_date": "2024-10-05T00:00:00",
    "public_test_cases": json.dumps([{"input": "", "output": "3", "testtype": "stdin"}]),
}
OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
FILES: dict[str, tuple[str, Any]] = {
    "aime": ("a.jsonl", {"problem": "1 + 1", "answer": "2"}),
    "continuation": ("book.txt", "word " * 100),
    "game24": ("24.csv", "Rank,Puzzles\n901,4 5 6 10\n"),
    "gpqa": ("a.json", {"Question": "which?"} | {column: column for column in OPTIONS}),
    "gsm8k": ("a.jsonl", {"question": "1 + 1", "answer": "#### 2"}),
    "humaneval": ("a.jsonl", CODE),
    "livecodebench": ("a.jsonl", CONTEST),
    "math500": ("a.jsonl", {"problem": "1 + 1", "answer": "2"}),
    "mbpp": ("a.jsonl", {"task_id": 900, "text": "Add.", "test_list": ["assert f(1) == 2"]}),
    "noveltybench": ("a.jsonl", {"id": "curated-0", "prompt": "A name?"}),
    "tot_text": ("sentences.txt", "One. Two. Three. Four.\n"),
}
"""One problem of each task: the name of the file, and its row or text."""
OFFLINE = """
import json
import sys
from esamp.errors import EsampError
from esamp.tasks import registry

errors = {}
for name in sys.argv[1:]:
    task = registry.get(name)
    try:
        task.build(task.options())
    except EsampError as error:
        errors[name] = [type(error).__name__, str(error)]
print(json.dumps(errors))
"""


def study(folder: Path, task: str) -> config.Study:
    name, content = FILES[task]
    rows = [content] if name.endswith(".json") else content
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(rows))
    (folder / "study.toml").write_text(f"""
        name = "data"
        groups = [2]
        [[models]]
        model = "countdown"
        [[tasks]]
        task = "{task}"
        options = {{ data = "{folder / name}" }}
        [[methods]]
        method = "vanilla"
    """)
    return config.read(folder / "study.toml")


def test_these_tests_cover_every_task_with_the_option_data() -> None:
    reading = {name for name in registry.names() if "data" in registry.get(name).options.model_fields}
    assert reading == set(FILES)


@pytest.mark.parametrize("task", sorted(FILES))
def test_a_study_loads_the_file_named_in_its_options(tmp_path: Path, task: str) -> None:
    [problems] = load_tasks(study(tmp_path, task)).values()
    assert len(problems.items) == 1
    assert problems.items[0].prompt


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO])
def test_the_hub_log_is_silent_while_loading(level: int, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("huggingface_hub.utils")
    with caplog.at_level(level, "huggingface_hub"):
        with sources._quiet_hub():
            log.warning("Retrying in 1s")
        assert logging.getLogger("huggingface_hub").level == level
        assert not caplog.records


@pytest.mark.parametrize("task", sorted(FILES))
def test_a_missing_file_error_names_the_file(tmp_path: Path, task: str) -> None:
    wanted = study(tmp_path, task)
    file = tmp_path / FILES[task][0]
    file.unlink()
    with pytest.raises(InputError, match=f"cannot read {file}: No such file or directory"):
        load_tasks(wanted)


def test_without_a_network_one_error_names_the_option(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", OFFLINE, *sorted(FILES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    errors = json.loads(done.stdout)
    assert set(errors) == set(FILES)
    for name, (kind, text) in errors.items():
        assert kind == "InputError", name
        assert re.search("--data ([^ ,]+), or write options = { data = '\\1' } into the study", text), name
        assert "\n" not in text


def written(tmp_path: Path, *tasks: str) -> Path:
    path = tmp_path / "flags.toml"
    parts = "".join(f"[[tasks]]\ntask = '{task}'\n" for task in tasks)
    path.write_text(f"name = 'flags'\n[[models]]\nmodel = 'countdown'\n[[methods]]\nmethod = 'vanilla'\n{parts}")
    return path


def test_the_flag_data_sets_the_file_of_each_task(tmp_path: Path) -> None:
    [spec] = config.read(written(tmp_path, "gsm8k"), ["some=where.jsonl"]).tasks
    assert spec.options == {"data": "some=where.jsonl"}
    both = config.read(written(tmp_path, "gsm8k", "math500"), ["math500=b.jsonl", "gsm8k=a.jsonl"])
    assert [spec.options["data"] for spec in both.tasks] == ["a.jsonl", "b.jsonl"]
    assert config.read(written(tmp_path, "gsm8k")).tasks[0].options == {}


@pytest.mark.parametrize(
    ("tasks", "given", "words"),
    [
        (("gsm8k", "math500"), "a.jsonl", "name its task, as in --data gsm8k=FILE"),
        (("gsm8k", "math500"), "aime=a.jsonl", "name its task"),
        (("countdown",), "a.jsonl", "task 'countdown' generates its problems and reads no file"),
    ],
    ids=["whose", "unknown", "none"],
)
def test_a_flag_that_fits_no_task_is_an_error(tmp_path: Path, tasks: tuple[str, ...], given: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        config.read(written(tmp_path, *tasks), [given])
