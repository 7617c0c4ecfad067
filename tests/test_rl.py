"""`esamp.rl`: the importance weights, the ratio in TRL's loss, refusals, and real updates with each method."""

import copy
import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import esamp
from esamp import ESampConfig
from esamp.errors import InputError, MissingDependencyError, OptionError, UnsupportedError
from esamp.models import embedded_path
from support import grpo
from support.grpo import ExploringGRPOTrainer
from support.hf_models import count_hooks, small, small_tokenizer
from support.steered_logprobs import Setting, in_float64, replay

from esamp.rl import countdown, requirements  # isort: skip  # TRL must be imported first, without its warnings
from esamp.rl.experiment import rows as experiment_rows  # isort: skip
from esamp.rl.experiment.figure import draw, smoothed  # isort: skip
from esamp.rl.experiment.settings import Settings  # isort: skip
from esamp.rl.ratio import importance_weights, ratio_metrics  # isort: skip
from esamp.rl.rollouts import content, runs  # isort: skip

STEERED = ESampConfig(beta=1.0, distiller="mean")


# ---- formulas


def test_weights_are_the_truncated_ratio_and_one_at_padding() -> None:
    policy = torch.tensor([[-1.0, -2.0, -0.5, -9.0]], requires_grad=True)
    sampled = torch.tensor([[-1.5, -0.5, -4.0, 0.0]])
    weights = importance_weights(policy, sampled, torch.tensor([[1, 1, 1, 0]]), cap=3.0)
    wanted = [min(math.exp(0.5), 3.0), math.exp(-1.5), 3.0, 1.0]
    torch.testing.assert_close(weights, torch.tensor([wanted]))
    assert not weights.requires_grad


def test_metrics_describe_the_weights_of_real_tokens_alone() -> None:
    policy, sampled = torch.tensor([[-1.0, -2.0, -5.0]]), torch.tensor([[-3.0, -1.0, -1.0]])
    found = ratio_metrics(policy, sampled, torch.tensor([[1, 1, 0]]), cap=3.0)
    assert found["sampling/importance_sampling_ratio/mean"] == pytest.approx((3.0 + math.exp(-1)) / 2)
    assert found["sampling/importance_sampling_ratio/max"] == pytest.approx(math.exp(2))
    assert found["sampling/importance_sampling_ratio/capped"] == 0.5
    assert found["sampling/divergence"] == pytest.approx(-0.5)
    assert ratio_metrics(policy, sampled, torch.zeros(1, 3), cap=3.0) == {}


def test_equal_neighbours_are_one_group_of_at_most_the_given_size() -> None:
    assert list(runs(["a", "a", "a", "b", "a", "a", "a", "a", "a"], 4)) == [("a", 3), ("b", 1), ("a", 4), ("a", 1)]


def test_prompts_are_texts_or_messages_of_text() -> None:
    assert content([{"role": "user", "content": "Hi", "name": "x"}]) == ({"role": "user", "content": "Hi"},)
    for wrong in (3, [{"role": "user", "content": [{"type": "image"}]}], ["Hi"]):
        with pytest.raises(InputError, match="a prompt must be a text"):
            content(wrong)


# ---- the ratio in TRL's loss


def logps(model: Any, prompt: list[int], tokens: list[int], temperature: float) -> Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(-1, torch.tensor([tokens]).T)[:, 0]  # type: ignore[no-any-return]


