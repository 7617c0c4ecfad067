"""Every architecture: what is read, what comes out, and that nothing is left behind.

The fused logits are held against those of `hf_reference`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import esamp
from esamp import ESampConfig, Run
from esamp.decoding.step import DecodeStep, Steering
from esamp.engines.hf.head import probe
from support.distiller_steps import named_matrices
from support.hf_models import AFTER_HEAD, ARCHITECTURES, PAD, count_hooks, small
from support.hf_reference import Network, Ridge, after_layer, reconstruct, states_alone

PROMPTS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
LENGTH, SAMPLES, TOKENS = PROMPTS.shape[1], 3, 8
ARGUMENTS: dict[str, Any] = dict(
    do_sample=True, max_new_tokens=TOKENS, num_return_sequences=SAMPLES, suppress_tokens=[PAD]
)
ALL = dict(return_dict_in_generate=True, output_logits=True, output_scores=True, output_hidden_states=True)

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def record(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[DecodeStep]:
    """Every step that the method is shown from now on."""
    steps: list[DecodeStep] = []
    steer = run.method.steer

    def spy(step: DecodeStep) -> Steering:
        steps.append(step)
        return steer(step)

    monkeypatch.setattr(run.method, "steer", spy)
    return steps


@architectures
@pytest.mark.parametrize("distiller", ["rls", "mlp"])
def test_every_step_has_the_logits_of_the_formula(architecture: str, distiller: str) -> None:
    model, beta = small(architecture), 0.75
    options = {"rls": ESampConfig(beta=beta, features=0), "mlp": ESampConfig(preset="paper", beta=beta, width=32)}
    with esamp.explore(model, options[distiller], samples_per_prompt=SAMPLES) as run:
        network = run.method.explorer.distiller
        initial = named_matrices(network, network.template()["weights"]) if distiller == "mlp" else {}
        out = run.generate(PROMPTS, **ARGUMENTS, **ALL)
    make = Ridge if distiller == "rls" else lambda: Network(initial)
    after = AFTER_HEAD.get(architecture, lambda logits: logits)
    moved = 0.0
    steps = list(reconstruct(model, out.sequences, LENGTH, SAMPLES, after, make, beta))
    for got, (expected, alone, running) in zip(out.logits[1:], steps, strict=False):
        torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-4)
        moved = max(moved, (got - alone)[running].abs().max().item())
    assert moved > 1e-2
    assert run.telemetry()["rows"] == sum(int(running.sum()) for _, _, running in steps)


@architectures
def test_the_states_shown_to_the_method_are_those_of_the_model(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(architecture)
    for layer in (0, 1, 2):
        with esamp.explore(model, ESampConfig(source_layer=layer), samples_per_prompt=SAMPLES) as run:
            steps = record(run, monkeypatch)
            out = run.generate(PROMPTS, **ARGUMENTS, **ALL)
        hidden, final = states_alone(model, out.sequences, layer)
        for step, (shown, told) in enumerate(zip(steps, out.hidden_states[1:], strict=True)):
            input_ids = out.sequences[:, LENGTH + step, None]
            assert torch.equal(shown.residuals[layer], after_layer(model, told, input_ids, layer)[:, -1])
            torch.testing.assert_close(shown.residuals[layer], hidden[:, LENGTH + step], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(shown.final, final[:, LENGTH + step], atol=1e-4, rtol=1e-4)


@architectures
@pytest.mark.parametrize("own_call", [False, True], ids=["model.generate", "run.generate"])
def test_beta_zero_has_the_bits_of_the_model_alone(architecture: str, own_call: bool) -> None:
    model = small(architecture)

    def generate(call: Callable[..., Any]) -> Any:
        torch.manual_seed(7)
        return call(PROMPTS, **ARGUMENTS, **ALL)

    alone = generate(model.generate)
    hooks = count_hooks(model)
    with esamp.explore(model, ESampConfig(beta=0), samples_per_prompt=SAMPLES) as run:
        same = generate(run.generate if own_call else model.generate)
    after = generate(model.generate)
    for out in (same, after):
        assert torch.equal(out.sequences, alone.sequences)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(out.scores, alone.scores, strict=True))
    assert run.telemetry()["updates"] > 0
    assert run.telemetry()["rows_steered"] == 0
    assert count_hooks(model) == hooks


@architectures
def test_model_generate_and_run_generate_agree(architecture: str) -> None:
    model, texts = small(architecture), []
    for own_call in (False, True):
        torch.manual_seed(3)
        with esamp.explore(model, samples_per_prompt=SAMPLES) as run:
            call = run.generate if own_call else model.generate
            texts.append(call(PROMPTS, **ARGUMENTS))
    assert torch.equal(*texts)


@pytest.mark.parametrize("architecture", ["gemma2", "llama", "granite", "cohere"])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_probe_finds_a_soft_cap_whatever_the_size_of_the_weights(
    architecture: str, scale: float, dtype: torch.dtype
) -> None:
    model = small(architecture, dtype, **({"final_logit_softcapping": 30.0} if architecture == "gemma2" else {}))
    head = model.get_output_embeddings()
    kept = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.mul_(scale)
    linear = probe(model, (1,))[1].is_linear
    with torch.no_grad():
        head.weight.copy_(kept)
    assert linear == (architecture != "gemma2")
