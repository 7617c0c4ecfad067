"""`esamp bench`: methods timed beside plain sampling, on transformers and on made-up weights of well-known shapes."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from esamp.bench.cost import cost_breakdown
from esamp.bench.launches import Counts
from esamp.bench.throughput import BenchArm, Load, StateShape, Subject, Throughput, TimedRun, measure
from esamp.bench.throughput_hf import HFSubject
from esamp.cli import main
from esamp.engines.hf.loading import load_model
from esamp.errors import InactiveMethodError, InputError, OptionError
from esamp.methods import registry
from esamp.metrics.intervals import Interval
from esamp.models import EMBEDDED, resolve, shapes
from support.tiny_shape import TINY_SHAPE

Output = pytest.CaptureFixture[str]


class Recorded(Subject):
    """A subject that takes the time it is told to, and remembers what was asked of it."""

    def __init__(self, on: TimedRun) -> None:
        self.load, self._on = Load(samples=2, tokens=10), on
        self.asked: list[tuple[str, int]] = []

    @property
    def states(self) -> StateShape:
        return StateShape(8, 4)

    def run(self, arm: BenchArm | None, seed: int, tokens: int | None = None) -> TimedRun:
        self.asked.append(("off" if arm is None else arm.label, seed))
        return TimedRun(1.0, 10) if arm is None else self._on

    def close(self) -> None:
        pass


ON = TimedRun(
    2.0,
    10,
    {"rows_steered": 16.0, "updates": 9.0},
    {"predict": 0.5, "mix": 0.1, "learn": 0.4},
    bank_bytes=8,
    buffer_bytes=4,
)


def arm(label: str = "on", method: str = "esamp", **options: Any) -> BenchArm:
    return BenchArm(label, method, registry.get(method).options(**options))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return load_model(resolve(EMBEDDED), device="cpu", dtype="float32")[0]


# ---- what is measured


def test_on_and_off_take_turns_with_the_same_seeds() -> None:
    subject, told = Recorded(ON), []
    result = measure(subject, [arm()], rounds=3, on_run=told.append)
    on, off = "on", "off"
    assert subject.asked == [(on, 0), (off, 0), (off, 1), (on, 1), (on, 2), (off, 2), (off, 3), (on, 3)]
    assert told == [20] * 8
    assert len(result.on["on"]) == len(result.off) == 3
    ratio = result.ratio("on")
    assert (ratio.estimate, ratio.low, ratio.high) == (0.5, 0.5, 0.5)


def test_arms_run_in_the_same_rounds_and_take_turns_in_being_first() -> None:
    subject = Recorded(ON)
    result = measure(subject, [arm("a"), arm("b")], rounds=5)
    labels = [label for label, _ in subject.asked]
    rounds = [labels[start : start + 3] for start in range(0, len(labels), 3)]
    assert all(sorted(each) == ["a", "b", "off"] for each in rounds)
    assert Counter(each[0] for each in rounds) == {"a": 2, "b": 2, "off": 2}
    assert set(result.on) == {"a", "b"}
    assert result.ratio("a", over="b").estimate == 1.0
    assert result.added("a") == 100.0


def test_a_step_is_split_into_phases() -> None:
    split = measure(Recorded(ON), [arm()], rounds=2).split("on")
    assert split == pytest.approx({"predict": 50, "mix": 10, "learn": 40, "engine": 100})
    assert Throughput(Load(), (TimedRun(1.0, 1),), {"on": (TimedRun(1.0, 1),)}).split("on") == {}


@pytest.mark.parametrize("missing", ["rows_steered", "updates"])
def test_a_run_that_explored_nothing_fails(missing: str) -> None:
    idle = replace(ON, telemetry={**ON.telemetry, missing: 0.0})
    with pytest.raises(InactiveMethodError, match="would be one of plain sampling with itself"):
        measure(Recorded(idle), [arm()], rounds=1)


def test_beta_0_learns_and_need_not_steer() -> None:
    silent = replace(ON, telemetry={"rows_steered": 0.0, "updates": 9.0})
    assert measure(Recorded(silent), [arm(beta=0)], rounds=1).ratio("on").estimate == 0.5


def test_a_method_that_does_not_learn_must_steer() -> None:
    steering, idle = (replace(ON, telemetry={"rows_steered": rows}) for rows in (3.0, 0.0))
    assert measure(Recorded(steering), [arm(method="rarity")], rounds=1).on["on"]
    with pytest.raises(InactiveMethodError):
        measure(Recorded(idle), [arm(method="rarity")], rounds=1)


def test_one_pair_has_no_interval_and_its_json_is_json() -> None:
    document = json.loads(json.dumps(measure(Recorded(ON), [arm()], rounds=1).as_dict(), allow_nan=False))
    (on,) = document["arms"]
    assert on["ratio"] == {"estimate": 0.5, "low": None, "high": None}
    assert (on["bank_bytes"], on["buffer_bytes"]) == (8, 4)
    assert (document["off"]["ms_per_step"], on["ms_per_step"]) == (100.0, 200.0)


@pytest.mark.parametrize("values", [dict(prompts=0), dict(samples=0), dict(prompt_tokens=0), dict(tokens=1)])
def test_empty_loads_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least one prompt"):
        Load(**values)
    with pytest.raises(InputError):
        measure(Recorded(ON), [arm()], rounds=0)
    with pytest.raises(InputError):
        measure(Recorded(ON), [])


def test_arms_need_different_labels_and_methods_that_act() -> None:
    with pytest.raises(OptionError, match="methods need different labels"):
        measure(Recorded(ON), [arm(), arm()])
    with pytest.raises(OptionError, match="takes no part in decode steps"):
        arm(method="vanilla")


# ---- what limits it


def test_the_cost_is_split_into_launches_bytes_and_the_rest() -> None:
    result = measure(Recorded(ON), [arm()], rounds=2)
    found = cost_breakdown(result, "on", Counts(launches=300, bytes=2e9), launch=2e-4, rate=1e11)
    assert (found.added, found.step) == (100, 200)
    assert (found.launching, found.moving, found.rest) == pytest.approx((60, 20, 20))
    assert found.largest == "launches"
    assert "on adds 100.00 ms to a step, 50 % of it: 300 more launches take about 60.00 ms" in found.sentence()
    assert cost_breakdown(result, "on", Counts(launches=1, bytes=9e9), launch=2e-4, rate=1e11).largest == "bytes"
    assert cost_breakdown(result, "on", Counts(), launch=2e-4, rate=1e11).largest == "Python and arithmetic"
    assert cost_breakdown(result, "on").sentence() == "on adds 100.00 ms to a step, 50 % of it"


def test_a_cost_within_the_noise_is_called_noise() -> None:
    off, on = (
        tuple(TimedRun(seconds, 1) for seconds in (1.0, 2.0)),
        tuple(TimedRun(seconds, 1) for seconds in (2.0, 1.0)),
    )
    assert "within the noise" in cost_breakdown(Throughput(Load(), off, {"on": on}), "on", Counts()).sentence()


# ---- transformers


def test_transformers_are_timed(model: PreTrainedModel) -> None:
    usual = model.generation_config
    subject = HFSubject(model, Load(prompts=2, samples=2, tokens=6))
    result = measure(subject, [arm()], rounds=2)
    assert len(result.on["on"]) == len(result.off) == 2
    assert isinstance(result.ratio("on"), Interval)
    assert result.ratio("on").estimate > 0
    last = result.on["on"][0]
    assert last.telemetry["updates"] == 2 * (6 - 1)  # per prompt: all but the first token
    assert last.bank_bytes > 0
    assert last.steps == result.off[0].steps == 6
    assert model.generation_config is usual


def test_waves_take_steps_of_their_own(model: PreTrainedModel) -> None:
    subject = HFSubject(model, Load(samples=4, tokens=6))
    assert subject.run(arm(signal="action", waves=2), 0).steps == 12
    run = subject.run(arm(signal="action", waves=2), 0, tokens=4)
    assert run.steps == 8
    assert run.telemetry["rows"] == 4 * (4 - 1)


def test_a_method_that_does_not_act_is_not_timed_on_transformers(model: PreTrainedModel) -> None:
    with pytest.raises(InactiveMethodError):
        measure(HFSubject(model, Load(samples=2, tokens=4)), [arm(warmup=1000)], rounds=1)


# ---- the command


def test_the_command_prints_times_and_the_cost_breakdown(capsys: Output) -> None:
    arguments = ["bench", "-n", "2", "--tokens", "6", "--pairs", "2", "--beta", "0.7", "--against", "rarity"]
    assert main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "2 interleaved rounds of 3 of 1 x 2 samples x 6 tokens; countdown on hf" in out
    assert "esamp/rarity " in out
    assert "esamp adds " in out or "esamp: its cost" in out
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["arm"] for each in document["arms"]] == ["esamp", "rarity"]
    assert all(each["ratio"]["estimate"] > 0 for each in document["arms"])
    assert set(document["limits"]) == {"esamp", "rarity"}


def test_waves_are_printed(capsys: Output) -> None:
    assert main(["bench", "-n", "4", "--tokens", "6", "--pairs", "1", "--method", "override:rounds=2"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "in 2 waves, which take 2 times the steps" in out


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
        (["diversity", "--engine", "vllm"], "option 'engine' has no effect on diversity"),
        (["diversity", "--shape", "llama-125m"], "option 'shape' has no effect on diversity"),
        (["--capture"], "option 'capture' has no effect on engine 'hf'"),
        (["scaling", "--capture", "--device", "cpu"], "capture = True needs a CUDA GPU, and this model is on cpu"),
        (["--engine", "tpu"], "expected one of 'hf', 'vllm'"),
        (["--tokens", "1"], "option 'tokens' = 1"),
    ],
)
def test_bad_flags(arguments: list[str], message: str, capsys: Output) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_shape_on_transformers(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": TINY_SHAPE})
    arguments = ["--shape", "tiny", "-n", "2", "--tokens", "6", "--pairs", "1", "--json"]
    assert main(["bench", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["engine"], document["model"]) == ("hf", "tiny")
    assert document["arms"][0]["telemetry"]["rows_steered"] > 0
    assert document["arms"][0]["ms_per_step_split"] == {}