def expected_loss(batch: dict[str, Tensor], old: Any, new: Any, *, temperature: float, epsilon: float) -> float:
    """GRPO's loss in float64, with pi_theta of `new` over the steered distribution of `old` as the ratio."""
    prompts = [row[mask.bool()].tolist() for row, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    tokens = [
        row[mask.bool()].tolist() for row, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    rewards = torch.tensor(grpo.reward(small_tokenizer().batch_decode(tokens, skip_special_tokens=True))).double()
    losses = []
    for prompt in {tuple(prompt) for prompt in prompts}:
        group = [place for place, each in enumerate(prompts) if tuple(each) == prompt]
        own = rewards[group]
        advantages = (own - own.mean()) / (own.std() + 1e-4)
        sampled = replay(old, prompt, [tokens[place] for place in group], Setting(1.0, temperature))
        for place, advantage, (drawn, _) in zip(group, advantages, sampled, strict=True):
            policy = logps(new, list(prompt), tokens[place], temperature)
            before = logps(old, list(prompt), tokens[place], temperature)
            weight, change = (before - drawn).exp(), (policy - before).exp()
            assert torch.allclose(weight * change, (policy - drawn).exp())  # pi_theta over the sampling distribution
            clipped = change.clamp(1 - epsilon, 1 + epsilon)
            losses.append(-(weight * torch.minimum(change * advantage, clipped * advantage)).mean())
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_ratio_in_the_loss_is_policy_over_sampling_distribution(tmp_path: Path, temperature: float) -> None:
    trainer = grpo.trainer(
        grpo.arguments(tmp_path, temperature=temperature), method="esamp", options=STEERED, ratio_cap=math.inf
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    old = in_float64(trainer.model)
    old.forward = type(old).forward.__get__(old)  # TRL replaced the function by one for its own loss
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():  # as after some updates on the same batch
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * parameter.std() * torch.randn_like(parameter))
    new = in_float64(trainer.model)
    new.forward = type(new).forward.__get__(new)
    loss = trainer.compute_loss(trainer.model, batch).item()
    wanted = expected_loss(batch, old, new, temperature=temperature, epsilon=trainer.epsilon_low)
    assert loss == pytest.approx(wanted, rel=2e-3, abs=2e-5)
    plain = copy.copy(batch) | {"advantages": batch["advantages"] / batch["advantages"].abs().clamp(min=1e-9)}
    assert abs(trainer.compute_loss(trainer.model, plain).item() - loss) > 1e-3


# ---- real updates


def own_hooks(model: torch.nn.Module) -> list[str]:
    """The hooks of this package on a model, by name; transformers leaves some of its own."""
    hooks = [
        inspect.unwrap(hook)
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    return [hook.__name__ for hook in hooks if hook.__module__.startswith("esamp")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vanilla", "esamp", "esamp+min_p"])
def test_two_updates_train_the_model_and_leave_no_hook(tmp_path: Path, method: str) -> None:
    source = embedded_path()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    first = model.get_output_embeddings().weight.detach().clone()
    trainer = grpo.trainer(
        grpo.arguments(tmp_path, max_completion_length=24),
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(source),
        prompts=["Numbers 3 5 8 9 target 24", "Numbers 1 2 7 11 target 30"],
        method=method,
    )
    trainer.train()
    logs = [row for row in trainer.state.log_history if "reward" in row]
    assert len(logs) == 2
    assert not own_hooks(model)
    with esamp.explore(model):
        assert own_hooks(model)
    assert model.training
    assert (model.get_output_embeddings().weight != first).any()
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in logs)
    largest = max(row["sampling/importance_sampling_ratio/max"] for row in logs)
    if method == "vanilla":
        assert largest == pytest.approx(1.0, abs=1e-4)
    else:
        assert largest > 1.05
        assert trainer.rollouts.telemetry["rows_steered"] > 0
    assert trainer.rollouts.tokens == sum(round(8 * row["completions/mean_length"]) for row in logs)


@pytest.mark.slow
def test_without_strength_exploring_rollouts_train_exactly_as_plain_ones(tmp_path: Path) -> None:
    losses = []
    for method, options in (("vanilla", None), ("esamp", ESampConfig(beta=0.0))):
        trainer = grpo.trainer(grpo.arguments(tmp_path), method=method, options=options)
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "reward" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# ---- refusals


def test_a_trainer_without_groups_is_refused(tmp_path: Path) -> None:
    args = grpo.arguments(tmp_path)
    args.num_generations = 1  # TRL itself refuses it in the constructor
    with pytest.raises(OptionError, match="exploring needs groups: set num_generations"):
        grpo.trainer(args)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(loss_type="vespo"), "loss_type = 'vespo'"),
        (dict(generation_kwargs={"min_length": 3}), "generation_kwargs"),
        (dict(chat_template_kwargs={"x": 1}), "chat_template_kwargs"),
    ],
)
def test_settings_for_which_the_ratio_would_be_wrong_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=f"does not work with {message}"):
        grpo.trainer(grpo.arguments(tmp_path, **changes))


def test_vllm_of_trl_itself_is_refused_with_the_argument_to_use(tmp_path: Path) -> None:
    args = grpo.arguments(tmp_path)
    args.use_vllm = True
    with pytest.raises(UnsupportedError, match=r"pass engine=VLLMEngine.load\(...\) to the trainer"):
        grpo.trainer(args)


def test_a_model_that_cannot_be_explored_is_refused_before_training_and_keeps_its_hooks(tmp_path: Path) -> None:
    model = copy.deepcopy(small("llama"))
    before = count_hooks(model)
    with esamp.explore(model), pytest.raises(UnsupportedError, match="explored already"):
        grpo.trainer(grpo.arguments(tmp_path), model=model)
    assert count_hooks(model) == before


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(method="arithmetic"), UnsupportedError, "has no probability of its own"),
        (dict(method="unheard_of"), OptionError, "unheard_of"),
        (dict(method="xtc", options=STEERED), OptionError, "takes"),
        (dict(ratio_cap=0.5), OptionError, "ratio_cap = 0.5"),
        (dict(rollout_func=print), OptionError, "leave rollout_func"),
    ],
)
def test_arguments_that_cannot_work_are_refused(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        grpo.trainer(grpo.arguments(tmp_path), **given)


@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        (None, MissingDependencyError, "esamp.rl needs TRL: pip install"),
        ("1.15.2", UnsupportedError, "this is 1.15.2"),
        ("2.0.0", UnsupportedError, "this is 2.0.0"),
    ],
)
def test_other_releases_of_trl_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str | None, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(requirements, "installed_version", lambda package: version)
    with pytest.raises(error, match=message):
        requirements.check_trl()


