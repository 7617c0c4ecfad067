"""The page of a study: what is packed into it, and how it behaves in a real browser, opened from disk."""

import base64
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.analysis.load import Block
from esamp.errors import InputError
from esamp.report.pages.projection import plane
from esamp.report.pages.study_page import study_page
from esamp.report.pages.study_samples import counts, packed, short, traced
from esamp.study import config
from esamp.study.config import Study
from esamp.study.group_measurements import GroupMeasurements
from esamp.study.records import Record, SampleRecord
from esamp.study.run import TaskProblems
from esamp.tasks.base import Item
from esamp.tasks.countdown import Countdown
from support.page_checks import CLEANED, HOSTILE, contrast, texts

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

STUDY: dict[str, Any] = {
    "name": "by hand",
    "seeds": [0, 1],
    "groups": [4],
    "traces": True,
    "models": [{"model": "countdown"}],
    "tasks": [{"task": "countdown"}],
    "methods": [
        {"method": "vanilla"},
        {"method": "vanilla", "label": "warm", "sampling": {"temperature": 1.2}},
        {"method": "esamp", "label": "ours"},
    ],
}
RIGHT = {"vanilla": (1, 2, 0, 2), "warm": (0, 0, 0, 0), "ours": (3, 1, 0, 4)}
"""right samples of each of four problems, seed 0; with seed 1 all are wrong"""
IDS = ("p1", "p2", "p10", "p20")
READY = "#detail[aria-busy=false]"

Open: TypeAlias = Callable[[Path], "Tab"]
Show: TypeAlias = Callable[[str], "Tab"]


def sample(index: int, grade: str, text: str = "a b c d e f g h i", *, traced: bool = True) -> SampleRecord:
    """One token a word: the first is not measured, the others rise from 1. Sample 3 is cut off and has no answer."""
    pieces = tuple(re.findall(r"\s?\S+", f"s{index} {text}"))
    rising = [None, *(float(step) for step in range(1, len(pieces)))]
    trace = {"novelty": rising, "kl": [value and value / 10 for value in rising], "cosine": [None] * len(pieces)}
    answer = None if grade == "none" else f"{index % 2}+{grade}"
    end = "length" if grade == "none" else "stop"
    told = (end, grade == "right", answer, answer, f"it is {grade}")
    own = SampleRecord(index, "".join(pieces), tuple(range(len(pieces))), len(pieces), *told)
    return replace(own, trace=trace, pieces=pieces) if traced else own


def group(item: str, right: int, *, traced: bool = True, embedded: bool = True) -> Record:
    """Four samples on a line, the later ones longer: so many right ones, wrong ones, and one without an answer."""
    grades = ["right" if place < right else "none" if place == 3 else "wrong" for place in range(4)]
    samples = [sample(place, grade, "w " * (2 + place), traced=traced) for place, grade in enumerate(grades)]
    vectors = np.array([[place, 0.1 * place**2, 1.0] for place in range(4)], dtype=np.float32)
    cost = dict(tokens=20.0, prompt_tokens=5.0, calls=4.0, seconds=1.0)
    return Record(item, tuple(samples), cost, {}, {}, GroupMeasurements(vectors=vectors if embedded else None))


def study(**changes: Any) -> Study:
    return config.parse(STUDY | changes)


def block(ids: Sequence[str] = IDS, **how: Any) -> Block:
    arms = {
        arm: {
            0: {item: group(item, right[place % 4], **how) for place, item in enumerate(ids)},
            1: {item: group(item, 0, **how) for item in ids},
        }
        for arm, right in RIGHT.items()
    }
    return Block("m", "countdown", 4, tuple(ids), 0, arms)


def problems(ids: Sequence[str] = IDS, task: Countdown | None = None) -> dict[str, TaskProblems]:
    items = [Item(item, f"Prompt of {item}", {"target": item}) for item in ids]
    return {"countdown": TaskProblems(task or Countdown(), items)}


class Private(Countdown):
    """A task whose authors ask that no item be published."""

    private = True


def chunk(block: Block, item: str, seed: int, *, private: bool = False) -> Any:
    text = packed(block, item, seed, list(traced(block, block.items)), private=private)
    return json.loads(zlib.decompress(base64.b64decode(text)))


