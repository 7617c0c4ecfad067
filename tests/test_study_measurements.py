"""Measurements with real embedding and language models: their values, files, and which groups are measured."""

import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from esamp.analysis import measurement_run
from esamp.analysis.load import load
from esamp.analysis.measures import MEASURES
from esamp.analysis.text_measurements import nonwords, opening, topic
from esamp.cli import main
from esamp.metrics.embedding import DEFAULT_MODEL, SentenceEmbedder
from esamp.metrics.quality import loop_rate, nonword_share, on_topic_share
from esamp.metrics.vendi import mean_cosine, vendi_score
from esamp.models import embedded_amateur_path, embedded_path
from esamp.study import config
from esamp.study.config import Study
from esamp.study.grid import cells
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.records import Record, SampleRecord
from esamp.study.run import TaskProblems
from esamp.tasks.base import Item
from support.stored_studies import opened

TOML = """
name = "measured"
groups = [2]
sampling = { max_tokens = 24 }
second_model = "countdown_amateur"
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
limit = 2
[[methods]]
method = "vanilla"
[[methods]]
method = "vanilla"
sampling = { temperature = 2.0 }
[[methods]]
method = "esamp"
[primary]
question = "Does it write more different texts at equal perplexity?"
arm = "esamp"
at_equal = ["perplexity"]
"""
Started = list[tuple[str, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has been run and measured."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "study.toml").write_text(TOML)
    given = [str(folder / "study.toml"), "--store", str(folder / "store")]
    assert main(["study", "run", *given]) == 0
    assert main(["study", "report", *given, "--out", str(folder / "report")]) == 0
    return folder


def noted(started: Started) -> measurement_run.OnMeasurement:
    def on_measurement(title: str, groups: int) -> Callable[[], None]:
        started.append((title, groups))
        return lambda: None

    return on_measurement


def records(folder: Path) -> list[Record]:
    [block] = load(*opened(folder))
    return [record for seeds in block.arms.values() for own in seeds.values() for record in own.values()]


def by_definition(path: Path, prompt: str, record: Record, *, own: bool) -> list[tuple[float, float, int]]:
    """Mean -log p, mean entropy and tokens of each sample, from the model's logits in float64."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    found = []
    for sample in record.samples:
        start = tokenizer(prompt).input_ids
        tokens = list(sample.token_ids or ()) if own else tokenizer(sample.text, add_special_tokens=False).input_ids
        with torch.no_grad():
            p = model(torch.tensor([[*start, *tokens]])).logits[0, len(start) - 1 : -1].double().softmax(-1)
        nll = [-math.log(row[token]) for row, token in zip(p, tokens, strict=True)]
        entropy = [-float((row * row.log()).nan_to_num().sum()) for row in p]
        found.append((float(np.mean(nll)), float(np.mean(entropy)), len(tokens)))
    return found


def test_stored_likelihoods_equal_those_of_the_models(folder: Path) -> None:
    study, _, problems = opened(folder)
    prompts = {item.id: item.prompt for item in problems[study.tasks[0].name].items}
    for record in records(folder):
        prompt = prompts[record.item]
        assert isinstance(prompt, str)
        for path, scored, own in (
            (embedded_path(), record.measured.own, True),
            (embedded_amateur_path(), record.measured.second, False),
        ):
            assert scored is not None
            for place, (nll, entropy, tokens) in enumerate(by_definition(path, prompt, record, own=own)):
                assert scored.nll[place] == pytest.approx(nll, rel=1e-3, abs=1e-5)
                assert scored.entropy[place] == pytest.approx(entropy, rel=1e-3, abs=1e-5)
                assert scored.tokens[place] == tokens


def test_likelihoods_kept_while_drawing_are_not_measured_again(folder: Path) -> None:
    """Without entropy the log-probabilities of the record are used if all samples have one; else texts are scored."""
    study, store, problems = opened(folder, entropy=False)
    [measurement] = [
        measurement
        for measurement in measurement_run.measurements(study, problems)
        if measurement.title == "likelihoods under countdown"
    ]
    cell = next(cells(study))
    key, line = next(iter(store.read(cell).items()))
    record = Record.of_json(line)
    samples = tuple(replace(each, logprob=-1.5 * each.tokens) for each in record.samples)
    kept = measurement_run.attach(study, store, problems, cell, {key: replace(record, samples=samples)})[key]
    assert kept.measured.own is not None
    assert kept.measured.own.nll == (1.5, 1.5)
    assert kept.measured.own.tokens == tuple(each.tokens for each in samples)
    assert all(map(math.isnan, kept.measured.own.entropy))
    half = replace(record, samples=(samples[0], *record.samples[1:]))
    assert measurement_run.attach(study, store, problems, cell, {key: half})[key].measured.own is None
    empty = replace(record, samples=(replace(samples[0], tokens=0, logprob=0.0), *samples[1:]))
    own = measurement_run.attach(study, store, problems, cell, {key: empty})[key].measured.own
    assert own is not None
    assert math.isnan(own.nll[0])

    started: Started = []
    measurement_run.measure(
        study, store, problems, on_measurement=noted(started)
    )  # engine hf keeps no log-probabilities
    assert started == [("likelihoods under countdown", 6)]
    with_entropy = measurement_run.attach(*opened(folder), cell, {key: record})[key].measured.own
    without = measurement_run.attach(study, store, problems, cell, {key: record})[key].measured.own
    assert with_entropy is not None
    assert without is not None
    assert without.nll == pytest.approx(with_entropy.nll, abs=1e-5)
    assert all(map(math.isnan, without.entropy))
    assert measurement.name != "own-596a2b34e7f7"


def test_stored_embeddings_equal_those_of_the_texts(folder: Path) -> None:
    embedder = SentenceEmbedder()
    measures = {measure.name: measure.of for measure in MEASURES}
    for record in records(folder):
        vectors = embedder.encode([sample.text or "" for sample in record.samples])
        assert record.measured.vectors is not None
        np.testing.assert_allclose(record.measured.vectors, vectors, atol=1e-5)
        assert measures["Vendi"](record) == pytest.approx(vendi_score(vectors), abs=1e-4)
        assert measures["cosine"](record) == pytest.approx(mean_cosine(vectors), abs=1e-4)


def test_stored_quality_equals_that_of_the_texts(folder: Path) -> None:
    encode = SentenceEmbedder().encode
    measures = {measure.name: measure.of for measure in MEASURES}
    for record in records(folder):
        texts = [sample.text or "" for sample in record.samples]
        assert 0 <= measures["on topic"](record) <= 1
        openings = encode([" ".join(text.split()[:30]) for text in texts])
        assert measures["Vendi30"](record) == pytest.approx(vendi_score(openings), abs=1e-3)
        assert measures["non-words"](record) == pytest.approx(nonword_share(texts), nan_ok=True)
        assert measures["loops"](record) == loop_rate(texts)
        assert measures["empty"](record) == 0


def made(*texts: str | None) -> Record:
    samples = tuple(SampleRecord(n, text, (1,), 1, "stop", False, None, None, "") for n, text in enumerate(texts))
    return Record("0", samples, {}, {})


def test_measures_of_quality_match_hand_computed_values(folder: Path) -> None:
    """A text of 40 words whose last ten differ has the same opening; an empty text is off topic."""
    long = " ".join(["one two three"] * 10)
    record = made(f"{long} apples pears and plums", f"{long} a trip to the moon by train", "", "flurbled the snorvelt")
    prompts = {str(place): text for place, text in enumerate(["Count.", "Sing.", "Pray.", "Cook.", "Run.", "Add."])}
    found = GroupMeasurements()
    request = next(cells(opened(folder)[0])).request(Item("0", "Count."))
    with ExitStack() as stack:
        for measurement in (opening(DEFAULT_MODEL), topic(DEFAULT_MODEL, "t", prompts), nonwords()):
            line = json.loads(json.dumps({"n": 4, **measurement.start(stack)(request, record)}))
            found = measurement.add(found, line)
    encode = SentenceEmbedder().encode
    assert found.nonwords == pytest.approx(2 / (30 + 4 + 30 + 4 + 3), abs=1e-6)
    embedded = encode([long, long, "", "flurbled the snorvelt"])
    assert found.opening_vendi == pytest.approx(vendi_score(embedded), abs=1e-4)
    vectors = encode([sample.text or "" for sample in record.samples])
    vectors[2] = 0
    assert found.on_topic == pytest.approx(on_topic_share(vectors, encode(list(prompts.values())), 0))
    measures = {measure.name: measure.of for measure in MEASURES}
    assert measures["empty"](record) == 0.25
    assert measures["loops"](record) == 0.5
    assert all(math.isnan(measures[name](made(None, None))) for name in ("loops", "empty", "on topic", "non-words"))


def test_nothing_is_measured_twice(folder: Path) -> None:
    started: Started = []
    measurement_run.measure(*opened(folder), on_measurement=noted(started))
    assert started == []


def test_report_fails_before_measuring_if_an_arm_is_missing(folder: Path, tmp_path: Path) -> None:
    """If an arm has not been run, the report fails before it measures anything."""
    for cell in (folder / "store" / "cells").iterdir():
        (tmp_path / "store" / "cells" / cell.name).mkdir(parents=True)
        for name in ("cell.json", "records.jsonl"):
            copyfile(cell / name, tmp_path / "store" / "cells" / cell.name / name)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "study.toml").write_text(TOML.replace("[primary]", '[[methods]]\nmethod = "min_p"\n[primary]'))
    given = [str(tmp_path / "study.toml"), "--store", str(tmp_path / "store"), "--out", str(tmp_path / "report")]
    assert main(["study", "report", *given]) == 2
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "study.toml"] == before


def test_only_missing_measurements_are_run(folder: Path) -> None:
    """A process was killed while writing its last line, or a line was deleted."""
    study, store, problems = opened(folder)
    [measurement] = [
        measurement
        for measurement in measurement_run.measurements(study, problems)
        if measurement.title == "likelihoods under countdown"
    ]
    cell = next(cells(study))
    path = store.root / "cells" / cell.key / f"{measurement.name}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    started: Started = []
    measurement_run.measure(study, store, problems, on_measurement=noted(started))
    assert started == [("likelihoods under countdown", 1)]
    assert sorted(map(json.loads, path.read_bytes().splitlines()), key=str) == sorted(
        map(json.loads, whole.splitlines()), key=str
    )


def test_a_group_that_was_drawn_again_is_measured_again(folder: Path) -> None:
    study, store, problems = opened(folder)
    cell = next(cells(study))
    key, line = next(iter(store.read(cell).items()))
    record = Record.of_json(line)
    assert measurement_run.attach(study, store, problems, cell, {key: record})[key].measured.vectors is not None
    other = replace(record, samples=(replace(record.samples[0], text="another"), *record.samples[1:]))
    assert measurement_run.attach(study, store, problems, cell, {key: other})[key].measured == GroupMeasurements()


def test_every_measurement_setting_has_its_own_files(folder: Path) -> None:
    study, _, problems = opened(folder)
    names = {measurement.name for measurement in measurement_run.measurements(study, problems)}
    other = replace(study, embedder="x", second_model="countdown")
    others = {measurement.name for measurement in measurement_run.measurements(other, problems)}
    assert len(names) == 6
    assert len(names & others) == 2  # non-words and likelihoods under the model itself
    nothing = replace(study, embedder=None, second_model=None, likelihood=False, words=False)
    assert measurement_run.measurements(nothing, problems) == []
    assert measurement_run.measurements(replace(nothing, likelihood=True, models=(served(study),)), problems) == []


def test_stores_measured_by_earlier_versions_are_still_read(folder: Path) -> None:
    """File names of existing stores must not change, or everything would be measured again."""
    study, _, problems = opened(folder)
    names = {measurement.name for measurement in measurement_run.measurements(study, problems)}
    assert names >= {"embedding-b02da82229e0", "own-596a2b34e7f7", "second-8ec1e32b59c9"}


def test_topic_files_depend_on_the_prompts_of_the_task(folder: Path) -> None:
    study, _, problems = opened(folder)
    [own] = problems.values()
    fewer = type("Fewer", (type(own.task),), {"items": lambda self, split=None, limit=None: list(own.items)})
    changed = {study.tasks[0].name: TaskProblems(fewer(own.task.options()), own.items)}
    names, others = (
        {measurement.name for measurement in measurement_run.measurements(study, each)} for each in (problems, changed)
    )
    assert {name.partition("-")[0] for name in names - others} == {"topic"}


def served(study: Study) -> config.ModelSpec:
    return study.models[0].replace(engine="openai")


def test_private_tasks_are_not_measured(folder: Path) -> None:
    study, store, problems = opened(folder, embedder="another")
    [own] = problems.values()
    hidden = type("Hidden", (type(own.task),), {"private": True})(own.task.options())
    started: Started = []
    measurement_run.measure(
        study, store, {study.tasks[0].name: TaskProblems(hidden, own.items)}, on_measurement=noted(started)
    )
    assert started == []


def test_perplexity_and_entropy_are_means_over_tokens() -> None:
    samples = tuple(SampleRecord(n, "x", (1,), 1, "stop", False, None, None, "") for n in range(3))
    scored = GroupLikelihoods((1.0, 2.0, math.nan), (0.5, 1.0, math.nan), (30, 10, 0))
    record = Record(
        "a", samples, {}, {}, measured=GroupMeasurements(own=scored, second=replace(scored, nll=(2.0, 2.0, 9.0)))
    )
    measures = {measure.name: measure.of for measure in MEASURES}
    assert measures["perplexity"](record) == pytest.approx(math.exp(1.25))
    assert measures["entropy"](record) == pytest.approx(0.625)
    assert measures["second perplexity"](record) == pytest.approx(math.exp(2))
    assert all(
        math.isnan(measures[name](replace(record, measured=GroupMeasurements()))) for name in ("perplexity", "Vendi")
    )
    nothing = GroupLikelihoods((math.nan,) * 3, (math.nan,) * 3, (0, 0, 0))
    assert math.isnan(measures["perplexity"](replace(record, measured=GroupMeasurements(own=nothing))))


def test_one_sample_has_no_diversity() -> None:
    sample = SampleRecord(0, "x", (1,), 1, "stop", False, None, None, "")
    record = Record("a", (sample,), {}, {}, measured=GroupMeasurements(vectors=np.ones((1, 3), np.float32)))
    assert math.isnan(next(measure for measure in MEASURES if measure.name == "Vendi").of(record))


def test_the_report_has_columns_for_all_measurements(folder: Path) -> None:
    text = (folder / "report" / "report.md").read_text()
    for column in ("Vendi", "Vendi30", "cosine", "perplexity", "second perplexity", "entropy", "loops %", "empty %"):
        assert f"| {column} |" in text, column
    assert "* **on topic**: samples that are closer" in text
    assert text.index("*Does it write more different texts at equal perplexity?*") < text.index("## countdown")
    assert (folder / "report" / "primary.csv").read_text().startswith("model,task,n,problems,arm,equal_in")
