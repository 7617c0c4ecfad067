"""Equal quality: curves of plain sampling, levels of non-words and topic, and simulated noise."""

import math
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esamp.analysis.controls import MatchedDifference, controls, matched_differences
from esamp.analysis.load import Block
from esamp.analysis.matching import levels, plain_point
from esamp.analysis.plain_curves import all_curves, curves
from esamp.report.figures import series
from esamp.study import config
from esamp.study.config import Study
from esamp.study.group_measurements import GroupMeasurements
from esamp.study.records import Record, SampleRecord

TOML = """
name = "matched"
groups = [2]
[[models]]
model = "countdown"
[[tasks]]
task = "noveltybench"
[[methods]]
method = "vanilla"
label = "T1"
baseline = true
[[methods]]
method = "vanilla"
label = "T.5"
sampling = { temperature = 0.5 }
[[methods]]
method = "vanilla"
label = "T2"
sampling = { temperature = 2.0 }
[[methods]]
method = "vanilla"
label = "top-p"
sampling = { top_p = 0.9 }
[[methods]]
method = "min_p"
label = "min-p"
options = { p_base = 0.1 }
[[methods]]
method = "vanilla"
label = "min-p as a setting"
sampling = { min_p = 0.05 }
[[methods]]
method = "min_p"
label = "hot min-p"
options = { p_base = 0.1 }
sampling = { temperature = 1.5 }
[[methods]]
method = "min_p"
label = "hot min-p .2"
options = { p_base = 0.2 }
sampling = { temperature = 1.5 }
[[methods]]
method = "esamp"
label = "ours"
"""
Rows = list[tuple[float, float, float]]


def study(**changes: Any) -> Study:
    return config.parse({**tomllib.loads(TOML), **changes})


def record(item: str, vendi: float, nonwords: float, topic: float) -> Record:
    """A group with these measurements: opening Vendi, non-words, on topic."""
    samples = tuple(SampleRecord(n, "x", (n,), 1, "stop", False, None, None, "") for n in range(2))
    measured = GroupMeasurements(opening_vendi=vendi, nonwords=nonwords, on_topic=topic)
    return Record(item, samples, dict(tokens=2, seconds=1.0), {}, measured=measured)


def block(**arms: Rows) -> Block:
    """A block whose arms are lists of (Vendi30, non-words, on topic), one per problem."""
    items = tuple(str(number) for number in range(len(next(iter(arms.values())))))
    groups = {
        arm.replace("_", " "): {0: {item: record(item, *row) for item, row in zip(items, rows, strict=True)}}
        for arm, rows in arms.items()
    }
    return Block("m", "noveltybench", 2, items, 0, groups, graded=False)


TEMPERATURES = ("T.5", "T1", "T2")


def over_temperature(rows: tuple[Rows, Rows, Rows], ours: Rows) -> Block:
    return block(**dict(zip(TEMPERATURES, rows, strict=True)), ours=ours)


def test_curves_are_plain_sampling_over_one_setting() -> None:
    found = {(curve.name): [arm.label for arm in curve.arms] for curve in all_curves(study())}
    assert found == {
        "temperature": ["T.5", "T1", "T2"],
        "top-p": ["top-p", "T1"],
        "min-p": ["T1", "min-p as a setting", "min-p"],
        "temperature, at min-p 0.1": ["min-p", "hot min-p"],
        "min-p, at temperature 1.5": ["hot min-p", "hot min-p .2"],
    }
    assert [curve.name for curve in curves(study())] == ["temperature", "top-p", "min-p"]
    grids = {line.name: line.marks for line in series.vanilla_lines(study())}
    assert grids["vanilla over min-p"] == ("min-p 0", "min-p 0.05", "min-p 0.1")


def test_min_p_is_compared_with_curves_that_do_not_contain_it() -> None:
    """Min-p is compared with the temperature curve but not with the min-p curve."""
    rows = [(1.0, 0.04, 0.9)] * 4
    arms = {arm.label: rows for arm in study().arms}
    items = tuple("0123")
    whole = block(**dict.fromkeys(TEMPERATURES, rows))
    groups = {arm: {0: {item: record(item, *rows[0]) for item in items}} for arm in arms}
    got = {(each.arm, each.setting) for each in matched_differences(study(), replace(whole, arms=groups))}
    assert ("min-p", "temperature") in got
    assert ("min-p", "min_p") not in got
    assert ("ours", "min_p") in got


def only_temperatures() -> Study:
    methods = [row for row in tomllib.loads(TOML)["methods"] if row["label"] in (*TEMPERATURES, "ours")]
    return study(methods=methods)


def at_equal_nonwords(whole: Block) -> MatchedDifference:
    found = matched_differences(only_temperatures(), whole)
    [got] = [each for each in found if (each.held_equal, each.measure) == ("non-words", "Vendi30")]
    return got


def test_non_words_are_held_equal_on_the_scale_of_their_square_root() -> None:
    """.04 and .16 have roots .2 and .4; ours, .09, has .3 and lies halfway: plain sampling has 2 there, not 1.83."""
    whole = over_temperature(([(0.0, 0.01, 1)] * 4, [(1.0, 0.04, 0.9)] * 4, [(3.0, 0.16, 0.5)] * 4), [(5, 0.09, 2)] * 4)
    got = at_equal_nonwords(whole)
    assert got.value == pytest.approx(1.5)
    assert got.interval.estimate == pytest.approx(5 - 2)
    [row] = controls(only_temperatures(), matched_differences(only_temperatures(), whole))
    assert row.reached == {"entropy": False, "perplexity": False, "non-words": True, "on topic": False}


