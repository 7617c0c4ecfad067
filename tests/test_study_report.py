"""What a study measures and reports: by hand, by definition, and on groups that were really sampled."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from esamp.analysis.load import Block, load
from esamp.analysis.measures import MEASURES, majority, subset_pass, table
from esamp.analysis.statistics import differences, estimates
from esamp.cli import main
from esamp.engines.base import Completion, Request, Sample
from esamp.errors import InputError
from esamp.metrics.pass_at_k import pass_at_k
from esamp.report import tables
from esamp.study import config
from esamp.study.config import Study
from esamp.study.grid import cells, item_key
from esamp.study.records import Record, SampleRecord, graded_record
from esamp.study.run import load_tasks
from esamp.study.store import Store
from esamp.tasks.base import Grade, Item
from esamp.tasks.countdown import Countdown

TOML = """
name = "by hand"
seeds = [0, 1]
groups = [4]
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
limit = 3
[[methods]]
method = "vanilla"
[[methods]]
method = "esamp"
label = "ours | <b>"
"""


def group(item: str, *answers: str | None, tokens: int = 10) -> Record:
    """One group; answers that begin with + are right, None is no answer."""
    samples = []
    for index, answer in enumerate(answers):
        right = answer is not None and answer.startswith("+")
        ids = tuple(range(index, index + tokens))
        samples.append(SampleRecord(index, "x", ids, tokens, "stop" if answer else "length", right, answer, answer, ""))
    cost = dict(tokens=tokens * len(answers), prompt_tokens=5, calls=len(answers), seconds=2.0)
    return Record(item, tuple(samples), cost, {})


MIXED = group("a", "+x", "+x", "+y", None)
WRONG = group("a", "u", "v", "v", "+x")


@pytest.mark.parametrize(
    ("name", "mixed", "wrong"),
    [
        ("pass@1", 0.75, 0.25),
        ("solved", 1.0, 1.0),
        ("majority", 1.0, 0.0),
        ("distinct", 2.0, 1.0),
        ("tokens", 10.0, 10.0),
        ("parsed", 0.75, 1.0),
        ("cut", 0.25, 0.0),
        ("spent", 40.0, 40.0),
        ("seconds", 2.0, 2.0),
    ],
)
def test_measures_agree_with_hand_computed_values(name: str, mixed: float, wrong: float) -> None:
    measure = next(each for each in MEASURES if each.name == name)
    assert measure.of(MIXED) == mixed
    assert measure.of(WRONG) == wrong


def test_a_tie_of_votes_goes_to_the_first_drawn() -> None:
    assert majority(group("a", "u", "+x", "+x", "u")) == 0.0
    assert majority(group("a", "+x", "u", "u", "+x")) == 1.0
    assert majority(group("a", None, None)) == 0.0


def test_pass_at_k_of_subsets_is_the_estimator() -> None:
    groups = {0: {"a": MIXED, "b": WRONG}}
    found = subset_pass(groups, ["a", "b"], 2)
    assert found[:, 0] == pytest.approx(pass_at_k([4, 4], [3, 1], 2))
    assert found[1, 0] == pytest.approx(0.5)
    assert np.isnan(subset_pass(groups, ["a"], 5)).all()


def block(n: int = 12) -> Block:
    """The second arm finds one more solution in every problem, in both seeds."""
    items = tuple(f"p{place}" for place in range(n))
    plain = {seed: {item: group(item, "+x", "u", "u", "u") for item in items} for seed in (0, 1)}
    ours = {seed: {item: group(item, "+x", "+y", "u", "u") for item in items} for seed in (0, 1)}
    return Block("m", "t", 4, items, 0, {"vanilla": plain, "ours | <b>": ours})


def test_differences_are_paired_and_tested() -> None:
    found = {each.measure: each for each in differences(block(), "vanilla")}
    assert found["distinct"].interval.estimate == 1.0
    assert found["distinct"].p == pytest.approx(2 / 2**12)  # all twelve signs alike: two of all flips
    assert found["solved"].p == 1.0
    assert found["pass@1"].interval.estimate == pytest.approx(0.25)


def test_holm_counts_the_arms_compared() -> None:
    base = block()
    arms = {**base.arms, "third": base.arms["vanilla"], "fourth": base.arms["vanilla"]}
    found = differences(Block("m", "t", 4, base.items, 0, arms), "vanilla")
    ours = next(each for each in found if each.arm.startswith("ours") and each.measure == "distinct")
    assert ours.adjusted == pytest.approx(3 * ours.p)


def test_estimates_have_every_measure_and_the_subsets() -> None:
    found = {(each.arm, each.measure) for each in estimates(block())}
    assert ("vanilla", "pass@2 (subset of 4)") in found
    assert ("vanilla", "pass@4 (subset of 4)") not in found  # that is what a group of 4 says
    assert {measure for _, measure in found} >= {measure.name for measure in MEASURES}


def study() -> Study:
    import tomllib

    return config.parse(tomllib.loads(TOML))


def test_the_report_lists_significant_differences_and_labels_cannot_break_it() -> None:
    text = tables.markdown(study(), [block()])
    assert "Beyond chance after correction: " in text
    assert "distinct (+1.00 [+1.00, +1.00]" in text
    assert "<b>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ours")]
    heads = [line for line in text.splitlines() if line.startswith("| method")]
    for head, row in zip(heads, rows, strict=True):
        assert row.replace("\\|", "").count("|") == head.count("|")
    same = Block("m", "t", 4, block().items, 2, {"vanilla": block().arms["vanilla"], "x": block().arms["vanilla"]})
    plain = tables.markdown(study(), [same])
    assert "Nothing differs beyond chance after correction." in plain
    assert "2 more problems are not finished" in plain


def test_csv_files_have_every_number() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.estimates_csv([block()]))))
    distinct = next(row for row in rows if row["arm"] == "vanilla" and row["measure"] == "distinct")
    assert (float(distinct["estimate"]), distinct["problems"], distinct["n"]) == (1.0, "12", "4")
    changes = list(csv.DictReader(io.StringIO(tables.differences_csv(study(), [block()]))))
    assert {row["baseline"] for row in changes} == {"vanilla"}
    assert all(float(row["p_holm"]) >= float(row["p"]) for row in changes)


def test_a_problem_that_one_arm_lacks_is_left_out_of_all_arms(tmp_path: Path) -> None:
    found, store = study(), Store(tmp_path / "store")
    problems = load_tasks(found)
    items = problems["countdown"].items
    with pytest.raises(InputError, match="no problem is finished by all methods"):
        load(found, store, problems)
    for place, cell in enumerate(cells(found)):
        file = store.open(cell)
        assert file is not None
        with file:
            for item in items[: 3 if place else 2]:  # the first cell lacks the third problem
                file.append(item_key(item), group(item.id, "+x", "u", "u", "u").as_json())
    (only,) = load(found, store, problems)
    assert only.items == (items[0].id, items[1].id)
    assert only.missing == 1
    assert table(only.arms["vanilla"], only.items, MEASURES[0]).tolist() == [[0.25, 0.25]] * 2


def test_records_survive_a_round_trip() -> None:
    values = json.loads(json.dumps(MIXED.as_json()))
    assert Record.of_json(values) == MIXED


class Secret(Countdown):
    """A task whose authors ask that nothing be published."""

    private = True

    def grade(self, item: Item, text: str) -> Grade:
        return Grade("right" in text, text, "B", f"said {text}")


def test_no_text_of_a_private_task_is_kept() -> None:
    question = "THE SECRET QUESTION"
    sample = Sample(0, f"{question}: right", (1, 2, 3), "stop")
    completion = Completion(Request("q/1", question, method="vanilla"), (sample,), 5, 1.0, details={"x": question})
    kept = graded_record(Secret(), Item("q/1", question), completion)
    assert "SECRET" not in json.dumps(kept.as_json())
    assert (kept.samples[0].correct, kept.samples[0].canonical, kept.samples[0].tokens) == (True, "B", 3)


def order(name: str) -> int:
    """As the report names its files."""
    return ["report.md", "estimates.csv", "differences.csv", "matched.csv", "index.html"].index(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_smoke_study_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(Path(__file__).parents[1] / "studies" / "smoke.toml")
    store, out = str(tmp_path / "store"), tmp_path / "report"
    assert main(["study", "run", file, "--store", store]) == 0
    assert main(["study", "status", file, "--store", store, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["done"] == status["total"] == 32
    assert status["expected_tokens"] == 0
    assert main(["study", "report", file, "--store", store, "--out", str(out)]) == 0
    assert capsys.readouterr().out == (out / "report.md").read_text()
    files = {"differences.csv", "estimates.csv", "matched.csv", "report.md", "index.html", "figures"}
    assert {path.name for path in out.iterdir()} == files
    pictures = set(re.findall(r"!\[[^]]*\]\(<(figures/[^>]*)>\)", (out / "report.md").read_text()))
    assert pictures == {f"figures/{path.name}" for path in (out / "figures").glob("*.svg")} != set()
    bare = tmp_path / "bare"
    assert main(["study", "report", file, "--store", store, "--out", str(bare), "--no-figures", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == sorted(files - {"figures"}, key=order)
