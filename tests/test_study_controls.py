"""Arms against plain sampling at equal entropy: hand-computed, against a bootstrap of the procedure, and simulated."""

import csv
import io
import math
import tomllib
from typing import Any

import numpy as np
import pytest

from esamp.analysis.controls import ArmControls, MatchedDifference, controls, matched_differences
from esamp.analysis.load import Block
from esamp.analysis.plain_curves import curves
from esamp.metrics.intervals import paired_permutation
from esamp.report import tables
from esamp.report.glance import at_a_glance
from esamp.study import config
from esamp.study.config import Study
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.records import Record, SampleRecord

TOML = """
name = "matched"
groups = [2]
embedder = "none"
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
[[methods]]
method = "vanilla"
[[methods]]
method = "vanilla"
grid = { "sampling.temperature" = [0.5, 2.0] }
[[methods]]
method = "vanilla"
sampling = { top_p = 0.9 }
[[methods]]
method = "esamp"
options = { beta = 1.0 }
[[methods]]
method = "xtc"
"""
VANILLA = {0.5: "vanilla temperature=0.5", 1.0: "vanilla", 2.0: "vanilla temperature=2"}


def study(**changes: Any) -> Study:
    return config.parse({**tomllib.loads(TOML), **changes})


def group(item: str, right: int, entropy: float, nll: float) -> Record:
    """A group of two samples of ten tokens, `right` of them right."""
    samples = tuple(
        SampleRecord(index, "x", (index,) * 10, 10, "stop", index < right, "a", "a", "") for index in range(2)
    )
    scored = GroupLikelihoods((nll, nll), (entropy, entropy), (10, 10))
    cost = dict(tokens=20, prompt_tokens=5, calls=2, seconds=1.0)
    return Record(item, samples, cost, {}, measured=GroupMeasurements(own=scored))


def block(**arms: list[tuple[int, float, float]]) -> Block:
    """A block whose arms are lists of (right, entropy, nll), one per problem."""
    items = tuple(str(place) for place in range(len(next(iter(arms.values())))))
    names = {"cold": VANILLA[0.5], "usual": VANILLA[1.0], "hot": VANILLA[2.0], "top_p": "vanilla top_p=0.9"}
    names |= {"esamp": "esamp beta=1", "xtc": "xtc"}
    groups = {
        names[arm]: {0: {item: group(item, *row) for item, row in zip(items, rows, strict=True)}}
        for arm, rows in arms.items()
    }
    return Block("countdown", "countdown", 2, items, 0, groups)


def by_hand(esamp: list[tuple[int, float, float]]) -> Block:
    """Vanilla solves everything at T = 0.5 (entropy .2, nll .1), half at T = 1 (.4, .3), nothing at T = 2 (.8, .9)."""
    return block(
        cold=[(2, 0.2, 0.1)] * 4,
        usual=[(1, 0.4, 0.3)] * 4,
        hot=[(0, 0.8, 0.9)] * 4,
        top_p=[(1, 0.3, 0.2)] * 4,
        esamp=esamp,
        xtc=[(0, 0.9, 0.9)] * 4,
    )


def found(
    got: list[MatchedDifference], arm: str, by: str, measure: str = "pass@1", setting: str = "temperature"
) -> MatchedDifference:
    [one] = [
        each for each in got if (each.arm, each.held_equal, each.measure, each.setting) == (arm, by, measure, setting)
    ]
    return one


def test_curves_are_vanilla_over_one_setting() -> None:
    temperature, top_p = curves(study())
    assert [arm.label for arm in temperature.arms] == [VANILLA[0.5], VANILLA[1.0], VANILLA[2.0]]
    assert [arm.label for arm in top_p.arms] == ["vanilla top_p=0.9", VANILLA[1.0]]
    methods = tomllib.loads(TOML)["methods"]
    assert curves(study(methods=[methods[0], *methods[3:]])) == []


