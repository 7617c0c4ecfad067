"""Running studies: files, cells, and a store that survives kills and is shared by processes."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from esamp.cli import main
from esamp.errors import InputError, OptionError
from esamp.models.tokenizer import build_tokenizer
from esamp.runs.output import OutputFile
from esamp.study import config
from esamp.study.grid import cells, item_key
from esamp.study.records import Record, SampleRecord
from esamp.study.run import load_tasks, states
from esamp.study.store import Store
from esamp.tasks.base import Item

SMALL: dict[str, Any] = {
    "name": "small",
    "models": [{"model": "countdown"}],
    "tasks": [{"task": "countdown", "limit": 3}],
    "methods": [{"method": "vanilla"}, {"method": "esamp"}],
    "groups": [2],
    "sampling": {"max_tokens": 8},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a random model of 0.1M parameters: 3 arms, 2 group sizes, 2 seeds, 6 problems."""
    folder = tmp_path_factory.mktemp("study")
    tokenizer = build_tokenizer(120, 512)
    torch.manual_seed(0)
    shape = dict(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, max_position_embeddings=512)
    LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, num_attention_heads=2)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    text = f"""
        name = "kills"
        seeds = [0, 1]
        groups = [1, 3]
        sampling = {{ max_tokens = 40 }}
        [[models]]
        model = "{folder / "model"}"
        batch_rows = 3
        [[tasks]]
        task = "countdown"
        limit = 6
        [[methods]]
        method = "vanilla"
        [[methods]]
        method = "esamp+fire"
        [[methods]]
        method = "majority_vote"
        options = {{ over = "min_p" }}
    """
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def lines(store: Path) -> list[dict[str, Any]]:
    found = []
    for file in sorted(store.glob("cells/*/records.jsonl")):
        found += [json.loads(line) | {"cell": file.parent.name} for line in file.read_text().splitlines()]
    return found