def overviews(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page() -> str:
    return study_page(study(), [block()], problems())


@pytest.fixture
def show(open_page: Open, tmp_path: Path) -> Show:
    """Writes a page, opens it from disk, and waits until the samples of the first problem are there."""

    def write_and_open(text: str) -> "Tab":
        path = tmp_path / "index.html"
        path.write_text(text, encoding="utf-8")
        tab = open_page(path)
        tab.wait_for_selector(READY)
        return tab

    return write_and_open


# Without a browser


def test_a_plane_keeps_the_two_widest_directions() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(7, 3)))[0].T
    points = rng.normal(size=(40, 3)) * [5.0, 2.0, 0.1]
    points -= points.mean(axis=0)
    found = plane(points @ axes + 3)
    values, vectors = np.linalg.eigh(np.cov(points, rowvar=False))
    assert found.shares == pytest.approx(tuple(values[[2, 1]] / values.sum()))
    for place, column in enumerate((2, 1)):
        expected = points @ vectors[:, column]
        assert np.abs(found.points[:, place]) == pytest.approx(np.abs(expected))


def test_the_order_of_the_vectors_does_not_turn_a_plane() -> None:
    vectors = np.random.default_rng(1).normal(size=(9, 5))
    found, turned = plane(vectors), plane(vectors[::-1])
    assert turned.points == pytest.approx(found.points[::-1])
    assert plane(np.array([[0.0, 0.0], [-3.0, 0.1], [-6.0, 0.2]])).points[0, 0] > 0  # the larger component is positive


def test_equal_vectors_lie_on_one_point() -> None:
    for vectors in (np.ones((1, 4)), np.ones((5, 4)), np.zeros((2, 1))):
        found = plane(vectors)
        assert not found.points.any()
        assert found.shares == (0.0, 0.0)
    line = plane(np.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]]))
    assert line.shares == (pytest.approx(1.0), 0.0)
    assert not line.points[:, 1].any()


def test_short_numbers_have_four_digits_and_four_decimals_at_most() -> None:
    values = [None, float("nan"), float("inf"), 0.0, 1 / 3, -12.3456, 123456.7, 0.00004, 0.00123456]
    found = short(np.array(values, dtype=float))
    assert found == [None, None, None, 0.0, 0.3333, -12.35, 123457.0, 0.0, 0.0012]


def test_a_chunk_has_the_samples_of_all_arms() -> None:
    found = chunk(block(), "p1", 0)
    first, *_, last = found["arms"][0]
    assert first["grade"] == "right"
    assert [each["grade"] for each in found["arms"][2]] == ["right", "right", "right", "none"]
    assert (last["grade"], last["cut"], last["canonical"]) == ("none", True, "")
    assert first["pieces"] == ["s0", " w", " w"]
    assert first["traces"] == [[None, 1.0, 2.0], [None, 0.1, 0.2]]  # what was never measured is left out
    assert found["shares"] == [pytest.approx(1, abs=0.02), pytest.approx(0, abs=0.02)]
    assert [each["at"] for each in found["arms"][0]] == [each["at"] for each in found["arms"][1]]


def test_traces_of_the_wrong_length_or_name_are_left_out() -> None:
    base = sample(0, "right", "a b")
    traces = {"novelty": [1.0], "__proto__": [1.0] * 3, "tokens": [1.0] * 3, "a b": [1.0] * 3, "mine": [1.0, 3.0, 2.0]}
    record = replace(group("p1", 4), samples=(replace(base, trace=traces), replace(base, trace=traces, pieces=None)))
    one = Block("m", "countdown", 2, ("p1",), 0, {"vanilla": {0: {"p1": record}}})
    assert traced(one, ["p1"]) == {"mine": [0.0, pytest.approx(2.96)]}
    found = chunk(one, "p1", 0)["arms"][0]
    assert found[0]["traces"] == [[1.0, 3.0, 2.0]]
    assert found[1]["text"] == base.text
    assert "traces" not in found[1]


def test_counts_of_a_group() -> None:
    record = group("p", 2)
    assert counts(record, graded=True) == {"right": 2, "distinct": 2, "unreadable": 1, "tokens": 4.5, "cut": 1}
    assert set(counts(record, graded=False)) == {"tokens", "cut"}


