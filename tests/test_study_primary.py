"""The primary comparison: its declaration, hand-computed tests, and the sentence about them."""

import csv
import io
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esamp.analysis.load import Block
from esamp.analysis.primary import PrimaryTest, primary_tests
from esamp.errors import OptionError
from esamp.report import primary_report, tables
from esamp.study import config
from esamp.study.config import Study
from esamp.study.grid import cells
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.records import Record, SampleRecord

TOML = """
name = "claimed"
groups = [2]
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
[[methods]]
method = "vanilla"
label = "T1"
[[methods]]
method = "vanilla"
label = "T2"
sampling = { temperature = 2.0 }
[[methods]]
method = "vanilla"
label = "top-p"
sampling = { top_p = 0.9 }
[[methods]]
method = "esamp"
label = "ours"
[primary]
question = "Does it write more | <different> texts?"
arm = "ours"
measure = "Vendi30"
at_equal = ["non-words", "on topic"]
not_above = ["loops"]
"""
LOOP = "no no no no"
Row = tuple[float, float, float, int]
"""Vendi30, non-words, on topic, and the number of looping samples of two."""


def study(**changes: Any) -> Study:
    values = tomllib.loads(TOML)
    return config.parse({**values, "primary": {**values["primary"], **changes}})


def record(item: str, row: Row) -> Record:
    vendi, nonwords, topic, looping = row
    samples = tuple(
        SampleRecord(n, LOOP if n < looping else "fine", (n,), 1, "stop", False, None, None, "") for n in range(2)
    )
    measured = GroupMeasurements(opening_vendi=vendi, nonwords=nonwords, on_topic=topic)
    return Record(item, samples, dict(tokens=2, seconds=1.0), {}, measured=measured)


def block(problems: int = 8, **arms: list[Row] | Row) -> Block:
    items = tuple(str(place) for place in range(problems))
    groups = {}
    for arm, given in arms.items():
        rows = given if isinstance(given, list) else [given] * problems
        groups[arm] = {0: {item: record(item, row) for item, row in zip(items, rows, strict=True)}}
    return Block("m", "t", 2, items, 0, groups)


def by_hand(ours: list[Row] | Row, **changes: list[Row] | Row) -> Block:
    """Over temperature 2 to 6 texts; over top-p 1 to 2 texts. Non-words .04 (root .2) to .16 (.4), topic .9 to .5."""
    arms: dict[str, list[Row] | Row] = {"T1": (2, 0.04, 0.9, 0), "T2": (6, 0.16, 0.5, 1), "top-p": (1, 0.01, 1.0, 0)}
    return block(**{**arms, **changes}, ours=ours)


def test_the_arm_is_compared_with_the_best_curve_at_each_level() -> None:
    """Root .3 lies halfway to T = 2, where plain sampling has 4 texts; topic .8 a quarter of the way, 3 texts."""
    words, topic = primary_tests(study(), [by_hand((7, 0.09, 0.8, 1))])
    assert (words.held_equal, words.own, words.plain) == ("non-words", 7, pytest.approx(4))
    assert words.point is not None
    assert (words.point.curve.name, words.point.value) == ("temperature", pytest.approx(1.5))
    assert words.interval.estimate == pytest.approx(3)
    assert topic.plain == pytest.approx(3)
    assert words.p == 2 / 2**8
    assert words.adjusted == pytest.approx(2 * words.p)  # two tests, one family
    assert words.better
    [loops] = words.bounds
    assert (loops.own, loops.plain) == (0.5, pytest.approx(0.25))
    assert loops.interval.estimate == pytest.approx(0.25)


def test_the_best_of_two_curves_with_the_level_is_chosen() -> None:
    """Both curves end at the level of T = 1; below it only top-p has points, so top-p is chosen."""
    whole = by_hand((7, 0.0225, 0.95, 0))
    for outcome in primary_tests(study(), [whole]):
        assert outcome.point is not None
        assert outcome.point.curve.name == "top-p"
    steeper = by_hand((7, 0.09, 0.8, 0), **{"top-p": (9, 0.25, 0.4, 0)})
    for outcome in primary_tests(study(), [steeper]):
        assert outcome.point is not None
        assert outcome.point.curve.name == "top-p"


