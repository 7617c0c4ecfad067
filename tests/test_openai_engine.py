"""`OpenAIEngine` at a scripted server, for what servers of others do; `test_served_clients` has our own."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")

from esamp.engines import registry
from esamp.engines.checks import check_active
from esamp.engines.openai import OpenAIEngine
from esamp.engines.openai.endpoint import Endpoint, check
from esamp.errors import (
    EsampError,
    InactiveMethodError,
    InputError,
    OptionError,
    PromptError,
    UnansweredError,
    UnsupportedError,
)
from esamp.methods import registry as methods
from esamp.runs.job import Job, ModelOptions, RunOptions
from esamp.sampling import Sampling
from support.openai_requests import KEY, NUMBERS, SHORT, asked, only, texts
from support.scripted_server import Reply, ScriptedServer, completion


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


# ---- foreign servers


@pytest.fixture
def start(script: ScriptedServer) -> Iterator[Callable[..., OpenAIEngine]]:
    engines: list[OpenAIEngine] = []

    def load(model: str | None = None, **options: Any) -> OpenAIEngine:
        engines.append(OpenAIEngine.load(model, **({"base_url": script.url, "api_key": KEY, "timeout": 20} | options)))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()
        engine.close()


def test_a_foreign_server_is_told_the_standard_s_fields_only(script: ScriptedServer, start: Any) -> None:
    found = only(start(), asked(n=1))
    [body] = script.bodies
    assert body == {
        "model": "some",
        "prompt": NUMBERS,
        "n": 1,
        "seed": asked().own_seed % 2**31,
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 16,
    }
    assert {name.lower(): value for name, value in script.headers[0].items()}["authorization"] == f"Bearer {KEY}"
    assert [(each.text, each.token_ids, each.trace) for each in found.samples] == [("an answer", (), None)]
    assert (found.cost.tokens, found.cost.prompt_tokens, found.cost.calls) == (5, 7, 1)


def test_settings_beyond_the_standard_go_out_when_they_say_something(script: ScriptedServer, start: Any) -> None:
    script.replies = [(200, completion())]
    only(start(), asked("min_p", n=1, options={"p_base": 0.25}, sampling=Sampling(top_k=7, stop=("x",))))
    [body] = script.bodies
    assert (body["min_p"], body["top_k"], body["stop"], body["max_tokens"]) == (0.25, 7, ["x"], 512)
    assert "repetition_penalty" not in body
    script.replies = [(400, {"error": {"message": "Unrecognized request argument supplied: top_k"}})]
    with pytest.raises(UnsupportedError, match="does not take top_k: Unrecognized request argument"):
        only(start(), asked(n=1, sampling=Sampling(top_k=7)))


def test_vllm_is_told_everything_as_it_has_defaults_of_the_model_s(script: ScriptedServer, start: Any) -> None:
    script.models = (200, {"data": [{"id": "some", "owned_by": "vllm", "max_model_len": 100}]})
    script.replies = [(200, completion(token_ids=[4, 5]))]
    found = only(start("some"), asked(n=1, sampling=Sampling()))
    [body] = script.bodies
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["return_token_ids"]) == (0, 0.0, 1.0, True)
    assert body["max_tokens"] == 50
    assert found.samples[0].token_ids == (4, 5)
    assert "vllm_xargs" not in body


ABOUT = {"versions": {"esamp": "1"}, "exploring": True, "settings": {"slots": 2}, "methods": {"esamp": "it", "xtc": ""}}


@pytest.mark.parametrize(
    "about",
    [{"exploring": True}, "<html>", {**ABOUT, "exploring": False}, [1]],
    ids=["bare", "page", "plain workers", "list"],
)
def test_a_foreign_server_cannot_explore_whatever_it_says(script: ScriptedServer, start: Any, about: Any) -> None:
    script.about = (200, about)
    for method in ("esamp", "xtc", "without_replacement"):
        with pytest.raises(UnsupportedError, match="does not explore: start it with esamp serve"):
            only(start(), asked(method))
    assert not script.bodies


@pytest.mark.parametrize(
    ("report", "error", "sentence"),
    [
        (None, InactiveMethodError, "reports no telemetry of method 'esamp'"),
        ({"method": "esamp", "explored": True, "prompts": [None]}, InactiveMethodError, "reports no telemetry"),
        ({"explored": False, "message": "all slots are taken"}, UnsupportedError, "all slots are taken; ask for less"),
    ],
    ids=["silent", "empty", "refused"],
)
def test_a_method_that_did_not_act_is_no_success(
    script: ScriptedServer, start: Any, report: Any, error: type[EsampError], sentence: str
) -> None:
    script.about, script.replies = (200, ABOUT), [(200, {**completion(), "esamp": report})]
    with pytest.raises(error, match=sentence):
        only(start(), asked("esamp", n=1))


def test_telemetry_of_a_method_that_never_steered_is_caught(script: ScriptedServer, start: Any) -> None:
    report = {"method": "esamp", "explored": True, "prompts": [{"rows": 8, "rows_steered": 0, "explained": None}]}
    script.about = (200, ABOUT)
    script.replies = [(200, {**completion(token_ids=[1, 2, 3, 4]), "esamp": report})]
    found = only(start(), asked("esamp", n=1, options={"beta": 0.75, "gate": False}))
    assert script.bodies[0]["vllm_xargs"] == {"method": "esamp", "beta": 0.75, "gate": 0, "telemetry": 1}
    assert found.telemetry["explained"] != found.telemetry["explained"]
    with pytest.raises(InactiveMethodError, match="should have acted"):
        check_active(found)
    with pytest.raises(UnsupportedError, match="this server has no method 'fire'"):
        only(start(), asked("esamp+fire"))


def test_what_the_server_would_fill_in_is_said(script: ScriptedServer, start: Any) -> None:
    settings = {"slots": 2, "defaults": {"method": "esamp", "beta": 3.0, "waves": 2}}
    script.about = (200, {**ABOUT, "settings": settings, "methods": {"esamp": "", "vanilla": ""}})
    engine = start()
    only(engine, asked(n=1))
    assert script.bodies[0]["vllm_xargs"] == {"method": "vanilla"}
    report = {"explored": True, "prompts": [{"rows": 1, "rows_steered": 1}]}
    script.replies = [(200, {**completion(), "esamp": report})]
    only(engine, asked("esamp", n=1, options={"waves": 1}))
    assert script.bodies[1]["vllm_xargs"].items() >= {"method": "esamp", "beta": 0.5, "waves": 1, "gate": 1}.items()
    with pytest.raises(OptionError, match="option 'waves' = None cannot be sent"):
        only(engine, asked("esamp", n=1))


@pytest.mark.parametrize("first", [(429, {"error": {"message": "slow down"}}), (500, b"oops"), None], ids=str)
def test_what_passes_is_tried_again(script: ScriptedServer, start: Any, first: Reply) -> None:
    script.replies = [first, (200, completion())]
    assert texts(only(start(), asked(n=1))) == ["an answer"]
    assert len(script.bodies) == 2
    assert script.bodies[0] == script.bodies[1]


@pytest.mark.parametrize(
    ("reply", "error", "sentence"),
    [
        ((500, b"oops"), EsampError, "failed 2 times, at last with 500: oops"),
        ((429, {"error": {"message": "slow\ndown"}}), EsampError, "failed 2 times, at last with 429: slow down"),
        (None, UnansweredError, "cannot be reached, tried 2 times"),
        (
            (401, {"error": {"message": f"bad key {KEY}"}}),
            InputError,
            r"refuses the key \(401: bad key \*\*\*\): set OPE",
        ),
        ((403, {"error": "no"}), InputError, r"refuses the key \(403: no\)"),
        ((404, {"detail": "Not Found"}), InputError, r"\(404: Not Found\): check OPENAI_BASE_URL"),
        ((400, {"error": {"message": "temperature is odd"}}), OptionError, "says: temperature is odd"),
        ((400, {"error": {"message": "maximum context length is 9"}}), InputError, "says: maximum context"),
        ((422, {"error": {"message": "x" * 100_000}}), OptionError, r"x\.\.\.$"),
        ((200, b"{"), EsampError, "is not JSON"),
        ((200, b"[" * 200_000), EsampError, "is not JSON"),
        ((200, b"<html>\x1b[2J</html>"), EsampError, r"not JSON: '<html>\?\[2J</html>'"),
        ((200, []), EsampError, "is not a completion"),
        ((200, {"choices": [7]}), EsampError, "a choice is not an object"),
        ((200, {"choices": []}), UnansweredError, "it has no choices"),
        ((200, completion(2)), UnsupportedError, "gave 2 of 1 samples"),
        ((200, completion(text=3)), EsampError, "no text"),  # type: ignore[arg-type]
        ((200, completion(text="", reason="content_filter")), PromptError, "content filter withheld every sample"),
        ((200, completion(reason=None)), UnansweredError, "aborted a sample: its finish_reason is 'None'"),
        ((200, {**completion(), "usage": None}), UnsupportedError, "reports no usage"),
        ((200, {**completion(), "usage": {"completion_tokens": -1}}), UnansweredError, "is not a number of tokens: -1"),
    ],
    ids=lambda part: part[:20] if isinstance(part, str) else "",
)
def test_failures_are_told(
    script: ScriptedServer, start: Any, reply: Reply, error: type[EsampError], sentence: str
) -> None:
    script.replies = [reply]
    with pytest.raises(error, match=sentence) as failure:
        only(start(retries=1), asked(n=1))
    told = str(failure.value)
    assert KEY not in told
    assert len(told) < 800
    assert failure.value.__cause__ is None


def test_usage_may_be_missing_where_there_are_token_ids(script: ScriptedServer, start: Any) -> None:
    script.replies = [(200, {**completion(2, token_ids=[1, 2, 3]), "usage": None})]
    assert only(start(), asked()).cost.tokens == 6


def test_texts_are_only_texts(script: ScriptedServer, start: Any) -> None:
    hostile = "\x00\x1b]0;x\x07" + "y" * 1_000_000 + "\ud800 {{7*7}}"
    script.replies = [(200, completion(text=hostile))]
    [found] = texts(only(start(), asked(n=1)))
    assert found == hostile.replace("\ud800", "?")


def test_a_chat_has_messages_and_may_say_nothing(script: ScriptedServer, start: Any) -> None:
    message = {"role": "assistant", "content": None}
    script.replies = [(200, completion(message=message))]
    found = only(start(), asked(n=1, prompt=({"role": "user", "content": NUMBERS},)))
    assert texts(found) == [""]
    assert script.bodies[0]["messages"] == [{"role": "user", "content": NUMBERS}]
    assert "prompt" not in script.bodies[0]


@pytest.mark.parametrize(("options", "most"), [({"concurrency": 3}, 3), ({"batch_rows": 4}, 2), ({}, 8)], ids=str)
def test_so_many_at_a_time(script: ScriptedServer, start: Any, options: dict[str, int], most: int) -> None:
    script.replies, script.pause = [(200, completion(2))], 0.3
    found = list(start(**options).generate(asked(id=str(number)) for number in range(8)))
    assert len(found) == 8
    assert script.most == most


def test_the_first_to_end_is_the_first_to_come(script: ScriptedServer, start: Any) -> None:
    script.replies = [(429, b""), (200, completion())]
    requests = [asked(id="late", n=1), asked(id="soon", n=1, prompt="soon")]
    engine = start()
    stream = engine.generate(iter(requests[:1]))
    assert next(stream).request.id == "late"
    assert [each.request.id for each in engine.generate(requests)] in (["late", "soon"], ["soon", "late"])


def test_who_leaves_early_leaves_nothing_behind(script: ScriptedServer, start: Any) -> None:
    script.pause = 0.2
    before = set(threading.enumerate())
    engine = start(concurrency=4)
    [own] = [thread for thread in set(threading.enumerate()) - before if thread.name == "esamp-openai"]
    stream = engine.generate(asked(id=str(number), n=1) for number in range(100))
    next(stream)
    stream.close()
    engine.close()
    assert len(script.bodies) <= 6
    with pytest.raises(EsampError, match="was closed"):
        only(engine, asked())
    assert not own.is_alive()


# ---- which server, and by which key


def test_the_model_is_the_only_one_or_named(script: ScriptedServer, start: Any) -> None:
    script.models = (200, {"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(InputError, match="serves 'a', 'b': name one"):
        start()
    assert start("a").info.model == "a"
    script.models = (404, {"detail": "Not Found"})
    assert start("anything").info.model == "anything"
    with pytest.raises(InputError, match="404"):
        start()
    script.models = (200, {"data": "?"})
    with pytest.raises(InputError, match="serves no model"):
        start()


@pytest.mark.parametrize(
    ("url", "key", "sentence"),
    [
        ("", None, "no server: set OPENAI_BASE_URL"),
        ("ftp://x/v1", None, "the base URL must look like"),
        ("http://user:pass@x/v1", None, "without user"),
        ("http://x:99999/v1", None, "the base URL must look like"),
        ("http://x/v1?key=1", None, "without user, query"),
        ("http://x/v1", "sk-\N{SNOWMAN}", "an HTTP header cannot contain"),
        ("http://x/v1", "sk a", "an HTTP header cannot contain"),
    ],
    ids=["none", "scheme", "user", "port", "query", "snow", "space"],
)
def test_addresses_and_keys_are_checked(url: str, key: str | None, sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence) as failure:
        OpenAIEngine.load("some", base_url=url, api_key=key)
    for secret in ("pass", "snow", "sk"):
        assert secret not in str(failure.value).replace("set OPENAI", "").replace("--base-url", "")


def test_the_environment_names_the_server_and_nobody_shows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no server set" in check()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://x/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    found = Endpoint.find()
    assert (found.url, found.root, found.key) == ("http://x/v1", "http://x", KEY)
    works, detail = check()
    assert works
    assert "OPENAI_BASE_URL = http://x/v1, OPENAI_API_KEY is set" in detail
    assert KEY not in repr(found) + detail
    monkeypatch.setenv("OPENAI_BASE_URL", "http://a:b@x/v1")
    assert check()[0] is False


def test_it_is_an_engine_by_name(script: ScriptedServer) -> None:
    works, detail = registry.ENTRIES["openai"].state()
    assert works
    assert "esamp serve" in detail
    options = RunOptions(engine="openai", model="some", method="vanilla", base_url=script.url)
    assert "base_url" not in Job(options, SHORT, methods.get("vanilla").options()).settings()
    assert "base_url" in ModelOptions.placement
    with options.start() as engine:
        assert isinstance(engine, OpenAIEngine)
        assert texts(only(engine, asked(n=1))) == ["an answer"]
    with pytest.raises(InputError, match="does not serve 'countdown'"):  # the embedded model is no wildcard
        ModelOptions(engine="openai", base_url=script.url).start()
    with pytest.raises(OptionError, match="device = 'cpu': the server decides"):
        ModelOptions(engine="openai", device="cpu", base_url=script.url).start()
    with pytest.raises(OptionError, match="engine 'hf' uses no server"):
        ModelOptions(base_url=script.url).start()
