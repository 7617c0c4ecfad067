"""Expected logits of ESamp: the formulas replayed in float64 on the hidden states of a plain forward pass.

It shares no code with the package.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from support.hf_models import EOS


def states_alone(model: PreTrainedModel, texts: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """The residual stream after `layer` layers and the LM head's input, `[B, T, d]`, from one plain forward pass."""
    final: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda module, args: final.append(args[0]))
    with torch.no_grad():
        hidden = model(texts, output_hidden_states=True, use_cache=False).hidden_states
        handle.remove()
        return after_layer(model, hidden, texts, layer), final[0]


def after_layer(model: PreTrainedModel, hidden: tuple[Tensor, ...], texts: Tensor, layer: int) -> Tensor:
    """The entry of ``hidden_states`` after `layer` layers. Mamba's list, unlike all others, omits the embeddings."""
    if model.config.model_type != "mamba":
        return hidden[layer]
    return hidden[layer - 1] if layer else model.get_input_embeddings()(texts)


class Ridge:
    """The gated distiller by its definition: a ridge regression on all earlier rows of the group, in float64."""

    def __init__(self) -> None:
        self.seen, self.targets = torch.empty(0, 65, dtype=torch.float64), torch.empty(0, 64, dtype=torch.float64)

    def error(self, source: Tensor, final: Tensor) -> Tensor:
        phi = self.features(source)
        inverse = torch.linalg.inv(torch.eye(65, dtype=torch.float64) + self.seen.T @ self.seen)
        confidence = 1 - (phi @ inverse * phi).sum(-1) / phi.square().sum(-1)
        return confidence[:, None] * (final - phi @ inverse @ self.seen.T @ self.targets)

    def learn(self, source: Tensor, final: Tensor) -> None:
        self.seen, self.targets = torch.cat([self.seen, self.features(source)]), torch.cat([self.targets, final])

    @staticmethod
    def features(source: Tensor) -> Tensor:
        return F.pad(source / source.norm(dim=-1, keepdim=True), (0, 1), value=0.5)


class Network:
    """The published distiller, by autograd and torch's Adam in float64, from the same initial weights."""

    def __init__(self, initial: dict[str, Tensor]) -> None:
        self.weights = {name: nn.Parameter(initial[name].double()) for name in ("up", "gate", "down")}
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=4e-4, eps=1e-4)

    def predict(self, x: Tensor) -> Tensor:
        for up, gate, down in zip(*(self.weights[name] for name in ("up", "gate", "down")), strict=True):
            x = x + (F.silu(x @ gate) * (x @ up)) @ down
        return x

    def error(self, source: Tensor, final: Tensor) -> Tensor:
        return final - self.predict(source).detach()

    def learn(self, source: Tensor, final: Tensor) -> None:
        self.optimiser.zero_grad()
        (final - self.predict(source)).square().sum(-1).mean().backward()
        nn.utils.clip_grad_norm_(self.weights.values(), 0.5)
        self.optimiser.step()


def reconstruct(
    model: PreTrainedModel,
    texts: Tensor,
    length: int,
    samples: int,
    after: Callable[[Tensor], Tensor],
    make: Callable[[], Ridge | Network],
    beta: float,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield for step 1, 2, ... the expected logits, the model's own logits `[B, V]`, and which rows were running `[B]`.

    `texts` `[B, T]` holds blocks of `samples` rows for each prompt: the prompt's `length` tokens, then the generated
    ones. `after` is what the model applies behind its head, and `make` builds a group's distiller.
    """
    hidden, final = (states.double() for states in states_alone(model, texts, 1))
    head = model.get_output_embeddings()
    project = lambda x: after(x @ head.weight.double().T + (0 if head.bias is None else head.bias.double()))  # noqa: E731
    groups = [(slice(start, start + samples), make()) for start in range(0, len(texts), samples)]
    for step in range(1, texts.shape[1] - length):
        place = length + step - 1
        running = ~(texts[:, length : length + step] == EOS).any(1)
        expected = torch.empty(len(texts), model.config.vocab_size, dtype=torch.float64)
        for rows, distiller in groups:
            h1, hL = hidden[rows, place], final[rows, place]
            error = torch.where(running[rows, None], distiller.error(h1, hL), 0.0)
            expected[rows] = (1 + beta) * project(hL) - beta * project(hL - error)
            live = running[rows]
            if live.any():
                distiller.learn(h1[live], hL[live])
        yield expected, project(final[:, place]), running


def likelihood(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[float, float, float]:
    """Sum of log p, mean KL(uniform || model) and mean entropy in nats of `tokens` after `prompt`, token by token."""
    ids = [*prompt, *tokens]
    total, certainty, entropy = 0.0, 0.0, 0.0
    for place in range(len(prompt), len(ids)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].double()
        p = logits.exp() / logits.exp().sum()
        total += math.log(p[ids[place]])
        certainty += float((-math.log(len(p)) - p.log()).mean())
        entropy -= sum(float(q) * math.log(q) for q in p if q > 0)
    return total, certainty / len(tokens), entropy / len(tokens)