def test_holm_counts_the_tests_of_all_blocks() -> None:
    whole = by_hand((7, 0.09, 0.8, 0))
    found = primary_tests(study(), [whole, replace(whole, task="u")])
    assert len(found) == 4
    assert [each.adjusted for each in found] == pytest.approx([4 * 2 / 2**8] * 4)


def said(of: Study, *blocks: Block) -> str:
    assert of.primary is not None
    return primary_report.sentence(of.primary, primary_tests(of, blocks))


def test_the_sentence_confirms_the_claim_only_if_every_part_holds() -> None:
    text = said(study(), by_hand((7, 0.09, 0.8, 0)))
    assert text.startswith(
        "As claimed: ours has more Vendi30 than the best plain sampling at the same share of non-words"
    )
    assert "+3.00 [+3.00, +3.00], p = 0.016" in text
    assert "in loops it is not above plain sampling beyond noise" in text


def test_the_sentence_begins_with_a_significant_excess_of_loops() -> None:
    text = said(study(), by_hand((7, 0.09, 0.8, 2)))
    assert text.startswith("Claimed, but shown only in part: ")
    assert "ours has more loops at the same share of non-words (+75.0" in text


def test_an_insignificant_excess_of_loops_does_not_count() -> None:
    """Two of eight problems have a looping sample, none with plain sampling: +12.5 points with 0 in the interval."""
    rows: list[Row] = [(7, 0.04, 0.9, int(place < 2)) for place in range(8)]
    whole = by_hand(rows)
    loops = primary_tests(study(), [whole])[0].bounds[0]
    assert loops.interval.estimate == pytest.approx(0.125)
    assert loops.interval.low <= 0
    assert said(study(), whole).startswith("As claimed: ")


def test_a_level_that_no_curve_reaches_is_no_evidence() -> None:
    found = primary_tests(study(), [by_hand((7, 0.09, 0.2, 0))])
    assert [each.point is None for each in found] == [False, True]
    assert found[0].adjusted == found[0].p  # one test is left
    text = said(study(), by_hand((7, 0.09, 0.2, 0)))
    assert text.startswith("Claimed, but shown only in part: ")
    assert "nothing can be said at the same share on topic" in text


def test_the_sentence_distinguishes_no_evidence_from_less() -> None:
    rng = np.random.default_rng(0)
    level: list[Row] = [(float(value), 0.09, 0.7, 0) for value in rng.normal(4, 1, 8)]
    text = said(study(), by_hand(level))
    assert text.startswith("The claim is not shown: no difference in Vendi30 is shown at ")
    less = said(study(), by_hand((1, 0.09, 0.7, 0)))
    assert less.startswith("The claim is not shown: ours has less Vendi30 than the best plain sampling at ")


def test_an_unmeasured_level_is_no_evidence() -> None:
    nan = float("nan")
    text = said(study(), by_hand((7, nan, nan, 0)))
    assert text.startswith("The claim is not shown: nothing can be said")
    whole = by_hand((7, 0.09, 0.8, 0))
    bare = {
        item: replace(one, samples=tuple(replace(each, text=None) for each in one.samples))
        for item, one in whole.arms["ours"][0].items()
    }
    text = said(study(), replace(whole, arms={**whole.arms, "ours": {0: bare}}))
    assert text.startswith("Claimed, but shown only in part: ")
    assert "loops could not be compared" in text


def test_the_report_begins_with_the_primary_comparison() -> None:
    whole = by_hand((7, 0.09, 0.8, 1))
    section = primary_report.markdown(study(), [whole])
    text = tables.markdown(study(), [whole], primary=section)
    assert text.index("## Primary comparison") < text.index("## m, t, groups of 2")
    assert "*Does it write more \\| &lt;different> texts?*" in text
    assert "| non-words % | 9.00 | T 1.50, on the curve over temperature | 7.00 | 4.00 | +3.00" in text
    rows = list(csv.DictReader(io.StringIO(primary_report.csv(study(), [whole]))))
    assert [(row["equal_in"], row["role"], row["measure"]) for row in rows] == [
        ("non-words", "compared", "Vendi30"),
        ("non-words", "not above", "loops"),
        ("on topic", "compared", "Vendi30"),
        ("on topic", "not above", "loops"),
    ]
    assert float(rows[0]["difference"]) == pytest.approx(3)
    assert (rows[0]["curve"], float(rows[0]["setting"]), rows[0]["nearest"]) == ("temperature", 1.5, "False")
    assert rows[1]["p_holm"] == ""