def test_a_private_task_shows_grades_and_lengths_only() -> None:
    own = block(("SECRET-free id",))
    page = study_page(study(), [own], problems(("SECRET-free id",), Private()))
    assert chunk(own, "SECRET-free id", 0, private=True) == {
        "arms": [
            [
                {"index": each.index, "count": each.tokens, "cut": each.finish_reason == "length", "grade": grade}
                for each, grade in zip(seeds[0]["SECRET-free id"].samples, grades, strict=True)
            ]
            for seeds, grades in zip(
                own.arms.values(),
                (["right", "wrong", "wrong", "none"], ["wrong"] * 3 + ["none"], ["right"] * 3 + ["none"]),
                strict=True,
            )
        ],
        "shares": None,
    }
    for packed_text in re.findall(r'id="chunk-[\d-]+">([^<]*)<', page):
        assert b"it is" not in zlib.decompress(base64.b64decode(packed_text))
    (view,) = overviews(page)
    assert view["items"] == [["SECRET-free id", "", ""]]
    assert view["metrics"] == []
    assert "no question and no sample is on this page" in view["facts"]
    assert "Prompt of" not in page


def test_the_page_says_that_problems_are_left_out() -> None:
    page = study_page(study(), [replace(block(), missing=3)], problems(), problems_shown=1)
    (view,) = overviews(page)
    assert [item[0] for item in view["items"]] == ["p1"]
    assert re.findall(r'id="(chunk-[\d-]+)"', page) == ["chunk-0-0-0", "chunk-0-0-1"]
    assert view["facts"] == (
        "m, countdown, groups of 4: 3 methods, 4 problems, 2 seeds. 3 more problems are not finished by all methods "
        "and left out. The table counts all of them; the samples of the first 1 problems are here."
    )
    assert view["cells"][0][0][0] == pytest.approx(5 / 32, abs=1e-4)  # pass@1 of all four problems and both seeds
    with pytest.raises(InputError, match="expected at least 1"):
        study_page(study(), [block()], problems(), problems_shown=0)
    with pytest.raises(InputError, match="esamp study run"):
        study_page(study(), [], problems())


def test_the_verdict_lists_the_significant_differences() -> None:
    ids = tuple(f"p{place}" for place in range(12))
    own = block(ids)
    better = {seed: {item: group(item, 4) for item in ids} for seed in (0, 1)}
    page = study_page(study(), [replace(own, arms={**own.arms, "ours": better})], problems(ids))
    (view,) = overviews(page)
    assert view["verdict"].startswith("Different from vanilla beyond chance: ")
    assert "ours in pass@1 (+84 points, p = 0.00098)" in view["verdict"]
    columns = [measure[0] for measure in view["measures"]]
    assert [arm[columns.index("pass@1")][3] for arm in view["cells"]] == [False, True, True]
    assert view["beside"] == 2  # the first of another method than the baseline's


def test_missing_colours_and_maps_are_explained(page: str) -> None:
    (view,) = overviews(page)
    assert (view["untraced"], view["unmapped"]) == ("", "")
    bare = block(("p1",), traced=False, embedded=False)
    (view,) = overviews(study_page(study(traces=False, embedder="none"), [bare], problems(("p1",))))
    assert "traces = true" in view["untraced"]
    assert 'embedder = "none"' in view["unmapped"]
    (view,) = overviews(study_page(study(), [bare], problems(("p1",))))
    assert "engine hf" in view["untraced"]
    assert "esamp[metrics]" in view["unmapped"]


def test_the_page_has_no_address_and_a_strict_policy(page: str) -> None:
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|<link|<iframe|\ssrc=", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy[1]


@given(st.text(st.characters(codec=None, exclude_categories=[]), min_size=1))
def test_any_text_stays_inside_its_block(text: str) -> None:
    own = replace(sample(0, "right"), text=text, answer=text, canonical=text, reason=text, trace=None)
    record = replace(group("x", 4, embedded=False), samples=(own,))
    one = Block(text, "countdown", 1, (text,), 0, {text: {0: {text: record}}})
    page = study_page(
        replace(study(), baseline=text, name=text), [one], {"countdown": TaskProblems(Countdown(), [Item(text, text)])}
    )
    page.encode("utf-8")  # no lone surrogate is left
    assert page.count("<script") == page.count("</script>") == 3
    (view,) = overviews(page)
    assert len(view["items"][0][1]) == len(text)
    (told,) = chunk(one, text, 0)["arms"][0]
    assert len(told["text"]) == len(told["answer"]) == len(text)
    json.dumps(told, ensure_ascii=False).encode("utf-8")


