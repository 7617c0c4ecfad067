"""Every architecture: what is read, what comes out, and that nothing is left behind.

The fused logits are held against a reconstruction that shares no code with the package: the model alone runs over the
finished texts, and the formulas are replayed on its states in float64.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

import esamp
from esamp import ESampConfig, Run
from esamp.engines.hf.head import probe
from esamp.step import DecodeStep, Steering
from hf_models import AFTER_HEAD, ARCHITECTURES, EOS, PAD, small

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


def states_alone(model: PreTrainedModel, texts: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """The residual stream after `layer` layers and the LM head's input, `[B, T, .]`, from one plain forward pass."""
    deep: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda module, args: deep.append(args[0]))
    with torch.no_grad():
        hidden = model(texts, output_hidden_states=True, use_cache=False).hidden_states
        handle.remove()
        return after_layer(model, hidden, texts, layer), deep[0]


def after_layer(model: PreTrainedModel, hidden: tuple[Tensor, ...], texts: Tensor, layer: int) -> Tensor:
    """The entry of ``hidden_states`` for `layer`: Mamba's do not begin with the embeddings, as all others' do."""
    if model.config.model_type != "mamba":
        return hidden[layer]
    return hidden[layer - 1] if layer else model.get_input_embeddings()(texts)


class Ridge:
    """The gated distiller by its definition: a ridge regression on all rows of the group so far, float64."""

    def __init__(self) -> None:
        self.seen, self.targets = torch.empty(0, 65, dtype=torch.float64), torch.empty(0, 64, dtype=torch.float64)

    def error(self, source: Tensor, deep: Tensor) -> Tensor:
        phi = self.features(source)
        inverse = torch.linalg.inv(torch.eye(65, dtype=torch.float64) + self.seen.T @ self.seen)
        confidence = 1 - (phi @ inverse * phi).sum(-1) / phi.square().sum(-1)
        return confidence[:, None] * (deep - phi @ inverse @ self.seen.T @ self.targets)

    def learn(self, source: Tensor, deep: Tensor) -> None:
        self.seen, self.targets = torch.cat([self.seen, self.features(source)]), torch.cat([self.targets, deep])

    @staticmethod
    def features(source: Tensor) -> Tensor:
        return F.pad(source / source.norm(dim=-1, keepdim=True), (0, 1), value=0.5)


class Network:
    """The published distiller, by autograd and torch's Adam in float64, from the same initial weights."""

    def __init__(self, initial: dict[str, Tensor]) -> None:
        self.weights = {name: nn.Parameter(initial[f"state.{name}"].double()) for name in ("up", "gate", "down")}
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=4e-4, eps=1e-4)

    def predict(self, x: Tensor) -> Tensor:
        for up, gate, down in zip(*(self.weights[name] for name in ("up", "gate", "down")), strict=True):
            x = x + (F.silu(x @ gate) * (x @ up)) @ down
        return x

    def error(self, source: Tensor, deep: Tensor) -> Tensor:
        return deep - self.predict(source).detach()

    def learn(self, source: Tensor, deep: Tensor) -> None:
        self.optimiser.zero_grad()
        (deep - self.predict(source)).square().sum(-1).mean().backward()
        nn.utils.clip_grad_norm_(self.weights.values(), 0.5)
        self.optimiser.step()


def reconstruct(
    model: PreTrainedModel,
    texts: Tensor,
    after: Callable[[Tensor], Tensor],
    make: Callable[[], Ridge | Network],
    beta: float,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits that step 1, 2, ... should have had, the model's own, and which rows were running."""
    hidden, deep = (states.double() for states in states_alone(model, texts, 1))
    head = model.get_output_embeddings()
    project = lambda x: after(x @ head.weight.double().T + (0 if head.bias is None else head.bias.double()))  # noqa: E731
    groups = [(slice(start, start + SAMPLES), make()) for start in range(0, len(texts), SAMPLES)]
    for step in range(1, TOKENS):
        place = LENGTH + step - 1
        running = ~(texts[:, LENGTH : LENGTH + step] == EOS).any(1)
        expected = torch.empty(len(texts), model.config.vocab_size, dtype=torch.float64)
        for rows, distiller in groups:
            h1, hL = hidden[rows, place], deep[rows, place]
            error = torch.where(running[rows, None], distiller.error(h1, hL), 0.0)
            expected[rows] = (1 + beta) * project(hL) - beta * project(hL - error)
            alive = running[rows]
            if alive.any():
                distiller.learn(h1[alive], hL[alive])
        yield expected, project(deep[:, place]), running


@architectures
@pytest.mark.parametrize("distiller", ["rls", "mlp"])
def test_every_step_has_the_logits_of_the_formula(architecture: str, distiller: str) -> None:
    model, beta = small(architecture), 0.75
    options = {"rls": ESampConfig(beta=beta, features=0), "mlp": ESampConfig(preset="paper", beta=beta, width=32)}
    with esamp.explore(model, options[distiller], samples_per_prompt=SAMPLES) as run:
        initial = run.method.explorer.bank.template
        out = run.generate(PROMPTS, **ARGUMENTS, **ALL)
    make = Ridge if distiller == "rls" else lambda: Network(initial)
    after = AFTER_HEAD.get(architecture, lambda logits: logits)
    moved = 0.0
    steps = list(reconstruct(model, out.sequences, after, make, beta))
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
        hidden, deep = states_alone(model, out.sequences, layer)
        for step, (shown, told) in enumerate(zip(steps, out.hidden_states[1:], strict=True)):
            fed = out.sequences[:, LENGTH + step, None]
            assert torch.equal(shown.hidden[layer], after_layer(model, told, fed, layer)[:, -1])
            torch.testing.assert_close(shown.hidden[layer], hidden[:, LENGTH + step], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(shown.deep, deep[:, LENGTH + step], atol=1e-4, rtol=1e-4)


@architectures
@pytest.mark.parametrize("own_call", [False, True], ids=["model.generate", "run.generate"])
def test_beta_zero_has_the_bits_of_the_model_alone(architecture: str, own_call: bool) -> None:
    model = small(architecture)
    hooks = count_hooks(model)

    def generate(call: Callable[..., Any]) -> Any:
        torch.manual_seed(7)
        return call(PROMPTS, **ARGUMENTS, **ALL)

    alone = generate(model.generate)
    with esamp.explore(model, ESampConfig(beta=0), samples_per_prompt=SAMPLES) as run:
        same = generate(run.generate if own_call else model.generate)
    after = generate(model.generate)
    for out in (same, after):
        assert torch.equal(out.sequences, alone.sequences)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(out.scores, alone.scores, strict=True))
    assert run.telemetry()["updates"] > 0
    assert run.telemetry()["rows_steered"] == 0
    assert count_hooks(model) == hooks


def count_hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


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