def test_the_level_of_perplexity_is_the_geometric_mean_that_is_held_equal() -> None:
    whole = by_hand((7, 0.09, 0.8, 0))
    arms = {
        arm: {
            0: {item: replace(one, measured=replace(one.measured, own=scored(int(item)))) for item, one in rows.items()}
        }
        for arm, (rows,) in ((arm, groups.values()) for arm, groups in whole.arms.items())
    }
    [outcome] = primary_tests(study(at_equal=["perplexity"]), [replace(whole, arms=arms)])
    assert outcome.level == pytest.approx(np.exp(np.mean([int(item) for item in whole.items])))


def scored(nll: float) -> GroupLikelihoods:
    return GroupLikelihoods((nll, nll), (1.0, 1.0), (1, 1))


def test_without_a_declaration_there_is_no_section() -> None:
    bare = config.parse({name: value for name, value in tomllib.loads(TOML).items() if name != "primary"})
    assert primary_tests(bare, [by_hand((7, 0.09, 0.8, 1))]) == []
    assert primary_report.markdown(bare, [by_hand((7, 0.09, 0.8, 1))]) == ""


def test_cells_do_not_depend_on_the_declaration() -> None:
    bare = config.parse({name: value for name, value in tomllib.loads(TOML).items() if name != "primary"})
    assert [cell.key for cell in cells(bare)] == [cell.key for cell in cells(study())]
    unworded = config.parse({**tomllib.loads(TOML), "words": False, "primary": None})
    assert [cell.key for cell in cells(unworded)] == [cell.key for cell in cells(bare)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arm": "theirs"}, "'theirs': choose from ours"),
        ({"arm": "T2"}, "'T2': choose from ours"),
        ({"measure": "beauty"}, "'beauty': choose from pass@1"),
        ({"at_equal": ["length"]}, "'length': choose from entropy, perplexity, non-words, on topic"),
        ({"at_equal": []}, "at_equal"),
        ({"at_equal": ["on topic", "on topic"]}, "twice"),
        ({"not_above": ["on topic"]}, "'on topic': choose from loops"),
        ({"not_above": ["non-words"]}, "at once"),
        ({"question": ""}, "question"),
        ({"answer": "yes"}, "answer"),
    ],
)
def test_an_untestable_claim_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=r"^\[primary\]: ") as error:
        study(**changes)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedder": "none"}, "'Vendi30' is not measured in this study: name an embedder"),
        ({"words": False}, "'non-words' is not measured in this study: set words = true"),
        ({"methods": [{"method": "vanilla"}, {"method": "esamp", "label": "ours"}]}, "no curve of plain sampling"),
        ({"primary": "ours"}, "give a table"),
    ],
)
def test_a_study_without_the_claimed_measure_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=r"^\[primary\]: ") as error:
        config.parse({**tomllib.loads(TOML), **changes})
    assert words in str(error.value)


def noisy(rng: np.random.Generator, vendi: float, nonwords: float, topic: float) -> list[Row]:
    """Problems with off-topic samples are more diverse and have more non-words."""
    heat = rng.normal(0, 1, 20)
    return [(vendi + h + float(rng.normal(0, 0.5)), nonwords * (1 + h / 5), topic - h / 40, 0) for h in heat.tolist()]


def test_an_arm_on_the_curve_is_rarely_called_better() -> None:
    """Halfway between the two temperatures in both levels and in diversity."""
    rng = np.random.default_rng(5)
    found: list[PrimaryTest] = []
    for _ in range(120):
        arms = {"T1": noisy(rng, 2, 0.04, 0.9), "T2": noisy(rng, 6, 0.16, 0.5), "top-p": noisy(rng, 1, 0.01, 1.0)}
        found += primary_tests(study(), [block(20, **arms, ours=noisy(rng, 4, 0.09, 0.7))])
    assert all(each.point is not None for each in found)
    wrong = np.mean([first.better or second.better for first, second in zip(found[::2], found[1::2], strict=True)])
    assert wrong <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 120)