# In a browser


@pytest.mark.browser
def test_opens_from_disk_and_sorts_the_methods(show: Show, page: str) -> None:
    tab = show(page)
    assert tab.title() == "by hand"
    assert texts(tab, "#facts") == ["m, countdown, groups of 4: 3 methods, 4 problems, 2 seeds."]
    assert texts(tab, "#verdict")[0].startswith("Nothing that was tested differs from vanilla")
    names = "#summary tbody th bdi"
    assert texts(tab, names) == ["vanilla", "warm", "ours"]
    assert texts(tab, "#summary tbody th .badge") == ["baseline"]
    assert tab.locator("#summary th[aria-sort]").count() == 0
    tab.get_by_role("button", name="pass@1 %").click()
    assert texts(tab, names) == ["ours", "vanilla", "warm"]
    assert tab.locator("#summary th[aria-sort=descending]").inner_text().startswith("pass@1")
    assert texts(tab, "#summary tbody tr:first-child .estimate")[0] == "25"
    tab.keyboard.press("Enter")  # the focus is still on the head
    assert texts(tab, names) == ["warm", "vanilla", "ours"]
    assert tab.locator("#summary th[aria-sort=ascending]").count() == 1
    tab.get_by_role("button", name="Method", exact=True).click()
    assert texts(tab, names) == ["ours", "vanilla", "warm"]
    columns = tab.locator("#summary thead th").count()
    tab.get_by_label("all measures").check()
    assert tab.locator("#summary thead th").count() > columns
    assert "self-BLEU" in " ".join(texts(tab, "#summary thead th"))
    assert "share of right samples" in texts(tab, "#columns dd")
    assert tab.locator("#block-field").is_hidden()


