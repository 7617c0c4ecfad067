import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.errors import InputError
from esamp.report.pages import ComparisonTable, ProblemView, SamplesPage, SampleView, render
from support.page_checks import CLEANED, HOSTILE, contrast, luminance, texts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog
    from playwright.sync_api import Page as Tab

NAN = float("nan")
Open: TypeAlias = Callable[[Path], "Tab"]


def sample(text: str, correct: bool | None = None, answer: str = "", traced: bool = True) -> SampleView:
    """One token a word; the first is not measured, the others rise from 1."""
    tokens = re.findall(r"\s?\S+", text)
    rising = [NAN, *(float(step) for step in range(1, len(tokens)))]
    if not traced:
        return SampleView(tokens, surprisal=rising, correct=correct, answer=answer)
    tenth = [value / 10 for value in rising]
    return SampleView(tokens, rising, tenth, rising, correct, answer, "" if correct else "no")


def page(problems: Sequence[ProblemView] | None = None, title: str = "A comparison") -> SamplesPage:
    if problems is None:
        problems = [
            ProblemView(
                f"p{number}",
                f"Make {number}",
                f"{number} + 0",
                {
                    "plain": [sample(f"{number} is wrong", False, "x"), sample("a b", True, "y", traced=False)],
                    "esamp": [sample("one two three four five six seven eight", True, a) for a in ("y", "y", "z")],
                    "third": [],
                },
            )
            for number in range(3)
        ]
    summary = ComparisonTable(["Arm", "pass@2"], [["plain", "50.0 %"], ["esamp", "60.0 % [55, 65]"]], "Two arms.")
    return SamplesPage(title, ["It is better.", "A little."], summary, problems, "made by a test")


@pytest.fixture
def show(open_page: Open, tmp_path: Path) -> Callable[[SamplesPage], "Tab"]:
    """Renders a page, writes it, opens it from disk."""

    def write_and_open(content: SamplesPage) -> "Tab":
        path = tmp_path / "page.html"
        path.write_text(render(content), encoding="utf-8")
        return open_page(path)

    return write_and_open


def block(document: str) -> str:
    """The JSON of the page: all up to the last script, whatever stands in it."""
    found = re.search(r'<script type="application/json" id="data">(.*)</script>\n<script>', document, re.DOTALL)
    assert found is not None
    return found[1]


def embedded(document: str) -> Any:
    return json.loads(block(document))


# Without a browser


def test_inconsistent_views_are_refused() -> None:
    with pytest.raises(InputError, match="kl has 1 values for 2 tokens"):
        SampleView(["a", "b"], kl=[1.0])
    with pytest.raises(InputError, match="1 cells for 2 columns"):
        ComparisonTable(["Arm", "n"], [["plain"]])
    problem = ProblemView("p", "", "", {"plain": []})
    with pytest.raises(InputError, match="two problems have the id 'p'"):
        page([problem, problem])
    with pytest.raises(InputError, match="problem 'q' has the arms"):
        page([problem, ProblemView("q", "", "", {"other": []})])


def test_numbers_have_four_digits_and_unmeasured_ones_are_null() -> None:
    view = SampleView(["a", "b", "c", "d"], [NAN, None, math.inf, 1 / 3])
    data = embedded(render(page([ProblemView("p", "", "", {"plain": [view]})])))
    assert data["problems"][0]["arms"][0][0]["novelty"] == [None, None, None, 0.3333]


@given(st.lists(st.text(st.characters(codec=None, exclude_categories=[])), max_size=4))
def test_any_text_stays_inside_its_block(tokens: list[str]) -> None:
    view = ProblemView("p", "".join(tokens), "", {"plain": [SampleView(tokens)]})
    document = render(page([view], title="".join(tokens)))
    document.encode("utf-8")  # no lone surrogate is left
    assert document.count("<script") == document.count("</script>") == 2
    assert not set("<>&\u2028\u2029") & set(block(document))
    shown = embedded(document)["problems"][0]["arms"][0][0]["tokens"]
    assert [len(token) for token in shown] == [len(token) for token in tokens]


def test_the_page_has_no_address_and_a_strict_policy() -> None:
    document = render(page())
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|\ssrc=", document)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', document)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]


# In a browser