def test_matched_differences_match_hand_computed_values() -> None:
    got = matched_differences(study(), by_hand([(2, 0.5, 0.25)] * 4))
    entropy, perplexity = found(got, "esamp beta=1", "entropy"), found(got, "esamp beta=1", "perplexity")
    # entropy .5 lies a quarter of the way from T = 1 (.4, pass@1 .5) to T = 2 (.8, pass@1 0): vanilla has .375 there
    assert entropy.value == pytest.approx(1.25)
    assert entropy.interval.estimate == pytest.approx(1 - 0.375)
    # nll .25 lies three quarters of the way from T = .5 (.1, pass@1 1) to T = 1 (.3, pass@1 .5): vanilla has .625
    assert perplexity.value == pytest.approx(0.875)
    assert perplexity.interval.estimate == pytest.approx(1 - 0.625)
    assert entropy.p == 2 / 2**4  # all four signs positive, or all negative


def test_an_arm_beyond_the_grid_has_no_match() -> None:
    got = matched_differences(study(), by_hand([(2, 0.1, 0.3)] * 4))
    low, high = found(got, "esamp beta=1", "entropy"), found(got, "xtc", "entropy")
    assert low.value is None
    assert high.value is None
    assert math.isnan(low.interval.estimate)
    assert found(got, "esamp beta=1", "perplexity").value == 1.0
    assert found(got, "xtc", "perplexity").value == 2.0


def test_indistinguishable_points_do_not_form_a_curve() -> None:
    """The entropies of T = 1 and T = .5 are indistinguishable, so the curve goes from T = .5 to T = 2."""
    middle = [(1, entropy, 0.3) for entropy in (0.1, 0.3, 0.1, 0.34)]
    whole = by_hand([(2, 0.5, 0.25)] * 4)
    rows = {"usual": middle, "cold": [(2, 0.2, 0.1)] * 4, "hot": [(0, 0.8, 0.9)] * 4, "top_p": [(1, 0.3, 0.2)] * 4}
    noisy = block(**rows, esamp=[(2, 0.5, 0.25)] * 4, xtc=[(0, 0.9, 0.9)] * 4)
    got = found(matched_differences(study(), noisy), "esamp beta=1", "entropy")
    assert got.value == pytest.approx(0.5 + 0.5 * 1.5)  # .5 lies halfway from .2 to .8
    assert got.interval.estimate == pytest.approx(0.5)
    assert found(matched_differences(study(), whole), "esamp beta=1", "entropy").value == pytest.approx(1.25)


def test_without_a_curve_the_nearest_indistinguishable_point_is_matched() -> None:
    """Entropy does not depend on temperature here: its mean is .21 at every setting."""
    flat = [(1, entropy, 0.3) for entropy in (0.1, 0.3, 0.1, 0.34)]
    other = [(0, entropy, 0.9) for entropy in (0.3, 0.1, 0.34, 0.18)]
    rows = {"cold": [(2, 0.2, 0.1)] * 4, "usual": flat, "hot": other, "top_p": [(1, 0.3, 0.2)] * 4}
    whole = block(**rows, esamp=[(2, entropy, 0.25) for entropy in (0.12, 0.28, 0.12, 0.34)], xtc=[(0, 0.9, 0.9)] * 4)
    got = found(matched_differences(study(), whole), "esamp beta=1", "entropy")
    assert got.value == 1.0  # .215 is nearest to .21
    assert got.interval.estimate == 0.5
    assert found(matched_differences(study(), whole), "xtc", "entropy").value is None  # entropy too high


@pytest.mark.parametrize("entropy", [0.41, 0.43, 0.47, 0.53, 0.59, 0.61, 0.67, 0.71, 0.73])
def test_rounding_errors_are_not_differences(entropy: float) -> None:
    same = {arm: [(2, level, 0.3)] * 8 for arm, level in (("cold", 0.2), ("usual", 0.4), ("hot", 0.8), ("top_p", 0.3))}
    got = found(
        matched_differences(study(), block(**same, esamp=[(2, entropy, 0.3)] * 8, xtc=same["hot"])),
        "esamp beta=1",
        "entropy",
    )
    assert got.p == 1
    assert got.interval.estimate == 0