def started(study: Path, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "esamp.cli", "study", "run", str(study), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_loses_and_repeats_no_group(study: Path, tmp_path: Path) -> None:
    store, chance, kills = tmp_path / "store", random.Random(1), 0
    seen: Counter[tuple[str, str]] = Counter()
    while kills < 4:
        process = started(study, store)
        known = len(lines(store)) if store.exists() else 0
        while process.poll() is None and not (store.exists() and _whole(store) > known):
            time.sleep(0.02)  # until there is a new line, so that the kill interrupts a write
        time.sleep(chance.random() * 0.3)
        process.kill()
        process.communicate()
        kills += 1
        now = Counter((line["cell"], line["key"]) for line in _readable(store))
        assert not seen - now, "a finished group was lost"
        seen = now
    last = started(study, store)
    _, errors = last.communicate(timeout=600)
    assert last.returncode == 0, errors
    done = Counter((line["cell"], line["key"]) for line in lines(store))
    assert set(done.values()) == {1}
    assert len(done) == 3 * 2 * 2 * 6
    assert not seen - done
    alone = tmp_path / "alone"
    assert main(["study", "run", str(study), "--store", str(alone)]) == 0
    assert _texts(alone) == _texts(store)  # the same as without kills


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_share_a_store(study: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    both = [started(study, store) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    done = Counter((line["cell"], line["key"]) for line in lines(store))
    assert set(done.values()) == {1}
    assert len(done) == 3 * 2 * 2 * 6


def _whole(store: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in store.glob("cells/*/records.jsonl"))


def _readable(store: Path) -> list[dict[str, Any]]:
    """The complete lines; the last line of a file may be torn."""
    found = []
    for file in store.glob("cells/*/records.jsonl"):
        whole = file.read_bytes().rpartition(b"\n")[0]
        found += [json.loads(line) | {"cell": file.parent.name} for line in whole.splitlines()]
    return found


def _texts(store: Path) -> dict[tuple[str, str], list[str]]:
    return {(line["cell"], line["key"]): [sample["text"] for sample in line["samples"]] for line in lines(store)}


def test_a_dry_run_draws_nothing(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert main(["study", "run", str(study), "--store", str(store), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["total"], len(told["cells"])) == (0, 72, 12)
    assert told["expected_tokens"] == 3 * 2 * 6 * (1 + 3) * 40
    assert lines(store) == []


@pytest.mark.slow
def test_a_run_continues_after_a_full_disk(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a process, a limit on the size of files looks like a full disk."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
        "from esamp.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    store = tmp_path / "store"
    arguments = ["study", "run", str(study), "--store", str(store)]
    full = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300)
    assert full.returncode == 1
    assert "cannot write to" in full.stderr
    before = _readable(store)
    assert main(arguments) == 0
    done = Counter((line["cell"], line["key"]) for line in lines(store))
    assert set(done.values()) == {1}
    assert {(line["cell"], line["key"]) for line in before} <= set(done)


def test_the_error_of_a_damaged_line_has_its_location(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    first = next(cells(config.read(study)))
    file = store.open(first)
    assert file is not None
    file.__exit__(None, None, None)
    path = tmp_path / "store" / "cells" / first.key / "records.jsonl"
    path.write_text('{"esamp": "0", "key": "a", nonsense\n{"esamp": ')
    assert main(["study", "status", str(study), "--store", str(tmp_path / "store")]) == 2
    assert "records.jsonl:1 is damaged" in capsys.readouterr().err
    path.write_text('{"esamp": ')  # a torn last line: its group is drawn again
    assert store.read(first) == {}


def test_a_locked_cell_is_not_run(study: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    cell = next(cells(config.read(study)))
    mine = store.open(cell)
    assert isinstance(mine, OutputFile)
    with mine:
        assert store.open(cell) is None
    again = store.open(cell)
    assert again is not None
    again.__exit__(None, None, None)


def test_cell_keys_depend_on_exactly_the_settings_of_the_samples() -> None:
    def keys(**changes: Any) -> set[str]:
        return {cell.key for cell in cells(config.parse(SMALL | changes))}

    usual = keys()
    assert len(usual) == 2
    same = [
        {"name": "other"},
        {"models": [{"model": "countdown", "device": "cpu", "batch_rows": 3, "label": "x"}]},
        {"tasks": [{"task": "countdown", "limit": 30}]},
        {"methods": [{"method": "esamp", "label": "ours"}, {"method": "vanilla", "baseline": True}]},
        {"methods": [{"method": "vanilla"}, {"method": "esamp", "options": {"beta": 0.5}}]},
    ]
    for changes in same:
        assert keys(**changes) == usual, changes
    other = [
        {"models": [{"model": "countdown", "dtype": "bfloat16"}]},
        {"models": [{"model": "countdown", "engine": "vllm"}]},
        {"tasks": [{"task": "countdown", "options": {"split": "train"}}]},
        {"seeds": [1]},
        {"groups": [3]},
        {"sampling": {"max_tokens": 9}},
        {"methods": [{"method": "vanilla", "sampling": {"temperature": 0.5}}]},
    ]
    for changes in other:
        assert not keys(**changes) & usual, changes


def test_keys_of_existing_stores_do_not_change() -> None:
    vanilla = next(cells(config.parse(SMALL)))
    assert (vanilla.arm.label, vanilla.key) == ("vanilla", "2c6362fd27ec569cdb5d3a3e")
    item = Item("a/1", "Numbers 3 5 target 8", {"numbers": [3, 5], "target": 8})
    assert item_key(item) == "8cbe7f344aa6572c37b63cdc"


def test_problem_keys_depend_on_their_content() -> None:
    one, other = Item("a", "x", {"answer": 1}), Item("a", "x", {"answer": 2})
    assert item_key(one) == item_key(Item("a", "x", {"answer": 1}))
    assert item_key(one) != item_key(other)
    assert len(item_key(Item("a", "\ud800", {}))) == 24


def test_a_grid_has_one_arm_per_combination() -> None:
    grid = {"beta": [0.25, 0.5], "sampling.temperature": [0.8, 1.0]}
    found = config.parse(SMALL | {"methods": [{"method": "vanilla"}, {"method": "esamp", "grid": grid}]})
    assert [arm.label for arm in found.arms] == [
        "vanilla",
        "esamp beta=0.25 temperature=0.8",
        "esamp beta=0.25 temperature=1",
        "esamp beta=0.5 temperature=0.8",
        "esamp beta=0.5 temperature=1",
    ]
    assert [arm.sampling.temperature for arm in found.arms] == [1.0, 0.8, 1.0, 0.8, 1.0]
    assert all(arm.sampling.max_tokens == 8 for arm in found.arms)
    assert found.baseline == "vanilla"


GRID = {name: [0.001 * value for value in range(1000)] for name in ("beta", "gain", "kl", "cap", "ridge")}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": []}, "a study needs models"),
        ({"methods": "esamp"}, "a study needs methods"),
        ({"methods": [{"method": "nope"}]}, r"\[\[methods\]\] number 1: unknown method 'nope'"),
        ({"methods": [{"method": "vanilla"}, {"method": "esamp", "options": {"beta": 99}}]}, "number 2: option 'beta'"),
        ({"methods": [{"method": "esamp"}]}, "something to compare with"),
        ({"methods": [{"method": "vanilla"}, {"method": "vanilla"}]}, "two of the methods are called 'vanilla'"),
        ({"methods": [{"method": "vanilla"}, {"method": "fire", "sampling": {"temperature": 0.0}}]}, "temperature"),
        ({"tasks": [{"task": "nope"}]}, "unknown task 'nope'"),
        ({"tasks": [{"task": "countdown", "options": {"split": "x"}}]}, "option 'split' = 'x'"),
        ({"tasks": [{"task": "countdown", "limit": 0}]}, "option 'limit' = 0"),
        ({"sampling": {"heat": 1}}, "unknown option 'heat'"),
        ({"groups": []}, "option 'groups'"),
        ({"groups": [0]}, "option 'groups' = 0: expected a list, each a whole number from 1"),
        ({"groups": [10**9]}, "option 'groups' = 1000000000"),
        ({"groups": [10**5000]}, "option 'groups' = an integer of 16,610 bits"),
        ({"seeds": [-1]}, "option 'seeds' = -1"),
        ({"methods": [{"method": "vanilla"}, {"method": "esamp", "grid": {"beta": []}}]}, "'beta' has no values"),
        ({"methods": [{"method": "esamp", "grid": GRID}]}, r"number 1: grid: 10{15} combinations are more than"),
        (
            {"seeds": list(range(1000)), "groups": list(range(1, 101))},
            "are 200000 cells, more than 100,000: divide the study",
        ),
        ({"more": 1}, "unknown option 'more'"),
        ({"name": "../../x"}, "option 'name'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_errors_in_a_file_have_their_location(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        config.parse(SMALL | changes)


def test_skip_leaves_out_problems() -> None:
    def items(task: str, **changes: int) -> list[Item]:
        [problems] = load_tasks(config.parse(SMALL | {"tasks": [{"task": task, **changes}]})).values()
        return list(problems.items)

    assert items("countdown", skip=2, limit=3) == items("countdown", limit=5)[2:]
    assert items("coverage", limit=24) + items("coverage", skip=24) == items("coverage")
    assert items("coverage", skip=66, limit=9) == items("coverage")[66:]
    with pytest.raises(OptionError, match="'coverage': skip = 67 leaves no problem"):
        items("coverage", skip=67)


def test_files_that_are_not_studies_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text("name = ")
    for name, sentence in (("a.toml", "is not a TOML file"), ("b.toml", "cannot read")):
        with pytest.raises(InputError, match=sentence):
            config.read(tmp_path / name)
        assert main(["study", "status", str(tmp_path / name)]) == 2
        assert sentence in capsys.readouterr().err


def test_the_shipped_studies_are_valid() -> None:
    for file in sorted((Path(__file__).parents[1] / "studies").glob("*.toml")):
        found = config.read(file)
        assert len(list(cells(found))) >= 4, file.name


SAMPLE = SampleRecord(0, "x", (1,), 1, "stop", False, None, None, "")


def test_progress_counts_finished_groups(study: Path, tmp_path: Path) -> None:
    found = config.read(study)
    store, problems = Store(tmp_path / "store"), load_tasks(found)
    cell = next(cells(found))
    item = problems["countdown"].items[0]
    file = store.open(cell)
    assert file is not None
    with file:
        for key, tokens in ((item_key(item), 10), ("another problem", 99)):
            cost = {"tokens": tokens, "seconds": 1.0}
            file.append(key, Record(item.id, (SAMPLE,) * cell.n, cost, {}).as_json())
    state = next(iter(states(found, store, problems)))
    assert (state.done, state.total, state.tokens, state.expected) == (1, 6, 10, 50)