@pytest.mark.browser
def test_lists_sorts_and_filters_the_problems(show: Show, page: str) -> None:
    tab = show(page)

    def listed() -> list[list[str]]:
        rows: list[list[str]] = tab.locator("#problems tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return rows

    assert listed() == [
        ["p1", "1", "3", "+2"],
        ["p2", "2", "1", "\u22121"],
        ["p10", "0", "0", "0"],
        ["p20", "2", "4", "+2"],
    ]
    tab.get_by_role("button", name="right minus left").click()
    assert [row[0] for row in listed()] == ["p1", "p20", "p10", "p2"]
    assert tab.locator("#problems th[aria-sort=descending]").inner_text().startswith("\u00b1")
    tab.keyboard.press("j")
    tab.wait_for_selector(READY)
    assert texts(tab, "#problem-head") == ["p20"]
    tab.get_by_role("button", name="Problem", exact=True).click()
    assert [row[0] for row in listed()] == ["p1", "p2", "p10", "p20"]  # p2 before p10
    tab.fill("#filter", "OF P2")
    assert [row[0] for row in listed()] == ["p2", "p20"]
    assert texts(tab, "#listed") == ["2 of 4 problems"]
    tab.keyboard.press("Enter")
    tab.wait_for_selector(READY)
    assert texts(tab, "#problem-head") == ["p2"]
    assert texts(tab, "#prompt") == ["Prompt of p2"]
    assert texts(tab, "#known-data") == ['{"target": "p2"}']
    tab.get_by_role("button", name="Previous problem").click()  # around the end of what is listed
    tab.wait_for_selector(READY)
    assert texts(tab, ".current bdi") == ["p20"] == texts(tab, "[aria-current=true]")
    tab.fill("#filter", "none such")
    assert listed() == []
    tab.keyboard.press("Escape")
    tab.fill("#filter", "")
    tab.select_option("#score", label="different right answers")
    assert listed()[0] == ["p1", "1", "2", "+1"]
    tab.locator("#problems").get_by_role("button", name="p10").click()
    tab.wait_for_selector(READY)
    assert texts(tab, "#problem-head") == ["p10"]


@pytest.mark.browser
def test_chooses_methods_seeds_grades_and_order(show: Show, page: str) -> None:
    tab = show(page)

    def numbers(arm: int) -> list[str]:
        return texts(tab, f".arm:nth-child({arm}) .sample .number")

    assert texts(tab, ".arm h4 bdi") == ["vanilla", "ours"]
    assert texts(tab, ".tally") == [
        "1 of 4 right, 1 different right answer, 1 without an answer, 1 cut off.",
        "3 of 4 right, 2 different right answers, 1 without an answer, 1 cut off.",
    ]
    assert numbers(1) == numbers(2) == ["#1", "#2", "#3", "#4"]
    head = tab.locator(".arm:nth-child(1) .sample:nth-child(4) .head")
    for words in ("no answer", "cut off", "it is none", "6 tokens, mean novelty 3.00"):
        assert words in (head.text_content() or "")
    tab.select_option("#order", label="longest first")
    assert numbers(1) == ["#4", "#3", "#2", "#1"]
    tab.select_option("#order", label="wrong first")
    assert numbers(1) == ["#2", "#3", "#4", "#1"]
    tab.select_option("#order", label="highest mean colour")
    assert numbers(1) == ["#4", "#3", "#2", "#1"]
    tab.select_option("#order", label="as drawn")
    for grade, left, right in (
        ("right", ["#1"], ["#1", "#2", "#3"]),
        ("wrong", ["#2", "#3"], []),
        ("no answer", ["#4"], ["#4"]),
        ("cut off", ["#4"], ["#4"]),
    ):
        tab.locator("#grades").get_by_label(grade, exact=True).check()
        assert (numbers(1), numbers(2)) == (left, right)
        assert tab.locator(".point").count() == len(left + right)
    tab.locator("#grades").get_by_label("wrong", exact=True).check()
    assert texts(tab, ".arm:nth-child(2) .empty") == ["None of these samples: wrong."]
    tab.click("#swap")
    assert texts(tab, ".arm h4 bdi") == ["ours", "vanilla"]
    assert texts(tab, "#problems tbody tr:first-child td") == ["3", "1", "\u22122"]
    tab.select_option("#left", label="warm")
    assert numbers(1) == ["#1", "#2", "#3"]
    tab.select_option("#seed", label="1")
    tab.wait_for_selector(READY)
    assert texts(tab, ".tally")[1].startswith("0 of 4 right")
    assert texts(tab, "#problems tbody tr:first-child td") == ["0", "0", "0"]
    assert "#block=m%2C+countdown%2C+groups+of+4&problem=p1&seed=1&left=warm&right=vanilla" in tab.url
    tab.reload()
    tab.wait_for_selector(READY)
    assert texts(tab, ".arm h4 bdi") == ["warm", "vanilla"]
    assert tab.locator("#seed").input_value() == "1"


@pytest.mark.browser
def test_tokens_are_coloured_by_the_chosen_metric(show: Show, page: str) -> None:
    tab = show(page)
    last = tab.locator(".arm:nth-child(2) .sample:nth-child(4) .token")

    def steps() -> list[str]:
        found: list[str] = last.evaluate_all("all => all.map(one => one.className)")
        return found

    assert steps() == [
        "token",
        "token colour-1",
        "token colour-2",
        "token colour-4",
        "token colour-5",
        "token colour-6",
    ]
    assert texts(tab, "#scale span") == ["0", "0.71", "1.4", "2.1", "2.9", "3.6", "4.3 +"]
    assert texts(tab, "#metrics label") == ["Novelty \u2016e\u2016", "KL", "Nothing"]
    tab.get_by_label("KL").check()
    assert texts(tab, "#scale-name") == ["KL, nats"]
    assert "mean kl 0.30" in texts(tab, ".arm:nth-child(2) .sample:nth-child(4) .count")[0]
    last.nth(2).hover()
    assert texts(tab, "#tip p, #tip dd") == ["\u2423w", "3 of 6", "2.000", "0.2000 nats"]
    last.nth(0).focus()
    assert texts(tab, "#tip dd") == ["1 of 6", "not measured", "not measured"]
    assert last.nth(0).get_attribute("aria-describedby") == "tip"
    tab.keyboard.press("ArrowRight")
    assert texts(tab, "#tip dd")[0] == "2 of 6"
    tab.get_by_label("Nothing").check()
    assert set(steps()) == {"token"}
    assert tab.locator("#legend").is_hidden()


@pytest.mark.browser
def test_the_map_shows_the_samples(show: Show, page: str) -> None:
    tab = show(page)
    assert tab.locator(".point.one circle.filled").count() == 1
    assert tab.locator(".point.one circle.hollow").count() == 3
    assert tab.locator(".point.two path.filled").count() == 3
    assert texts(tab, "#signs bdi") == ["vanilla", "ours"]
    assert "% of the variance across and" in texts(tab, "#map-axes")[0]
    assert "lose" in texts(tab, "#map-axes")[0]
    assert tab.locator(".other").count() == 0
    tab.get_by_label("the other methods too").check()
    assert tab.locator(".other").count() == 4
    assert tab.locator('.point[tabindex="0"]').count() == 1
    point = tab.get_by_role("button", name="ours, sample 3, \u2713 right, 0+right")
    point.focus()
    assert "ours #3" in texts(tab, "#point")[0]
    assert "s2 w w w w" in texts(tab, "#point")[0]
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.closest('.arm').querySelector('bdi').textContent") == "ours"
    assert tab.evaluate("document.activeElement.querySelector('.number').textContent") == "#3"
    assert tab.locator(".point.lit").get_attribute("aria-label") == "ours, sample 3, \u2713 right, 0+right"
    tab.locator(".point.two").last.click()
    assert tab.evaluate("document.activeElement.querySelector('.number').textContent") in ("#1", "#4")
    tab.keyboard.press("m")
    seen = []
    for _ in range(8):
        seen.append(tab.evaluate("document.activeElement.getAttribute('aria-label')"))
        tab.keyboard.press("ArrowRight")
    assert len(set(seen)) == 8
    tab.keyboard.press("ArrowRight")  # nothing is beyond the last
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == seen[-1]
    places = tab.locator(".point .target").evaluate_all(
        "all => all.map(one => [one.cx, one.cy].map(e => e.baseVal.value))"
    )
    assert all(0 < x < 520 and 0 < y < 340 for x, y in places)


@pytest.mark.browser
def test_works_by_keyboard_alone(show: Show, page: str) -> None:
    tab = show(page)

    def focused() -> str:
        element: str = tab.evaluate(
            "(e => e.id || e.name || e.className.baseVal || e.className)(document.activeElement)"
        )
        return element

    tab.keyboard.press("Tab")
    assert focused() == "skip"
    tab.keyboard.press("Enter")
    order = []
    for _ in range(20):
        tab.keyboard.press("Tab")
        order.append(focused())
    assert order == [
        *("filter", "score", "sort", "sort", "sort", "sort", "pick", "left", "swap", "right", "seed"),
        *("previous", "next", "prompt", "", "point one lit", "others", "grade", "order", "metric"),
    ]
    tab.locator('.pick[tabindex="0"]').focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "End"):
        tab.keyboard.press(key)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(READY)
    assert texts(tab, "#problem-head") == ["p20"]
    assert focused() == "pick"
    for key, head in (("j", "p1"), ("k", "p20"), ("k", "p10")):
        tab.keyboard.press(key)
        tab.wait_for_selector(READY)
        assert texts(tab, "#problem-head") == [head]
    assert texts(tab, "#status")[0].startswith("p10. vanilla: 0 of 4 right")
    tab.keyboard.press("f")
    assert tab.locator("#grades input:checked").input_value() == "right"
    tab.keyboard.press("c")
    assert tab.locator("#metrics input:checked").input_value() == "kl"
    tab.keyboard.press("s")
    assert texts(tab, ".arm h4 bdi") == ["ours", "vanilla"]
    tab.keyboard.press("o")
    assert tab.locator("#whole").is_checked()
    tab.keyboard.press("/")
    assert focused() == "filter"
    tab.keyboard.type("j1s")  # letters are letters here
    assert tab.locator("#filter").input_value() == "j1s"
    assert texts(tab, "#problem-head") == ["p10"]
    tab.get_by_label("keys that are letters work").uncheck()
    tab.keyboard.press("s")
    assert texts(tab, ".arm h4 bdi") == ["ours", "vanilla"]