@pytest.mark.browser
def test_opens_from_disk_with_its_first_sentence_and_the_table(show: Callable[[SamplesPage], "Tab"]) -> None:
    tab = show(page())
    assert tab.title() == "A comparison"
    assert texts(tab, ".lead") == ["It is better."]
    assert texts(tab, "tbody tr:nth-child(2) > *") == ["esamp", "60.0 % [55, 65]"]
    assert texts(tab, "#problem-head") == ["Problem 1 of 3 (p0)"]
    assert texts(tab, "#reference") == ["0 + 0"]
    assert texts(tab, ".tally") == [
        "1 of 2 correct, 1 distinct correct answer.",
        "3 of 3 correct, 2 distinct correct answers.",
    ]
    assert texts(tab, "footer") == ["made by a test"]


@pytest.mark.browser
def test_problem_arms_and_grades_can_be_chosen(show: Callable[[SamplesPage], "Tab"]) -> None:
    tab = show(page())
    tab.select_option("#problem", "2")
    assert texts(tab, "#prompt") == ["Make 2"]
    assert texts(tab, ".arm:nth-child(1) .tokens") == ["2 is wrong", "a b"]
    tab.click("#next")
    assert texts(tab, "#prompt") == ["Make 0"]
    tab.select_option("#arm-0", "1")
    tab.select_option("#arm-1", "2")
    assert tab.locator(".arm:nth-child(1) .sample").count() == 3
    assert texts(tab, ".arm:nth-child(2) .empty") == ["No samples in this arm."]
    tab.select_option("#arm-0", "0")
    tab.get_by_label("Wrong", exact=True).check()
    assert texts(tab, ".arm:nth-child(1) .tokens") == ["0 is wrong"]
    tab.get_by_label("Correct", exact=True).check()
    assert texts(tab, ".arm:nth-child(1) .number") == ["#2"]
    assert "1 of 2 correct" in texts(tab, ".arm:nth-child(1) .tally")[0]


@pytest.mark.browser
def test_colours_follow_the_chosen_metric_and_unmeasured_tokens_have_none(show: Callable[[SamplesPage], "Tab"]) -> None:
    tab = show(page())

    def steps(arm: int, row: int) -> list[str]:
        spans = tab.locator(f".arm:nth-child({arm}) .sample:nth-child({row}) .token")
        names: list[str] = spans.evaluate_all("all => all.map(one => one.className)")
        return names

    assert tab.get_by_role("radio", name="KL").is_checked()  # what exploring changed comes first
    tab.get_by_role("radio", name="Novelty").check()
    assert steps(2, 1) == ["token", *(f"token colour-{step}" for step in range(1, 7)), "token colour-6"]
    assert steps(1, 2) == ["token", "token"]
    assert texts(tab, "#scale span") == ["0", "1", "2", "3", "4", "5", "6 +"]
    tab.get_by_role("radio", name="KL").check()
    assert steps(2, 1)[3] == "token colour-3"
    assert texts(tab, "#scale-name") == ["Change (KL), nats"]
    tab.get_by_label("Surprisal").check()
    assert steps(1, 2) == ["token", "token colour-1"]
    tab.locator(".arm:nth-child(2) .token").nth(2).hover()
    assert texts(tab, "#tip p, #tip dd") == ["\u2423three", "3 of 8", "2.000", "0.2000 nats", "2.000 nats"]
    tab.locator(".arm:nth-child(2) .token").nth(0).hover()
    assert texts(tab, "#tip dd")[1:] == ["not measured"] * 3
    tab.mouse.move(0, 0)
    assert not tab.locator("#tip").is_visible()


@pytest.mark.browser
def test_works_by_keyboard_alone(show: Callable[[SamplesPage], "Tab"]) -> None:
    tab = show(page())

    def focused() -> str:
        element: str = tab.evaluate("(e => e.id || e.value || e.className)(document.activeElement)")
        return element

    tab.keyboard.press("Tab")
    assert focused() == "skip"
    box = tab.locator(".skip").bounding_box()
    assert box is not None
    assert box["y"] >= 0
    tab.keyboard.press("Enter")
    order = []
    for _ in range(8):
        tab.keyboard.press("Tab")
        order.append(focused())
    # Each sample is one stop, however many tokens it has.
    assert tab.locator('.token[tabindex="0"]').count() == tab.locator(".sample").count() == 5
    assert order == ["previous", "problem", "next", "kl", "all", "arm-0", "token", "token"]
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("End")
    assert tab.evaluate("document.activeElement.textContent") == " wrong"
    tip = tab.locator("#tip")
    assert tip.is_visible()
    assert tab.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert texts(tab, "#problem-head") == ["Problem 1 of 3 (p0)"]
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    tab.locator("#previous").focus()
    for key, head in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 1), ("ArrowLeft", 3)):
        tab.keyboard.press(key)
        assert texts(tab, "#problem-head")[0].startswith(f"Problem {head} of 3")
    assert "Problem 3 of 3 (p2). plain: 1 of 2 correct" in texts(tab, "#status")[0]


