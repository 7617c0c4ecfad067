"""`esamp study plan`: hand-computed numbers, its output, and its errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from esamp.analysis.plan import MOST, needed, plan, requested_difference
from esamp.analysis.plan_options import PlanOptions
from esamp.analysis.power import Spread, assumed_spread, pilot_spread
from esamp.cli import main
from esamp.errors import OptionError
from esamp.study import config
from esamp.study.grid import cells, item_key
from esamp.study.records import Record, SampleRecord
from esamp.study.run import load_tasks
from esamp.study.store import Store

TOML = """
name = "plan"
seeds = [0, 1]
groups = [4]
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
limit = 12
[[methods]]
method = "vanilla"
[[methods]]
method = "esamp"
"""


def write(tmp_path: Path, text: str = TOML) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def group(item: str, right: int) -> Record:
    samples = tuple(SampleRecord(i, "x", (i,), 1, "stop", i < right, "x", f"a{i}", "") for i in range(4))
    return Record(item, samples, dict(tokens=40, prompt_tokens=5, calls=4, seconds=1.0), {})


def fill(path: Path, store: Store, *, vary: bool = True) -> None:
    """A pilot whose groups took 40 tokens; the number of right samples is random, or one everywhere."""
    study, rng = config.read(path), np.random.default_rng(0)
    items = load_tasks(study)["countdown"].items
    for cell in cells(study):
        file = store.open(cell)
        assert file is not None
        with file:
            for item in items:
                file.append(item_key(item), group(item.id, int(rng.integers(5)) if vary else 1).as_json())


def test_the_normal_approximation_matches_hand_computed_values() -> None:
    # (1.95996 + 0.84162)^2 = 7.8489: a variance of 0.04 and a difference of 0.05 take 125.6 problems.
    assert needed(0.04, 0.05, 1, PlanOptions()) == pytest.approx(125.58, abs=0.01)
    # Two comparisons: z of 0.0125 is 2.24140, squared with 0.84162 it is 9.5048.
    assert needed(0.04, 0.05, 2, PlanOptions()) == pytest.approx(152.08, abs=0.01)


def test_the_spread_of_a_pilot_matches_hand_computed_values() -> None:
    # Means 0 and 2; within, each seed is 1 off: var_w = 2, var of the means 2, so var_b = 2 - 2 / 2 = 1.
    found = pilot_spread([np.array([[-1.0, 1.0], [1.0, 3.0]])], "by hand")
    assert (found.between.var(), found.within.var()) == (pytest.approx(1), pytest.approx(2))
    assert found.between.mean() == found.within.mean() == 0
    assert pilot_spread([np.array([[1.0], [3.0]])], "").variance(7) == pytest.approx(
        2
    )  # one seed has no variance within problems


def test_the_spread_is_that_of_the_most_variable_arm() -> None:
    calm, wild = np.zeros((4, 1)), np.array([[0.0], [0.0], [1.0], [1.0]])
    assert pilot_spread([calm, wild], "").variance(1) == pytest.approx(1 / 3)


def test_the_search_ends_near_the_approximation() -> None:
    values = np.random.default_rng(0).normal(0, 0.2, size=500)
    spread = Spread(values - values.mean(), np.empty(0), "")
    options = PlanOptions(simulations=400)
    found = plan("t", spread, (100, 1), 1, 10.0, options)
    (least,) = found.smallest
    assert least is not None
    assert least.problems == pytest.approx(needed(spread.variance(1), 0.05, 1, options), rel=0.15)
    assert least.power >= 0.8
    assert least.tokens == least.problems * 10
    assert found.visible == pytest.approx(0.05 * np.sqrt(needed(spread.variance(1), 0.05, 1, options) / 100), rel=0.15)


def test_more_seeds_reduce_problems_if_seeds_vary() -> None:
    rng = np.random.default_rng(1)
    spread = Spread(np.zeros(10), rng.normal(0, 0.2, size=500), "")
    found = plan("t", spread, (50, 1), 1, 10.0, PlanOptions(simulations=300, difference=0.08))
    one, two = found.smallest
    assert one is not None
    assert two is not None
    assert two.problems == pytest.approx(one.problems / 2, rel=0.3)


def test_an_undetectable_difference_is_none() -> None:
    wide = Spread(np.random.default_rng(2).normal(0, 50.0, size=100), np.empty(0), "")
    found = plan("t", wide, (4, 1), 1, 1.0, PlanOptions(simulations=100))
    assert found.smallest == (None,)
    assert max(point.problems for point in found.points) <= MOST
    assert found.visible is None  # the test of four problems has no p below 1/8


def test_assumed_spreads_match_their_definition() -> None:
    # Both arms have the chance p, uniform over problems: single samples differ with variance 2 E[p (1 - p)] = 1/3.
    options = PlanOptions(difficulty=0.5, concentration=2.0, effect_spread=0.0)
    assert assumed_spread(options, 1).variance(1) == pytest.approx(1 / 3, rel=0.05)
    assert assumed_spread(options, 4).variance(1) == pytest.approx(1 / 12, rel=0.05)
    with pytest.raises(OptionError, match="cannot be planned without a pilot"):
        assumed_spread(PlanOptions(measure="distinct", difference=1.0), 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"measure": "speed"}, "no measure 'speed': choose from pass@1"),
        ({"measure": "distinct"}, "no default difference"),
        ({"difference": 5.0}, "five points are 0.05"),
    ],
    ids=["measure", "unit", "percent"],
)
def test_invalid_plans_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        requested_difference(PlanOptions.parse(options))


def test_the_command_plans_from_a_pilot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, store = write(tmp_path), tmp_path / "store"
    fill(path, Store(store))
    command = ["study", "plan", str(path), "--store", str(store), "--simulations", "100", "--difference", "0.2"]
    assert main([*command, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["plans"]
    assert found["source"] == "pilot of 12 problems and 2 seeds"
    assert found["var_between"] + found["var_within"] == pytest.approx(0.25, abs=0.12)  # 2 x 2 / 16, and 12 problems
    point = found["points"][0]
    assert point["tokens"] == point["problems"] * point["seeds"] * 80
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "To see 20.0 points in pass@1 at level 0.05 with 1 comparison (Holm)" in text
    assert "80% power takes about" in text


def test_the_command_prints_its_assumptions_and_refuses_other_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = write(tmp_path), tmp_path / "store"
    command = ["study", "plan", str(path), "--store", str(store), "--simulations", "100"]
    assert main([*command, "--difference", "0.2"]) == 0
    assert "no pilot: assumed a chance of Beta(mean 0.3" in capsys.readouterr().out
    assert main([*command, "--measure", "solved", "--alpha", "2"]) != 0
    assert "'alpha' = 2.0: expected a number from" in capsys.readouterr().err
    fill(path, Store(store), vary=False)
    assert main(command) != 0
    assert "never differs in the pilot" in capsys.readouterr().err
    alone = write(tmp_path, TOML.rsplit("[[methods]]", 1)[0])
    assert main(["study", "plan", str(alone), "--store", str(store)]) != 0
    assert "compares nothing" in capsys.readouterr().err


def test_a_task_without_right_answers_is_planned_by_its_diversity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "book.txt").write_text(" ".join(f"word{n}" for n in range(100)))
    task = 'task = "continuation"\noptions = { data = "%s", places = 3, words = 4 }' % (tmp_path / "book.txt")
    path = write(tmp_path, TOML.replace('task = "countdown"\nlimit = 12', task))
    command = ["study", "plan", str(path), "--store", str(tmp_path / "store")]
    assert main(command) != 0
    assert "continuation has no right answers, so pass@1 has no meaning: choose from Vendi" in capsys.readouterr().err
    assert main([*command, "--measure", "Vendi", "--difference", "0.2"]) != 0
    assert "cannot be planned without a pilot" in capsys.readouterr().err
