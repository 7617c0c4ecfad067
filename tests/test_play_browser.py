"""The playground's page in a browser: what it shows, by keyboard alone, narrow and dark, and what it keeps apart."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'esamp[play]'")

from esamp.play.server import listen
from support.hf_models import EOS, PAD, VOCAB, small
from support.page_checks import HOSTILE, contrast
from support.play_runs import PROMPT, Served, served, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]
SECONDS = 30_000
"""Milliseconds to wait for a run; the machine may be busy."""


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    """The page on the embedded model, with all measures that are installed."""
    with served("countdown", "measured") as started:
        yield started


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Visit]:
    """Opens an address in a browser profile of its own; fails if the page asked another server or reported errors.

    With `server_ends` the test stops the server while the page is open: that it cannot be reached then is no error.
    """
    problems: list[str] = []
    contexts = []

    def opened(url: str, *, width: int = 1280, scheme: Any = "light", server_ends: bool = False) -> "Page":
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        host = url.split("/")[2]

        def report(error: str) -> None:
            if not (server_ends and error.startswith("Failed to fetch")):
                problems.append(error)

        context.on("request", lambda request: problems.append(request.url) if _foreign(request.url, host) else None)
        context.on("weberror", lambda error: report(str(error.error)))
        context.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(url)
        page.wait_for_selector("#run")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


def _foreign(url: str, host: str) -> bool:
    return not url.startswith(("data:", "blob:")) and url.split("/")[2] != host


def status(page: "Page", text: str) -> None:
    page.wait_for_function("text => document.querySelector('#status').innerText.includes(text)", arg=text)


def focused(page: "Page") -> str:
    """What has the focus: the id of the nearest element that has one, or the element's text."""
    return str(
        page.evaluate(
            "(() => { const at = document.activeElement; const near = at.closest('[id]:not(input)');"
            " return at.tagName === 'SUMMARY' ? at.innerText : near ? near.id : at.tagName; })()"
        )
    )


def ring(page: "Page") -> bool:
    """Whether the focused element has a visible outline."""
    return bool(
        page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement);"
            " return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2; })()"
        )
    )


WIDE = "Math.max(...[...document.querySelectorAll('html, body, .gradio-container, main')].map(e => e.scrollWidth))"
PALE = """() => [...document.querySelectorAll('h1, h2, p, li, td, th, summary, b, button, label > span, input, '
    + 'textarea, .drawn span, .cm-line, [data-testid=block-info]')]
    .filter((e) => e.offsetParent && e.innerText !== '')
    .map((e) => {
        let ground = e;
        while (ground && /, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) {
            ground = ground.parentElement;
        }
        return [e.tagName + '.' + e.className + ': ' + (e.innerText || '').slice(0, 30), getComputedStyle(e).color,
                getComputedStyle(ground || document.body).backgroundColor];
    })"""
"""Text, its colour and the colour behind it, for every element that shows text."""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_a_prompt_is_run_and_read_with_the_keyboard_alone(
    site: Served, visit: Visit, width: int, scheme: str, tmp_path: Path
) -> None:
    page = visit(site.url, width=width, scheme=scheme)
    page.wait_for_function("document.activeElement.matches('#prompt textarea')")  # the prompt has the focus
    page.keyboard.press("Control+A")
    page.keyboard.type(PROMPT)
    page.keyboard.press("Enter")
    status(page, "Done.")
    assert page.locator("#plain .drawn li").count() == page.locator("#esamp .drawn li").count() == 8
    assert page.locator("#esamp .drawn span[class^=c]").count() > 50
    assert page.locator("#plain .drawn span[class^=c]").count() == 0
    assert page.locator("#legend .scale li").count() == 7
    assert re.fullmatch(
        r"8 samples, worth \d\.\d different ones at perplexity \d+\.\d", page.inner_text("#esamp .about b")
    )
    assert page.locator("#figures tbody tr").count() == 2
    assert page.locator("#map .plain circle").count() == page.locator("#map .explored rect").count() == 8
    page.get_by_text("The map as a table").focus()
    page.keyboard.press("Enter")
    assert page.locator("#map tbody tr").count() == 16
    assert f'prompt = "{PROMPT}"' in page.inner_text("#code")
    assert page.evaluate(WIDE) <= width
    for name, ink, ground in page.evaluate(PALE):
        assert contrast(ink, ground) >= 4.5, (name, ink, ground)
    page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_the_tab_key_goes_through_the_settings_to_the_buttons(site: Served, visit: Visit) -> None:
    page = visit(site.url)
    page.wait_for_function("document.activeElement.matches('#prompt textarea')")
    order = []
    for _ in range(11):
        order.append(focused(page))
        assert ring(page), order
        page.keyboard.press("Tab")
    settings = ["preset", "beta", "esamp_temperature", "temperature", "n", "max_tokens", "seed"]
    assert order == ["prompt", *settings, "What the settings mean", "run", "stop"]