@pytest.mark.browser
def test_redrawing_keeps_the_focus(show: Show, page: str) -> None:
    tab = show(page)
    tab.locator(".arm:nth-child(2) .token").nth(4).focus()
    text = "[document.activeElement.className, document.activeElement.closest('.sample').textContent]"
    before = tab.evaluate(text)
    tab.keyboard.press("c")
    after = tab.evaluate(text)
    assert after[0].startswith("token colour-")
    assert after[1].replace("kl 0.", "novelty ")[:20] == before[1][:20]
    assert texts(tab, "#tip dd")[0] == "2 of 4"
    tab.keyboard.press("s")
    assert tab.evaluate("document.activeElement.closest('.arm').querySelector('bdi').textContent") == "ours"
    tab.locator(".point.one").nth(2).focus()
    label = tab.evaluate("document.activeElement.getAttribute('aria-label')")
    tab.keyboard.press("o")
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == label
    tab.locator('.pick[tabindex="0"]').focus()
    tab.keyboard.press("s")
    assert tab.evaluate("document.activeElement.className") == "pick"


@pytest.mark.browser
def test_every_control_has_a_name_and_every_id_is_unique(show: Show, page: str) -> None:
    tab = show(page)
    nameless = tab.evaluate(
        "[...document.querySelectorAll('button, select, input')].filter(e => !(e.getAttribute('aria-label') ||"
        " e.textContent.trim() || (e.labels && e.labels[0] && e.labels[0].textContent.trim()))).length"
    )
    assert nameless == 0
    ids: list[str] = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert tab.locator("h1").count() == 1
    assert tab.evaluate("document.documentElement.lang") == "en"