def test_holm_corrects_over_the_arms_of_one_comparison() -> None:
    got = matched_differences(study(), by_hand([(2, 0.5, 0.9)] * 4))
    assert found(got, "esamp beta=1", "perplexity").adjusted == pytest.approx(2 * 2 / 2**4)  # xtc has a match too
    assert found(got, "esamp beta=1", "entropy").adjusted == pytest.approx(2 / 2**4)  # the entropy of xtc is too high


def test_controls_name_the_missing_comparisons() -> None:
    whole = study()
    esamp, xtc = controls(whole, matched_differences(whole, by_hand([(2, 0.5, 0.25)] * 4)))
    assert esamp == ArmControls(
        "esamp beta=1", True, True, {"entropy": True, "perplexity": True}
    )  # T / (1 + 1) is in the grid
    assert xtc == ArmControls("xtc", True, None, {"entropy": False, "perplexity": True})
    methods = tomllib.loads(TOML)["methods"]
    methods[3] = {"method": "esamp", "options": {"beta": 2.0}, "sampling": {"temperature": 0.7}}
    other = study(methods=methods)
    [esamp, _] = controls(other, [])
    assert (esamp.same_temperature, esamp.cooled) == (False, False)
    assert esamp.reached == {"entropy": False, "perplexity": False}


def test_arms_by_actions_have_no_cooled_control() -> None:
    methods = tomllib.loads(TOML)["methods"]
    methods[3] = {"method": "esamp", "options": {"signal": "action"}}
    assert controls(study(methods=methods), [])[0].cooled is None


def test_arms_without_likelihoods_are_left_out() -> None:
    whole = by_hand([(2, 0.5, 0.25)] * 4)
    assert not any(each.arm == "xtc" for each in matched_differences(study(), by_hand_without("xtc", whole)))
    assert matched_differences(study(), by_hand_without("vanilla", whole)) == []