@pytest.mark.browser
def test_every_control_has_a_name_and_every_id_is_unique(show: Callable[[SamplesPage], "Tab"]) -> None:
    tab = show(page())
    assert (
        tab.evaluate(
            "[...document.querySelectorAll('button, select, input')]"
            ".filter(e => !(e.getAttribute('aria-label') || (e.labels[0] && e.labels[0].textContent.trim()))).length"
        )
        == 0
    )
    ids: list[str] = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert tab.locator("h1").count() == 1
    assert tab.evaluate("document.documentElement.lang") == "en"


@pytest.mark.browser
def test_hostile_text_is_inert_everywhere(show: Callable[[SamplesPage], "Tab"]) -> None:
    text = " ".join(HOSTILE)
    view = SampleView(HOSTILE, [NAN, *range(1, len(HOSTILE))], correct=True, answer=text, reason=text)
    problem = ProblemView(text, text, text, {text: [view], "plain": [sample("a b")]})
    summary = ComparisonTable([text, text], [[text, text]], text)
    tab = show(SamplesPage(text, [text, text], summary, [problem], text))
    dialogs: list[str] = []

    def dismiss(dialog: "Dialog") -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    tab.on("dialog", dismiss)
    tab.locator(".token").nth(1).hover()
    tab.reload()
    tab.locator(".token").nth(1).focus()
    assert texts(tab, ".arm:nth-child(1) .token") == list(CLEANED)
    cleaned = " ".join(CLEANED)
    for place in (
        "#prompt",
        "#reference",
        ".answer",
        ".reason",
        ".lead",
        ".intro",
        ".note",
        "h1",
        "footer",
        "tbody td",
    ):
        assert texts(tab, place)[0] == cleaned, place
    assert texts(tab, "#tip p")[0] == CLEANED[1].replace(" ", "\u2423")
    assert tab.locator("img, svg, iframe, object, embed, link, b, [onload], [onerror]").count() == 0
    assert tab.locator("script").count() == 2
    assert tab.locator("style").count() == 1
    assert tab.evaluate("window.hit") is None
    assert dialogs == []


@pytest.mark.browser
def test_the_policy_blocks_injected_scripts_and_requests(browser: "Browser", tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render(page()), encoding="utf-8")
    context = browser.new_context(offline=True)
    tab = context.new_page()
    blocked: list[str] = []
    tab.on("console", lambda message: blocked.append(message.text) if message.type == "error" else None)
    tab.goto(path.as_uri())
    for attack in (
        "document.body.innerHTML = '<b>hit</b>'",
        "document.body.setAttribute('onclick', 'window.hit = 1')",
    ):
        tab.evaluate(f"try {{ {attack} }} catch (error) {{ console.error(String(error)) }}")
    tab.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://localhost:9/x.png'}))")
    tab.evaluate("fetch('http://localhost:9/x').catch(error => console.error('fetch ' + error))")
    tab.locator("h1").click()
    assert tab.evaluate("window.hit") is None
    assert tab.locator("h1").count() == 1
    assert any("Trusted" in text for text in blocked)
    assert any("img-src" in text or "default-src" in text for text in blocked)
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_readable_in_either_scheme(show: Callable[[SamplesPage], "Tab"], scheme: Any) -> None:
    every_step = SampleView(list("abcdefghi"), [NAN, *map(float, range(8))], correct=False, answer="x", reason="no")
    arms = {"plain": [sample("a b", True, "y"), sample("c")], "esamp": [every_step]}
    tab = show(page([ProblemView("p", "Make 1", "1", arms)]))
    tab.emulate_media(color_scheme=scheme)
    tab.get_by_role("radio", name="Novelty").check()
    tab.locator("summary").click()
    checks = (
        "h1, .lead, .intro, .note, th, td, label, legend, .tally, .number, .grade, .answer, .reason, .token, "
        "#scale span, .meaning, .keys"
    )
    tab.locator(".arm:nth-child(2) .token").nth(0).focus()
    pairs: list[tuple[str, str, str]] = tab.evaluate(
        """selector => [...document.querySelectorAll(selector), document.querySelector('#tip')].map(element => {
            let ground = element;
            while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            return [element.className || element.tagName, getComputedStyle(element).color,
                    getComputedStyle(ground).backgroundColor];
        })""",
        checks,
    )
    assert {f"token colour-{step}" for step in range(7)} <= {name for name, _, _ in pairs}
    for name, ink, ground in pairs:
        assert contrast(ink, ground) >= 4.5, (name, ink, ground)
    heats = tab.locator("#scale i").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    steps = [luminance(heat) for heat in heats]
    assert steps == sorted(steps, reverse=scheme == "light")
    assert all(abs(a - b) > 0.008 for a, b in pairwise(steps))