@pytest.mark.browser
def test_hostile_text_is_inert_everywhere(show: Show) -> None:
    text, cleaned = " ".join(HOSTILE), " ".join(CLEANED)
    traced_sample = replace(
        sample(0, "right"),
        text=text,
        pieces=HOSTILE,
        trace={"novelty": [1.0] * len(HOSTILE), "constructor": [2.0] * len(HOSTILE), "__proto__": [1.0] * len(HOSTILE)},
        **dict.fromkeys(("answer", "canonical", "reason"), text),
    )
    plain = replace(traced_sample, trace=None, pieces=None, finish_reason=text)
    four = [replace(each, index=place) for place, each in enumerate((traced_sample, plain, traced_sample, plain))]
    record = replace(group(text, 2), samples=tuple(four))
    arms = {name: {0: {text: record, "__proto__": record}} for name in (text, "__proto__")}
    one = Block(text, "countdown", 4, (text, "__proto__"), 0, arms)
    items = [Item(text, text, {text: text}), Item("__proto__", text)]
    page = study_page(
        replace(study(), baseline=text, name=text), [one], {"countdown": TaskProblems(Countdown(), items)}
    )
    tab = show(page)
    dialogs: list[str] = []
    tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))  # type: ignore[func-returns-value]
    tab.reload()
    tab.wait_for_selector(READY)
    tab.locator(".token").nth(1).hover()
    tab.locator(".point").first.focus()
    for place in (
        *("h1", "#problem-head", "#prompt", ".sample .answer", ".sample .reason", ".arm h4 bdi", "#signs bdi"),
        *("#summary tbody th bdi", ".pick bdi", "#left option"),
    ):
        assert texts(tab, place)[0] == cleaned, place
    assert texts(tab, ".arm:nth-child(1) .sample:first-child .token") == list(CLEANED)
    assert cleaned in texts(tab, ".arm:nth-child(1) .sample:nth-child(2) .tokens")[0]
    assert cleaned in texts(tab, "#facts")[0]
    assert texts(tab, "#metrics label") == ["Novelty \u2016e\u2016", "constructor", "Nothing"]
    assert CLEANED[0] in texts(tab, "#known-data")[0]
    tab.keyboard.press("j")
    tab.wait_for_selector(READY)
    assert texts(tab, "#problem-head") == ["__proto__"]
    tab.select_option("#left", label="__proto__")
    assert tab.locator("img, iframe, object, embed, link, b, [onload], [onerror], [onclick]").count() == 0
    assert tab.locator("script").count() == 4
    assert tab.locator("style").count() == 1
    assert tab.evaluate("[window.hit, ({}).hit, ({}).name]") == [None, None, None]
    assert dialogs == []


@pytest.mark.browser
def test_no_text_of_a_private_task_is_shown(show: Show) -> None:
    tab = show(study_page(study(), [block(("p1", "p2"))], problems(("p1", "p2"), Private())))
    assert "no question and no sample is on this page" in texts(tab, "#facts")[0]
    for hidden in ("#prompt", "#known", ".map", "#legend", "#whole-field"):
        assert tab.locator(hidden).is_hidden(), hidden
    assert tab.locator(".tokens, .answer, .reason").count() == 0
    assert tab.locator(".sample").count() == 8
    assert texts(tab, ".arm:nth-child(1) .sample:first-child .head span") == ["#1", "\u2713 right", "3 tokens"]
    assert "Prompt of" not in tab.content()