def test_the_first_table_has_means_and_gains_at_equal_levels() -> None:
    """Distinct right answers: 1 at entropy .4, 0 at .8, so .75 at .5; and 1 from nll .1 to .3, so 1 at .25."""
    lines = at_a_glance(study(), by_hand([(2, 0.5, 0.25)] * 4)).splitlines()
    cells = {line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ") for line in lines[2:]}
    assert cells["method"] == [
        *("method", "pass@1 %", "solved %", "majority %", "distinct", "perplexity", "loops %", "tokens"),
        *("distinct at equal entropy", "distinct at equal perplexity"),
    ]
    assert cells["esamp beta=1"][:8] == ["esamp beta=1", "100", "100", "100", "1.00", "1.28", "0.0", "10.00"]
    assert cells["esamp beta=1"][8].startswith("+0.25 [+0.25, +0.25], p = ")
    assert cells["esamp beta=1"][9].startswith("+0.00 [+0.00, +0.00], p = ")
    assert cells["vanilla"][:3] == ["vanilla", "50", "100"]
    assert len(cells["vanilla"]) == 8  # a method has no gain over itself


def test_the_first_table_of_a_study_without_levels_compares_with_the_baseline() -> None:
    whole = by_hand([(2, 0.5, 0.25)] * 4)
    bare = by_hand_without("vanilla", by_hand_without("vanilla temperature=2", whole))
    text = at_a_glance(study(), bare)
    assert "differences in distinct from the baseline" in text
    assert "distinct against vanilla" in text


def by_hand_without(arm: str, whole: Block) -> Block:
    """The same block without the likelihoods of one arm."""
    bare = {item: Record(item, each.samples, each.cost, {}) for item, each in whole.arms[arm][0].items()}
    return Block(whole.model, whole.task, whole.n, whole.items, 0, {**whole.arms, arm: {0: bare}})


def noisy(rng: np.random.Generator, problems: int, entropy: float, chance: float) -> list[tuple[int, float, float]]:
    """Problems differ, and samples with higher entropy are less often right."""
    heat = rng.normal(0, 0.05, problems)
    rights = rng.binomial(2, np.clip(chance - 2 * heat, 0, 1))
    return [(int(right), entropy + float(own), 0.3) for right, own in zip(rights, heat, strict=True)]


def drawn(rng: np.random.Generator, problems: int) -> Block:
    """ESamp lies on the curve, halfway between T = 1 and T = 2."""
    return block(
        cold=noisy(rng, problems, 0.2, 0.9),
        usual=noisy(rng, problems, 0.4, 0.7),
        hot=noisy(rng, problems, 0.6, 0.5),
        esamp=noisy(rng, problems, 0.5, 0.6),
    )


def test_intervals_include_the_uncertainty_of_the_matched_point() -> None:
    rng = np.random.default_rng(1)
    whole = drawn(rng, 60)
    methods = [row for row in tomllib.loads(TOML)["methods"] if row["method"] != "xtc" and "top_p" not in str(row)]
    got = found(matched_differences(study(methods=methods), whole), "esamp beta=1", "entropy")
    columns = {arm: rows[0] for arm, rows in whole.arms.items()}
    entropy, right = (
        {arm: np.array([read(rows[item]) for item in whole.items]) for arm, rows in columns.items()}
        for read in (
            lambda record: record.measured.own.entropy[0],
            lambda record: np.mean([sample.correct for sample in record.samples]),
        )
    )
    estimates = []
    for _ in range(2000):
        some = rng.integers(0, 60, 60)
        level = {arm: float(values[some].mean()) for arm, values in entropy.items()}
        low, high = VANILLA[1.0], VANILLA[2.0]
        weight = (level["esamp beta=1"] - level[low]) / (level[high] - level[low])
        share = {arm: float(values[some].mean()) for arm, values in right.items()}
        estimates.append(share["esamp beta=1"] - (1 - weight) * share[low] - weight * share[high])
    width = float(np.quantile(estimates, 0.975) - np.quantile(estimates, 0.025))
    assert got.interval.high - got.interval.low == pytest.approx(width, rel=0.12)
    assert got.interval.estimate == pytest.approx(np.mean(estimates), abs=width / 20)


def test_an_arm_on_the_curve_is_rarely_called_beyond_chance() -> None:
    rng = np.random.default_rng(2)
    methods = [row for row in tomllib.loads(TOML)["methods"] if row["method"] != "xtc" and "top_p" not in str(row)]
    whole = study(methods=methods)
    p_values = []
    for _ in range(120):
        got = matched_differences(whole, drawn(rng, 12))
        p_values += [each.p for each in got if each.held_equal == "entropy" and each.measure == "pass@1" and each.value]
    assert len(p_values) > 100
    assert 0.01 <= np.mean(np.array(p_values) <= 0.1) <= 0.19  # 10 %, three standard errors of 120 studies


def test_report_and_csv_have_the_matched_differences() -> None:
    whole = by_hand([(2, 0.5, 0.25)] * 4)
    text = tables.markdown(study(), [whole])
    assert "### More than another temperature?" in text
    assert "| esamp beta=1 | T 1.25 | +62.5 [+62.5, +62.5], p = 0.12 |" in text
    assert "| xtc | yes | - | **missing** | yes |" in text
    rows = list(csv.DictReader(io.StringIO(tables.matched_csv(study(), [whole]))))
    [row] = [
        row
        for row in rows
        if (row["arm"], row["matched_by"], row["measure"], row["vanilla_over"])
        == ("esamp beta=1", "entropy", "pass@1", "temperature")
    ]
    assert float(row["vanilla_at"]) == pytest.approx(1.25)
    assert float(row["difference"]) == pytest.approx(0.625)
    assert {row["vanilla_over"] for row in rows} == {"temperature", "top_p"}


def test_the_permutation_test_flips_signs_of_differences() -> None:
    """A matched difference is tested by the report's paired test against zero."""
    got = found(matched_differences(study(), by_hand([(2, 0.5, 0.25)] * 4)), "esamp beta=1", "entropy")
    assert got.p == paired_permutation([0.625] * 4, [0.0] * 4, np.random.default_rng(0))
