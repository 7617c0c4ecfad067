"""The drawn tree: what it says of a search, that texts of a model stay texts, and how it looks in a browser."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import InputError
from esamp.report.pages.tree_page import render_tree, tree_section, tree_style
from support.page_checks import CLEANED, HOSTILE, contrast

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

Open: TypeAlias = Callable[[Path], "Tab"]


def node(number: int, parent: int | None, depth: int, thought: str, **changes: Any) -> dict[str, Any]:
    place = dict(id=number, parent=parent, depth=depth, thought=thought, state=f"left {number}")
    worth = dict(value=3.0, judgements={"likely": 3}, cached=False, duplicate_of=None, finished=False, solved=None)
    fate = dict(selected=False, pruned=True, backtracked=False, order=None)
    return {**place, **worth, **fate, **changes}


KEPT: dict[str, Any] = dict(selected=True, pruned=False)


def details(thought: str = "8 - 3 = 5", extra: int = 5) -> dict[str, Any]:
    """Two levels: a way to the answer, one left again, one kept, and `extra` that were not followed."""
    nodes = [
        node(0, None, 0, "", value=None, judgements={}, order=0, **KEPT),
        node(1, 0, 1, "9 + 5 = 14", backtracked=True, order=1, **KEPT),
        node(2, 0, 1, thought, value=41.0, judgements={"sure": 2, "likely": 1}, order=2, **KEPT),
        node(3, 0, 1, "kept one", **KEPT),
        *(node(4 + place, 0, 1, f"dropped {place}", cached=True, duplicate_of=1) for place in range(extra)),
        node(4 + extra, 2, 2, "Answer: 24", value=60.0, judgements={"certainly sure": 1}, **KEPT),
    ]
    nodes[-1] |= dict(finished=True, solved=True)
    return {
        "nodes": nodes,
        "answers": [4 + extra],
        "paths": [[0, 2, 4 + extra]],
        "options": dict(algorithm="dfs", generate="sample", evaluate="value", select="greedy"),
        "budget": dict(calls=1234, call_budget=2000, tokens=50, token_budget=None, note="No call was left out."),
        "cache": dict(hits=5, states=4),
        "rejected": dict(count=2, examples=[]),
    }


@pytest.fixture
def show(open_page: Open, tmp_path: Path) -> Callable[[dict[str, Any]], "Tab"]:
    def write_and_open(content: dict[str, Any]) -> "Tab":
        path = tmp_path / "tree.html"
        path.write_text(render_tree(content, "A tree"), encoding="utf-8")
        return open_page(path)

    return write_and_open


def texts(tab: "Tab", selector: str) -> list[str]:
    return tab.locator(selector).all_text_contents()


# Without a browser


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_any_thought_stays_text(thought: str) -> None:
    document, plain = render_tree(details(thought), thought), render_tree(details("x"), "x")
    document.encode("utf-8")
    assert re.findall(r"<[^>]*", re.sub(r"\s+", " ", document)) == re.findall(r"<[^>]*", re.sub(r"\s+", " ", plain))


def test_the_page_has_no_script_and_makes_no_request() -> None:
    document = render_tree(details())
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|<script|\ssrc=|\sstyle=|\son\w+=", document)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', document)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]


def test_two_sections_on_a_page_share_no_id() -> None:
    ids = re.findall(r'id="([^"]+)"', tree_section(details(), "left") + tree_section(details(), "right"))
    assert len(ids) == len(set(ids)) == 2 * 10
    assert ".tree" in tree_style()
    with pytest.raises(ValueError, match="letters"):
        tree_section(details(), 'x" onload="')


def broken(**changes: Any) -> dict[str, Any]:
    content = copy.deepcopy(details())
    content["nodes"][1] |= changes
    return content


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"nodes": []},
        details() | {"nodes": []},
        details() | {"answers": [99]},
        details() | {"answers": ["x"]},
        broken(parent=7),
        broken(parent=None),
        broken(id=5),
        broken(depth=3),
        broken(judgements=None),
        broken(value="high"),
    ],
    ids=[f"content-{number}" for number in range(11)],
)
def test_details_without_a_tree_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="tree"):
        render_tree(content)


def test_the_first_sentence_states_the_result() -> None:
    def lead(content: dict[str, Any]) -> str:
        found = re.search(r'<p class="lead">([^<]*)', render_tree(content))
        assert found is not None
        return found[1]

    assert lead(details()) == "Solved: 1 answer found to be right."
    wrong, unknown, nothing = copy.deepcopy(details()), copy.deepcopy(details()), copy.deepcopy(details())
    wrong["nodes"][-1]["solved"] = False
    assert lead(wrong) == "1 answer, none of them right."
    unknown["nodes"][-1]["solved"] = None
    assert lead(unknown) == "1 answer, which nothing could check."
    nothing["nodes"][-1]["finished"] = False
    assert lead(nothing).startswith("No answer was reached")


# In a browser


@pytest.mark.browser
def test_every_node_is_shown_with_its_kind(show: Callable[[dict[str, Any]], "Tab"]) -> None:
    tab = show(details())
    assert tab.locator("circle").count() == tab.locator("[id^=node-]").count() == 10
    assert tab.locator("line").count() == 9
    assert tab.locator("circle.way").count() == 3
    assert tab.locator("line.way").count() == 2
    assert tab.locator("circle.back").count() == tab.locator("circle.kept").count() == 1
    facts = texts(tab, "#node-2 > details > summary .facts")
    assert facts == [
        "on the way to the best answer · value 41 (2 sure, 1 likely) · #2 · expanded as number 3 · state: left 2"
    ]
    assert texts(tab, "#node-1 .facts")[0].startswith("searched and left again · value 3 (3 likely)")
    assert "same state as #1 · value 3 (3 likely) · value from the cache" in texts(tab, "#node-4 .facts")[0]
    assert "answer 1 · right · value 60 (certainly sure)" in texts(tab, "#node-9 .facts")[0]
    assert "1,234 of 2,000 calls and 50 generated tokens; 5 values came from the cache." in texts(tab, ".note")
    assert texts(tab, ".answers .thought") == ["8 - 3 = 5\nAnswer: 24"]
    assert not tab.locator("#node-4").is_visible()
    tab.get_by_text("5 more thoughts, not followed").click()
    assert tab.locator("#node-4").is_visible()


@pytest.mark.browser
def test_works_by_keyboard_and_the_map_links_to_the_list(show: Callable[[dict[str, Any]], "Tab"]) -> None:
    tab = show(details())
    stops = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate("document.activeElement.className || document.activeElement.textContent"))
    assert stops[:3] == ["skip", "show in the tree", "map"]
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    tab.locator("#node-0 > details > summary").focus()
    tab.keyboard.press("Enter")
    assert not tab.locator("#node-2").is_visible()
    tab.locator('a[href="#node-4"] circle').click()
    tab.wait_for_function("location.hash === '#node-4'")
    assert tab.locator("#node-2").is_visible()  # what was folded away opens for a link into it
    assert tab.locator("#node-4").is_visible()


@pytest.mark.browser
def test_hostile_thoughts_are_inert(show: Callable[[dict[str, Any]], "Tab"]) -> None:
    content = details(extra=len(HOSTILE))
    for place, text in enumerate(HOSTILE):
        content["nodes"][4 + place] |= dict(thought=text, state=text, judgements={text: 3})
    content["budget"]["note"] = " ".join(HOSTILE)
    tab = show(content)
    for place, text in enumerate(CLEANED):
        assert texts(tab, f"#node-{4 + place} .thought") == [text]
    assert tab.evaluate("window.hit") is None
    assert tab.locator("script, img, iframe, object, embed, [onload], [onerror]").count() == 0
    assert tab.locator("svg").count() == tab.locator("style").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_readable_in_either_scheme(show: Callable[[dict[str, Any]], "Tab"], scheme: Any) -> None:
    tab = show(details())
    tab.emulate_media(color_scheme=scheme)
    pairs: list[tuple[str, str, str]] = tab.evaluate(
        """[...document.querySelectorAll('.tree h3, .thought, .facts, .facts span, .tree a[href], .note, summary')]
            .filter(element => !element.closest('svg')).map(element => {
            let ground = element;
            while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            return [element.className || element.tagName, getComputedStyle(element).color,
                    getComputedStyle(ground).backgroundColor];
        })"""
    )
    assert {"way", "kept", "back", "cut"} <= {name for name, _, _ in pairs}
    for name, ink, ground in pairs:
        assert contrast(ink, ground) >= 4.5, (name, ink, ground)
    marks: list[tuple[str, str]] = tab.evaluate(
        """[...document.querySelectorAll('circle')]
            .map(dot => [dot.getAttribute('class'), getComputedStyle(dot).stroke])"""
    )
    ground = tab.evaluate("getComputedStyle(document.querySelector('.map')).backgroundColor")
    for name, stroke in marks:
        assert contrast(stroke, ground) >= 3, name


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_fits_the_screen(show: Callable[[dict[str, Any]], "Tab"], width: int) -> None:
    content = details("w" * 300, extra=200)
    tab = show(content)
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelector('.map').scrollWidth") > width