def test_a_preset_brings_its_values(site: Served, visit: Visit) -> None:
    page = visit(site.url)
    page.focus("#preset input")
    page.keyboard.press("Control+A")
    page.keyboard.type("paper")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#beta input').value === '0.25'")
    assert page.input_value("#esamp_temperature input") == "1"
    page.focus("#n input")
    page.keyboard.press("Enter")  # runs from any field
    status(page, "Done.")
    assert "preset paper, beta 0.25, temperature 1" in page.inner_text("#esamp .about")
    assert 'preset="paper", max_tokens' in page.inner_text("#code")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("#prompt textarea", " ", "The prompt is empty"),
        ("#n input", "0", "option 'n' = 0: expected a whole number from 1"),
        ("#beta input", "99", "option 'beta' = 99: expected a number from 0 to 16"),
    ],
)
def test_a_wrong_setting_is_a_message_on_the_page(
    site: Served, visit: Visit, field: str, value: str, message: str
) -> None:
    page = visit(site.url)
    page.fill(field, value)
    page.click("#run")
    page.wait_for_selector("#status [role=alert]")
    assert message in page.inner_text("#status")
    assert page.locator(".drawn li").count() == 0
    assert site.running == 0


def long_run(page: "Page") -> None:
    """Start a run that would take long, and wait for its first tokens."""
    page.fill("#max_tokens input", "480")
    page.fill("#n input", "32")
    page.click("#run")
    page.wait_for_selector("#plain .drawn p")


def test_samples_appear_while_they_are_drawn(site: Served, visit: Visit) -> None:
    page = visit(site.url)
    page.fill("#prompt textarea", PROMPT)
    long_run(page)
    before = len(page.inner_text("#plain"))
    page.wait_for_function("before => document.querySelector('#plain').innerText.length > before", arg=before)
    assert "Plain sampling is drawing" in page.inner_text("#status")
    assert page.locator("#plain .cursor").first.is_visible()
    page.click("#stop")
    status(page, "Stopped.")
    assert not page.locator("#plain .cursor").first.is_visible()
    assert len(page.inner_text("#plain")) > before
    wait_until(lambda: site.running == 0, seconds=30)


def test_a_page_that_is_closed_leaves_nothing_running(site: Served, visit: Visit) -> None:
    page = visit(site.url)
    long_run(page)
    assert site.running == 1
    page.close()
    wait_until(lambda: site.running == 0, seconds=30)


def test_visitors_take_turns_and_see_their_own_runs_alone(site: Served, visit: Visit) -> None:
    first, second = visit(site.url), visit(site.url)
    long_run(first)
    second.fill("#prompt textarea", PROMPT)
    second.fill("#n input", "3")
    second.click("#run")
    status(second, "Waits for its turn.")
    second.click("#stop")  # ends no run of another visitor, and the own one before its turn
    status(second, "Stopped.")
    second.click("#run")
    status(second, "Waits for its turn.")
    before = len(first.inner_text("#plain"))
    first.wait_for_function("before => document.querySelector('#plain').innerText.length > before", arg=before)
    assert second.locator(".drawn li").count() == 0
    first.click("#stop")
    status(first, "Stopped.")
    status(second, "Done.")
    assert second.locator("#plain .drawn li").count() == 3
    assert first.locator("#plain .drawn li").count() == 32


