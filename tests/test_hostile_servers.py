"""What a server may do to its client: repeat keys, send elsewhere, never end, swell, and claim impossible numbers."""

import gzip
import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")

from esamp.engines.base import Completion, Request
from esamp.engines.openai import OpenAIEngine, transport
from esamp.engines.openai.endpoint import Endpoint
from esamp.engines.openai.keys import redacted
from esamp.errors import EsampError, InputError, UnansweredError
from esamp.methods import registry
from esamp.sampling import Sampling
from support.scripted_server import Raw, ScriptedServer, completion

KEY = "sk-proj-" + "0123456789abcdef" * 6
Start = Callable[..., OpenAIEngine]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


@pytest.fixture
def start(script: ScriptedServer) -> Iterator[Start]:
    engines: list[OpenAIEngine] = []

    def load(**options: Any) -> OpenAIEngine:
        usual = {"base_url": script.url, "api_key": KEY, "timeout": 20, "retries": 0}
        engines.append(OpenAIEngine.load("some", **(usual | options)))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def ask(engine: OpenAIEngine, method: str = "vanilla") -> Completion:
    options = registry.get(method).options()
    request = Request("r", "PRIVATE PROMPT", 1, Sampling(max_tokens=5), method, options, seed=1)
    [found] = engine.generate([request])
    return found


def everything(error: BaseException | None) -> str:
    """All that a log could show of an error: texts, causes, contexts and what they hold."""
    told = ""
    while error is not None:
        told += f"{error!r} {error} {vars(error)!r} {''.join(traceback.format_exception(error))}"
        error = error.__cause__ or error.__context__
    return told


# ---- keys


@pytest.mark.parametrize(
    "reply",
    [
        (401, {"error": {"message": "x" * 450 + KEY}}),
        (500, {"error": {"message": "bad " * 120 + KEY[:72]}}),
        (400, {"error": {"message": {"deep": [{"key": KEY}] * 3}}}),
        (422, {"detail": KEY * 20}),
        (200, ("<html>" + "y" * 60 + KEY).encode()),
        (200, {"error": {"message": KEY}}),
        (200, completion(reason=f"error {KEY}")),
        (200, completion(reason="x" * 70 + KEY)),
        (302, f"https://elsewhere.example/{KEY}"),
    ],
    ids=["end", "cut", "deep", "often", "page", "error", "reason", "long reason", "redirect"],
)
def test_no_key_in_any_error(script: ScriptedServer, start: Start, reply: Any) -> None:
    script.replies = [reply]
    with pytest.raises(EsampError) as raised:
        ask(start())
    assert KEY[:20] not in everything(raised.value)
    assert len(str(raised.value)) < 1000


def test_no_key_in_what_a_server_says_of_a_method(script: ScriptedServer, start: Start) -> None:
    about = {"versions": {"esamp": "1"}, "exploring": True, "settings": {"slots": 2}, "methods": {"esamp": ""}}
    report = {"explored": False, "message": f"\x1b[2J {KEY}"}
    script.about, script.replies = (200, about), [(200, {**completion(), "esamp": report})]
    with pytest.raises(EsampError, match="was decoded without method") as raised:
        ask(start(), "esamp")
    assert KEY[:20] not in everything(raised.value)
    assert "\x1b" not in str(raised.value)


def test_no_key_and_no_control_in_names_of_models(script: ScriptedServer) -> None:
    script.models = (200, {"data": [{"id": f"{number}\x1b[2J{KEY}"} for number in range(3)]})
    with pytest.raises(InputError, match="does not serve 'some'") as raised:
        OpenAIEngine.load("some", base_url=script.url, api_key=KEY, retries=0)
    assert KEY[:20] not in everything(raised.value)
    assert "\x1b" not in str(raised.value)


def test_no_key_when_nobody_answers(script: ScriptedServer) -> None:
    script.close()
    with pytest.raises(EsampError, match="cannot be reached") as raised:
        OpenAIEngine.load("some", base_url=script.url, api_key=KEY, retries=0)
    assert KEY[:20] not in everything(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"a {KEY} b", "a *** b"),
        (f"a {KEY[:40]}", "a ***"),
        (f"a {KEY[:40]}... b {KEY[:15]}", "a ***... b ***"),
        ("sk-proj-another", "sk-proj-another"),
        (KEY + KEY, "******"),
    ],
)
def test_redacted(text: str, left: str) -> None:
    assert redacted(text, KEY) == left


def test_quoted_forms_of_a_key_are_known() -> None:
    key = 'a"/&b'
    assert redacted(f"{json.dumps(key)} a%22%2F%26b a&quot;/&amp;b", key) == '"***" *** ***'


def test_a_key_is_taken_out_before_the_text_is_cut() -> None:
    said = Endpoint("http://x/v1", KEY).quoted("z" * 490 + KEY)
    assert "sk-" not in said


def test_the_environments_account_goes_with_its_key_only(
    script: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"openai-organization": "org-mine", "openai-project": "project-mine", "x-gateway": "gate-mine"}
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: gate-mine\nAuthorization: Bearer mine")

    def sent(**options: Any) -> dict[str, str]:
        script.headers.clear()
        with OpenAIEngine.load("some", retries=0, **options) as engine:
            ask(engine)
        return {name.lower(): value for name, value in script.headers[0].items()}

    strange = sent(base_url=script.url)
    assert not headers.keys() & strange.keys()
    assert strange["authorization"] == "Bearer none"
    monkeypatch.setenv("OPENAI_BASE_URL", script.url)
    assert sent().items() >= headers.items()