def test_shares_of_zero_can_be_held_equal() -> None:
    """Only the hottest arm has non-words: of the two equally near arms the more diverse one is matched."""
    whole = over_temperature(([(1.0, 0, 1)] * 4, [(2.0, 0, 1)] * 4, [(9.0, 0.16, 1)] * 4), [(5, 0, 1)] * 4)
    got = at_equal_nonwords(whole)
    assert got.value == 1.0
    assert got.interval.estimate == pytest.approx(5 - 2)


def test_at_equal_topic_shares_the_most_diverse_setting_is_matched() -> None:
    whole = over_temperature(([(1.0, 0, 1)] * 4, [(4.0, 0, 1)] * 4, [(3.0, 0, 1)] * 4), [(5, 0, 1)] * 4)
    [curve] = curves(only_temperatures())
    found = plain_point(whole, curve, "on topic", "ours", "Vendi30")
    assert found is not None
    assert (found.near, found.value) == (True, 1.0)
    assert found.difference(whole, "ours", "Vendi30") == pytest.approx(np.ones((4, 1)))


def test_of_several_points_with_the_level_the_most_diverse_is_matched() -> None:
    """On topic .9, .7, .9: the level .8 is passed twice, at Vendi 1.5 and at 4."""
    whole = over_temperature(([(1.0, 0, 0.9)] * 4, [(2.0, 0, 0.7)] * 4, [(6.0, 0, 0.9)] * 4), [(5, 0, 0.8)] * 4)
    [curve] = curves(only_temperatures())
    found = plain_point(whole, curve, "on topic", "ours", "Vendi30")
    assert found is not None
    assert (found.low, found.high, found.value) == ("T1", "T2", pytest.approx(1.5))
    assert found.mean(whole, "Vendi30") == pytest.approx(4)


def test_a_level_beyond_the_curve_is_not_matched() -> None:
    whole = over_temperature(([(1.0, 0, 0.9)] * 4, [(2.0, 0, 0.8)] * 4, [(6.0, 0, 0.7)] * 4), [(5, 0, 0.5)] * 4)
    [curve] = curves(only_temperatures())
    assert plain_point(whole, curve, "on topic", "ours", "Vendi30") is None


def test_an_unmeasured_level_has_no_match() -> None:
    nan = math.nan
    whole = over_temperature(([(1.0, nan, nan)] * 4, [(2.0, 0, nan)] * 4, [(6.0, 0, nan)] * 4), [(5, 0, nan)] * 4)
    assert matched_differences(only_temperatures(), whole) == []


def test_the_level_of_non_words_is_linearised_around_the_root_mean_share() -> None:
    rng = np.random.default_rng(3)
    whole = block(ours=[(1.0, float(share), 1.0) for share in rng.gamma(2, 0.01, 400)])
    shares = np.array([whole.arms["ours"][0][item].measured.nonwords for item in whole.items], dtype=np.float64)
    own = levels(whole, "ours", "non-words")
    assert own.mean() == pytest.approx(np.sqrt(shares.mean()))
    roots = [np.sqrt(shares[rng.integers(0, 400, 400)].mean()) for _ in range(4000)]
    assert own.std() / np.sqrt(400) == pytest.approx(np.std(roots), rel=0.05)


def noisy(rng: np.random.Generator, problems: int, mean: float, vendi: float) -> Rows:
    """Problems with more non-words are also more diverse: they move along the curve."""
    shares: NDArray[np.float64] = mean * rng.gamma(4, 0.25, problems)
    values = vendi + 20 * (np.sqrt(shares) - np.sqrt(mean)) + rng.normal(0, 0.3, problems)
    return [(float(value), float(share), 1.0) for value, share in zip(values, shares, strict=True)]


def drawn(rng: np.random.Generator, problems: int) -> Block:
    """Ours is on the curve: halfway between T = 1 and T = 2 in the root of the share."""
    rows = (noisy(rng, problems, 0.0025, 4), noisy(rng, problems, 0.04, 6), noisy(rng, problems, 0.16, 10))
    return over_temperature(rows, noisy(rng, problems, 0.09, 8))


def test_intervals_at_equal_non_words_include_the_uncertainty_of_the_point() -> None:
    rng = np.random.default_rng(1)
    whole = drawn(rng, 80)
    got = at_equal_nonwords(whole)
    share, vendi = (
        {arm: np.array([read(rows[0][item]) for item in whole.items]) for arm, rows in whole.arms.items()}
        for read in (lambda one: one.measured.nonwords, lambda one: one.measured.opening_vendi)
    )
    estimates = []
    for _ in range(2000):
        some = rng.integers(0, 80, 80)
        root = {arm: float(np.sqrt(values[some].mean())) for arm, values in share.items()}
        mean = {arm: float(values[some].mean()) for arm, values in vendi.items()}
        weight = (root["ours"] - root["T1"]) / (root["T2"] - root["T1"])
        estimates.append(mean["ours"] - (1 - weight) * mean["T1"] - weight * mean["T2"])
    width = float(np.quantile(estimates, 0.975) - np.quantile(estimates, 0.025))
    assert got.interval.high - got.interval.low == pytest.approx(width, rel=0.12)
    assert got.interval.estimate == pytest.approx(np.mean(estimates), abs=width / 10)


@pytest.mark.slow
def test_an_arm_on_the_curve_is_rarely_called_beyond_chance_at_equal_non_words() -> None:
    rng = np.random.default_rng(2)
    p_values = []
    for _ in range(150):
        got = at_equal_nonwords(drawn(rng, 14))
        p_values += [got.p] if got.value else []
    assert len(p_values) > 120
    assert 0.02 <= np.mean(np.array(p_values) <= 0.1) <= 0.18  # 10 %, three standard errors of 150 studies