def test_public_names_are_those_of_the_package() -> None:
    import esamp.rl

    assert esamp.rl.ExploringGRPOTrainer is ExploringGRPOTrainer
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = esamp.rl.Trainer


# ---- the experiment


def measured(reward: float) -> dict[str, float]:
    return dict(reward=reward, entropy=0.1, groups_alike=0.25, divergence=0.01, length=100.0)


def some_rows() -> list[dict[str, Any]]:
    curve = {"1": 0.25, "2": 0.5}
    measures = dict(pass_1=0.25, pass_k=0.5, distinct=0.5, entropy=0.2, pass_at=curve)
    rows: list[dict[str, Any]] = [{"kind": "settings"}, {"kind": "before", "tokens": 0, **measures}]
    for arm in ("vanilla", "esamp"):
        for seed in range(2):
            run = {"arm": arm, "seed": seed}
            updates = range(6 + seed)
            rows += [{"kind": "update", **run, "tokens": 100 * n, **measured(n + seed)} for n in updates]
            rows.append({"kind": "after", **run, "tokens": 600 + seed, **measures, "pass_1": 0.3 + 0.1 * seed})
    return rows


def test_summary_has_the_spread_over_seeds() -> None:
    first, vanilla, _ = experiment_rows.summary(some_rows())
    assert (first["rollouts"], first["tokens"], first["pass_1"]["mean"]) == ("none", 0, 0.25)
    assert (vanilla["rollouts"], vanilla["seeds"], vanilla["tokens"]) == ("vanilla", 2, 600)
    assert vanilla["pass_1"] == pytest.approx({"mean": 0.35, "low": 0.3, "high": 0.4})
    assert vanilla["alike"] == pytest.approx({"mean": 0.25, "low": 0.25, "high": 0.25})
    assert vanilla["nats"]["mean"] == pytest.approx(1.0)
    assert "nats" not in first


def test_difference_is_paired_by_seed() -> None:
    rows = some_rows()
    for row in rows:
        if row["kind"] == "after" and row["arm"] == "esamp":
            row["pass_1"] = 0.4 + 0.3 * row["seed"]
    mean, error = experiment_rows.difference(rows, "pass_1")
    assert (mean, error) == pytest.approx((0.2, 0.1))  # of 0.1 and 0.3
    mean, error = experiment_rows.difference(rows[:2], "pass_1")
    assert math.isnan(mean)
    assert math.isnan(error)


def test_curves_end_where_the_shortest_run_does_and_are_means_of_neighbouring_updates() -> None:
    values = experiment_rows.updates(some_rows(), "esamp", "reward")
    assert values == [[n, n + 1] for n in range(6)]
    assert smoothed(values, 5) == [[2.0, 3.0], [3.0, 4.0]]


def test_the_figure_is_drawn_from_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = draw(some_rows(), tmp_path)
    assert path.read_text().startswith("<?xml")


def test_a_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    file = experiment_rows.RowFile(path, Settings(beta=0.5))
    file.append([{"kind": "after", "arm": "esamp", "seed": 0}])
    assert file.has("after", arm="esamp", seed=0)
    assert not file.has("after", arm="vanilla", seed=0)
    experiment_rows.RowFile(path, Settings(beta=0.5, seeds=9))  # more seeds continue the same experiment
    with pytest.raises(InputError, match="other settings"):
        experiment_rows.RowFile(path, Settings(beta=0.25))
    path.write_text(json.dumps([1]) + "\n")
    with pytest.raises(InputError, match="no file of rows"):
        experiment_rows.read(path)


@pytest.mark.slow
def test_the_command_trains_what_is_missing_and_prints_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    flags = dict(seeds=1, tokens=60, prompts=2, samples=2, length=12, problems=2, draws=2)
    line = ["--out", str(tmp_path), "--json", *(f"--{name}={value}" for name, value in flags.items())]
    countdown.main(line)
    first = json.loads(capsys.readouterr().out)
    written = (tmp_path / "rows.jsonl").read_text()
    assert [row["rollouts"] for row in first["summary"]] == ["none", "vanilla", "esamp"]
    assert all(row["tokens"] >= 60 for row in first["summary"][1:])
    countdown.main(line)
    assert json.loads(capsys.readouterr().out) == first
    assert (tmp_path / "rows.jsonl").read_text() == written
    with pytest.raises(SystemExit, match="other settings"):
        countdown.main([*line, "--beta=1"])


def test_settings_that_cannot_run_are_refused() -> None:
    with pytest.raises(OptionError, match="--samples 1: give at least 2"):
        Settings(samples=1).check()