@pytest.mark.browser
def test_long_plain_ungraded_and_several_blocks(show: Show) -> None:
    ids = ("p1", "p2")
    plain = block(ids, traced=False, embedded=False)
    long = " ".join(f"word{number}" for number in range(400))
    first = plain.arms["ours"][0]["p1"]
    many = tuple(replace(first.samples[0], index=place, text=long) for place in range(45))
    changed = {**plain.arms["ours"][0], "p1": replace(first, samples=many)}
    plain = replace(plain, arms={**plain.arms, "ours": {**plain.arms["ours"], 0: changed}}, graded=False, n=45)
    wordy = sample(0, "right", long)
    rich = block(ids)
    rich = replace(rich, arms={arm: {0: {i: replace(group(i, 4), samples=(wordy,)) for i in ids}} for arm in rich.arms})
    tab = show(study_page(replace(study(), traces=False), [plain, rich], problems(ids)))
    assert "traces = true" in texts(tab, "#meaning")[0]
    assert "esamp[metrics]" in texts(tab, "#map-missing")[0]
    assert tab.locator("#mapped").is_hidden()
    assert tab.locator("#metric-field").is_hidden()
    assert texts(tab, "#grades label") == ["all", "cut off"]
    assert texts(tab, "#order option") == ["as drawn", "longest first", "shortest first"]
    assert texts(tab, "#score option") == ["tokens of a sample", "samples cut off"]
    right = tab.locator(".arm:nth-child(2) .sample")
    assert right.count() == 40
    assert len(right.first.locator(".tokens").text_content() or "") < 800
    right.first.get_by_role("button", name="Show all of it").click()
    assert (right.first.locator(".tokens").text_content() or "") == long
    right.first.get_by_role("button", name="Show less").click()
    assert len(right.first.locator(".tokens").text_content() or "") < 800
    tab.get_by_role("button", name="Show 5 more of 5 samples").click()
    assert right.count() == 45
    tab.get_by_label("long samples in full").check()
    assert (right.first.locator(".tokens").text_content() or "") == long
    tab.get_by_label("long samples in full").uncheck()
    tab.select_option("#block", label=rich.title)
    tab.wait_for_selector(READY)
    assert texts(tab, "#facts")[0].startswith("m, countdown, groups of 4: 3 methods")
    assert tab.locator("#seed-field").is_hidden()
    assert tab.locator(".arm:nth-child(2) .token").count() == 160
    tab.get_by_role("button", name="Show 241 more tokens").first.click()
    assert tab.locator(".arm:nth-child(1) .token").count() == 401


@pytest.mark.browser
def test_is_readable_in_either_scheme_and_fits_a_narrow_screen(show: Show, page: str) -> None:
    wide = page.replace("Prompt of p1", "w" * 400)
    tab = show(wide)
    tab.locator(".point").first.focus()
    tab.locator(".arm:nth-child(2) .token").nth(2).focus()
    checks = (
        "h1, .lead, .intro, .note, .interval, .badge, th, td, label, legend, .tally, .number, .grade, .cut, .count,"
        " .answer, .reason, .token, #scale span, .meaning, .keys, .pick, h4, .sign, .hint, #tip, summary, .sort"
    )
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        pairs: list[tuple[str, str, str]] = tab.evaluate(
            """selector => [...document.querySelectorAll(selector)].map(element => {
                let ground = element;
                while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
                return [element.className || element.tagName, getComputedStyle(element).color,
                        getComputedStyle(ground).backgroundColor];
            })""",
            checks,
        )
        assert len(pairs) > 100
        for name, ink, ground in pairs:
            assert contrast(ink, ground) >= 4.5, (scheme, name, ink, ground)
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    boxes = [tab.locator(f"#arm-{side}").bounding_box() for side in (0, 1)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[1]["y"] > boxes[0]["y"]
    tab.locator("#problems").get_by_role("button", name="p2", exact=True).click()
    tab.wait_for_selector(READY)
    assert texts(tab, "#problem-head") == ["p2"]