@pytest.mark.browser
def test_fits_a_narrow_screen(show: Callable[[SamplesPage], "Tab"]) -> None:
    word = "w" * 300
    wide = ProblemView("p" * 90, word, word, {word: [sample(word, True, word)], "plain": [sample("a b", False)]})
    tab = show(page([wide]))
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    left, right = (tab.locator(f"#arm-{side}").bounding_box() for side in (0, 1))
    assert left is not None
    assert right is not None
    assert right["y"] > left["y"]
    assert left["width"] > 300


@pytest.mark.browser
def test_long_samples_open_on_demand(show: Callable[[SamplesPage], "Tab"]) -> None:
    long = sample(" ".join(str(number) for number in range(1600)))
    tab = show(page([ProblemView("p", "", "", {"only": [long]})]))
    assert tab.locator(".token").count() == 1500
    assert texts(tab, ".arm .field label") == ["Arm"]
    assert not tab.locator("#next").is_visible()
    tab.get_by_role("button", name="Show 100 more tokens").click()
    assert tab.locator(".token").count() == 1600
    assert tab.evaluate("document.activeElement.textContent") == " 1500"


@pytest.mark.browser
def test_ungraded_untraced_and_empty_pages(show: Callable[[SamplesPage], "Tab"]) -> None:
    tab = show(page([ProblemView("p", "", "", {"only": [SampleView(["a", ""])]})]))
    assert texts(tab, ".tally") == ["1 sample."]
    assert texts(tab, ".grade") == []
    for dead in ("#filter", "#colouring", "#legend", "#picker", "#problem-keys"):
        assert not tab.locator(dead).is_visible(), dead
    assert not tab.locator("#reference-line").is_visible()
    tab = show(page([]))
    assert tab.locator("#nothing").is_visible()
    assert not tab.locator("#view").is_visible()


@pytest.mark.browser
def test_prose_opens_on_the_chosen_prompt_with_samples_on_screen(
    show: Callable[[SamplesPage], "Tab"],
) -> None:
    words = "Once upon a time there was a lighthouse keeper who had never seen the sea. " * 4
    views = [sample(words) for _ in range(4)]
    arms = {f"way {number}": views for number in range(5)}
    remarks = dict.fromkeys(arms, "4 samples, worth 1.0 different ones")
    problems = [ProblemView(str(number), f"Prompt {number}", "", arms, remarks) for number in (1, 2, 3)]
    columns = ["decoding", "Vendi", "perplexity", "non-words", "loops", "on topic", "tokens"]
    summary = ComparisonTable(columns, [[name, *["9.9"] * 6] for name in arms], "What they are.", marked="way 1")
    content = SamplesPage("A demo", [words[:150], words[:200]], summary, problems, opens=1, noun="Prompt")
    tab = show(content)
    tab.set_viewport_size({"width": 1280, "height": 800})
    assert texts(tab, "#problem-head") == ["Prompt 2 of 3"]
    assert texts(tab, ".marked th") == ["way 1"]
    assert tab.get_by_role("radio", name="KL").is_checked()
    assert texts(tab, ".tally") == ["4 samples, worth 1.0 different ones."] * 2
    assert tab.locator(".grade").count() == 0
    assert not tab.locator("#filter").is_visible()
    for side in (1, 2):
        first = tab.locator(f".arm:nth-child({side}) .sample:nth-child(1)").bounding_box()
        assert first is not None
        assert first["y"] + first["height"] <= 700  # the first sample is read in full, the second begins