# ---- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://127.0.0.1:{}/v1", "http://localhost:{}/v1", "//127.0.0.1:{}/v1"])
def test_nothing_goes_where_a_server_sends_to(script: ScriptedServer, start: Start, status: int, target: str) -> None:
    other = ScriptedServer()
    try:
        script.replies = [(status, target.format(other.url.split(":")[2].split("/")[0]))]
        with pytest.raises(InputError, match="redirects to"):
            ask(start())
        script.models = script.replies[0]
        with pytest.raises(InputError, match="redirects to"):
            start()
        assert not other.bodies
        assert not other.paths
    finally:
        other.close()


# ---- answers without end


def test_a_dripping_answer_ends_with_its_time(script: ScriptedServer, start: Start) -> None:
    engine = start(timeout=1.0)

    def drip() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.05)

    script.replies = [Raw({}, drip())]
    begun = time.monotonic()
    with pytest.raises(UnansweredError, match=r"no answer from .* in time"):
        ask(engine)
    assert time.monotonic() - begun < 15  # each read is fast: without a limit of the whole it would never end


def test_an_answer_that_is_too_long_is_left_unread(
    script: ScriptedServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 1 << 20)
    sent = 0

    def swell() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    script.replies = [Raw({}, swell())]
    with pytest.raises(UnansweredError, match="is longer than 64 MiB: ask for less"):
        ask(start())
    assert sent < 64 << 20


def test_a_packed_answer_is_measured_unpacked(
    script: ScriptedServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 1 << 20)
    packed = {"content-encoding": "gzip"}
    script.replies = [Raw(packed, iter([gzip.compress(json.dumps(completion()).encode())]))]
    assert ask(start()).samples[0].text == "an answer"
    script.replies = [Raw(packed, iter([gzip.compress(b" " * (2 << 20))]))]
    with pytest.raises(UnansweredError, match="is longer than"):
        ask(start())


@pytest.mark.parametrize("packing", ["zstd", "br", "gzip, gzip", "compress"])
def test_other_packings_are_refused(script: ScriptedServer, start: Start, packing: str) -> None:
    script.replies = [Raw({"content-encoding": packing}, iter([b"x" * 100]))]
    with pytest.raises(UnansweredError, match="has a compression that was not requested"):
        ask(start())


# ---- numbers

HUGE = 10**400


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({**completion(), "usage": {"completion_tokens": HUGE}}, "usage.completion_tokens is not a number of tokens"),
        (
            {**completion(), "usage": {"completion_tokens": "5"}},
            "usage.completion_tokens is not a number of tokens: '5'",
        ),
        (
            {**completion(), "usage": {"completion_tokens": 5, "prompt_tokens": [1]}},
            "usage.prompt_tokens is not a number",
        ),
        ({**completion(), "usage": {"completion_tokens": float("nan")}}, "is not a number of tokens: nan"),
        (completion(token_ids=[1, HUGE]), "token_ids are not a list of token ids"),
        (completion(token_ids=[1.5]), "token_ids are not a list of token ids"),
        (completion(token_ids={"1": 2}), "token_ids are not a list of token ids"),
        ({**completion(), "choices": [{"index": True, "text": "x", "finish_reason": "stop"}]}, "no index"),
        ({**completion(), "choices": [{"index": HUGE, "text": "x", "finish_reason": "stop"}]}, "not numbered"),
        (completion(3), "gave 3 of 1 samples"),
    ],
)
def test_impossible_numbers_are_one_error(script: ScriptedServer, start: Start, answer: Any, sentence: str) -> None:
    script.replies = [(200, answer)]
    with pytest.raises(EsampError, match=sentence) as raised:
        ask(start())
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", [HUGE, "much", [1], True])
def test_impossible_measurements_are_one_error(script: ScriptedServer, start: Start, value: Any) -> None:
    about = {"versions": {"esamp": "1"}, "exploring": True, "settings": {"slots": 2}, "methods": {"esamp": ""}}
    report = {"explored": True, "prompts": [{"rows": 8, "kl": value}]}
    script.about, script.replies = (200, about), [(200, {**completion(), "esamp": report})]
    with pytest.raises(UnansweredError, match="telemetry has a value that is not a number: 'kl' = "):
        ask(start(), "esamp")


@pytest.mark.parametrize("settings", [{"slots": HUGE}, {"slots": -5}, {"slots": True}, {"slots": 2, "defaults": 5}])
def test_a_server_of_impossible_settings_is_none_that_explores(
    script: ScriptedServer, start: Start, settings: dict[str, Any]
) -> None:
    about = {"versions": {"esamp": "1"}, "exploring": True, "settings": settings, "methods": {"esamp": ""}}
    script.about = (200, about)
    assert start().info.methods is None


# ---- logs


def test_nothing_of_a_key_is_logged(script: ScriptedServer, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ask(start())
    assert KEY[:20] not in caplog.text