# ---- hostile texts

ATTACKS = (
    *(text for text in HOSTILE if text.isprintable()),
    "[x](javascript:window.hit=1)",
    "$$\\href{javascript:alert(1)}{x}$$",
    "\\(x^2\\)",
    "${window.hit=1} {{window.hit}}",
    "**bold** `code` <b>b</b>",
    "https://evil.example/",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose every token is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    vocabulary = {f"{ATTACKS[index % len(ATTACKS)]}{index} ": index for index in range(3, VOCAB)}
    vocabulary |= {"<s>": 0, "</s>": EOS, "<pad>": PAD}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<s>", **special).save_pretrained(folder)
    small("llama", max_position_embeddings=2048).save_pretrained(folder)
    return folder


def test_texts_of_a_model_never_become_elements(hostile: Path, visit: Visit) -> None:
    prompt = " ".join(ATTACKS)
    with served(str(hostile)) as site:
        page = visit(site.url)
        page.fill("#prompt textarea", prompt)
        page.fill("#n input", "3")
        page.click("#run")
        status(page, "Done.")
        for arm in ("#plain", "#esamp"):
            shown = page.inner_text(arm)
            assert all(attack in shown for attack in ATTACKS[:3]), shown[:500]
            names = page.evaluate("arm => [...document.querySelectorAll(arm + ' .drawn *')].map(e => e.tagName)", arm)
            assert set(names) <= {"LI", "SPAN", "P", "I"}
            assert set(page.locator(f"{arm} .drawn i").all_inner_texts()) <= {"(no text)"}
        results = "#figures *, #map *, #status *, #code .cm-content *"
        tags = set(page.evaluate("all => [...document.querySelectorAll(all)].map(e => e.tagName)", results))
        assert not tags & {"SCRIPT", "IMG", "A", "IFRAME", "MATH", "IMAGE", "OBJECT", "STYLE"}
        assert page.evaluate("window.hit") is None
        assert page.locator(".katex, math").count() == 0
        assert json.dumps(prompt, ensure_ascii=False)[:60] in page.inner_text("#code")


# ---- the command


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`esamp play` on the embedded model, and the address that it prints."""
    line = [sys.executable, "-m", "esamp.cli", "play", "--model", "countdown", "--port", "0", *arguments]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    own = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    with subprocess.Popen(line, text=True, env=own, **pipes) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_command_contacts_nobody_and_ends_when_it_is_interrupted_in_mid_run(visit: Visit) -> None:
    with listen("127.0.0.1", 0) as proxy:
        through = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        with command(http_proxy=through, https_proxy=through, no_proxy="127.0.0.1") as (process, url):
            page = visit(url, server_ends=True)
            long_run(page)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has connected
            proxy.accept()
    assert process.returncode == 0, err
    assert out == ""
    assert err == "esamp: serving; Ctrl-C ends it\n"


def test_another_host_needs_the_token_that_is_printed_once(visit: Visit, browser: "Browser") -> None:
    with command("--host", "0.0.0.0") as (process, printed):
        token = printed.partition("?token=")[2]
        assert len(token) >= 32
        url = re.sub(r"//[^:]+:", "//127.0.0.1:", printed)
        bare = url.partition("?")[0]
        context = browser.new_context()
        answer = context.request.get(bare)
        assert answer.status == 401
        context.close()
        page = visit(url)
        assert page.url == bare
        page.fill("#prompt textarea", PROMPT)
        page.click("#run")
        status(page, "Done.")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert token not in err
