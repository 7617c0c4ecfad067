"""An independent implementation of the ablations: their formulas row by row in float64.

It shares only the initial weights with the package.

Symbols: hL final hidden state, h1 source state, y prediction of hL, c confidence, e = c (hL - y), p and q the softmax
of head(hL) and head(y).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from esamp.explorer.mlp import ResidualNetwork
from support import esamp_reference as reference
from support.distiller_steps import named_matrices
from support.esamp_reference import Vector
from support.hf_models import AFTER_HEAD
from support.hf_reference import states_alone

WORD = 2**64


def mixed_bits(x: int) -> int:
    """The finaliser of SplitMix64: a bijection of 64-bit integers that mixes their bits."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB % WORD
    return x ^ x >> 31


def uniform(*keys: int) -> float:
    """A pseudo-random number in (0, 1) that the keys determine; the first key initialises the state."""
    state = 0
    for key in keys:
        state = mixed_bits(((state ^ key) * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % WORD)
    return ((state >> 12) + 0.5) / 2**52


def gaussian(seed: int, index: int, position: int, size: int) -> Vector:
    """`size` normal numbers by Box and Muller: the first half from the cosines, the second half from the sines."""
    pairs = (size + 1) // 2
    u = [uniform(seed, index, position, 4, place) for place in range(2 * pairs)]
    radius = [math.sqrt(-2 * math.log(a)) for a in u[:pairs]]
    angle = [2 * math.pi * b for b in u[pairs:]]
    cosines = [r * math.cos(t) for r, t in zip(radius, angle, strict=True)]
    sines = [r * math.sin(t) for r, t in zip(radius, angle, strict=True)]
    return np.array([*cosines, *sines][:size])


@dataclass
class Vocabulary(reference.Network):
    """The network trained by KL(p || q) averaged over rows, with gradients from autograd.

    `after` is what the model applies to the logits behind its head. It counts in p and q, and its gradient is taken
    as 1 (straight through).
    """

    head: Vector = field(default_factory=lambda: np.zeros(0))
    after: Callable[[Any], Any] = lambda logits: logits

    def gradients(self, sources: Sequence[Vector], targets: Sequence[Vector]) -> tuple[float, list[dict[str, Vector]]]:
        with torch.inference_mode(False), torch.enable_grad():
            weights = [{n: torch.tensor(w, requires_grad=True) for n, w in block.items()} for block in self.weights]
            W, total = torch.tensor(self.head), torch.zeros((), dtype=torch.float64)
            for h, target in zip(sources, targets, strict=True):
                x = torch.tensor(h)
                for block in weights:
                    up = x @ block["up"]
                    x = x + (torch.nn.functional.silu(x @ block["gate"]) * up) @ block["down"]
                plain = W @ x
                logq = (plain + (self.after(plain) - plain).detach()).log_softmax(-1)
                logp = self.after(W @ torch.tensor(target)).log_softmax(-1)
                total = total + (logp.exp() * (logp - logq)).sum()
            loss = total / len(sources)
            loss.backward()
            return float(loss.detach()), [{n: w.grad.numpy() for n, w in block.items()} for block in weights]


class Frozen(reference.Network):
    """A network that is never trained."""

    def learn(self, sources: Sequence[Vector], targets: Sequence[Vector]) -> None:
        pass


Head = Callable[[Vector], Vector]


@dataclass
class Group:
    """One group: computes the logits of its rows, then trains on them."""

    name: str
    head: Head
    linear: bool
    distiller: Any = None
    gate: bool = False
    strength: float = 0.25
    smoothing: float = 1.0
    seed: int = 0
    drawn: Counter[int] = field(default_factory=Counter)

    def logits(self, h1: Vector, hL: Vector, index: int, position: int) -> Vector:
        s, own = self.strength, self.head(hL)
        if self.name == "surprisal":
            return own + s * -np.log(reference.softmax(own))
        if self.name == "rarity":
            counts = np.array([self.drawn[v] for v in range(len(own))])
            return own - s * np.log((counts + self.smoothing) / (counts.sum() + self.smoothing * len(own)))
        if position == 0:
            return own
        y, confidence = self.distiller.predict(h1)
        c = confidence if self.gate else 1.0
        e = c * (hL - y)
        if self.name == "esamp_noise":
            g = gaussian(self.seed, index, position, len(hL))
            e = g / np.linalg.norm(g) * np.linalg.norm(e)
        if self.name == "esamp_subtract":
            return own - s * self.head(c * y)
        return (1 + s) * own - s * self.head(hL - e)

    def learn(self, h1: Sequence[Vector], hL: Sequence[Vector], tokens: Sequence[int], position: int) -> None:
        self.drawn.update(tokens)
        if self.distiller is not None and position > 0:
            self.distiller.learn(h1, hL)


def network(template: dict[str, torch.Tensor], depth: int, kind: type[reference.Network], **more: Any) -> Any:
    """A network of this module or of `esamp_reference` with the package's initial weights, in float64."""
    weights = [{n: template[n][b].double().numpy() for n in ("up", "gate", "down")} for b in range(depth)]
    return kind(weights, **more)


def head_of(model: PreTrainedModel) -> tuple[Head, bool]:
    """The model's head in float64, and whether it is linear."""
    weight = model.get_output_embeddings().weight.detach().double().numpy()
    after = AFTER_HEAD.get(model.config.model_type, lambda logits: logits)
    return lambda x: after(torch.from_numpy(weight @ x)).numpy(), model.config.model_type != "gemma2"


def replay(
    model: PreTrainedModel, group: Group, prompt: Sequence[int], samples: Sequence[Sequence[int]]
) -> list[Vector]:
    """For each sample the log-probabilities `[T, V]` of its draws, if all samples run in lockstep."""
    final = []
    for tokens in samples:
        h1, hL = states_alone(model, torch.tensor([[*prompt, *tokens]]), 1)
        rows = slice(len(prompt) - 1, -1)
        final.append((h1[0, rows].double().numpy(), hL[0, rows].double().numpy()))
    expected: list[list[Vector]] = [[] for _ in samples]
    for step in range(max(map(len, samples))):
        running = [i for i, tokens in enumerate(samples) if len(tokens) > step]
        h1, hL = ([final[i][k][step] for i in running] for k in (0, 1))
        for i, source, state in zip(running, h1, hL, strict=True):
            expected[i].append(np.log(reference.softmax(group.logits(source, state, i, step))))
        group.learn(h1, hL, [samples[i][step] for i in running], step)
    return [np.stack(rows) for rows in expected]


def group(model: PreTrainedModel, name: str, options: Any, seed: int) -> Group:
    """The group of a method with these options, or with strength 0 if `options` is None."""
    head, linear = head_of(model)
    if options is None:
        return Group(name, head, linear, strength=0.0)
    if name == "surprisal":
        return Group(name, head, linear, strength=options.surprisal_strength)
    if name == "rarity":
        return Group(name, head, linear, strength=options.rarity_strength, smoothing=options.rarity_smoothing)
    size = model.get_output_embeddings().weight.shape[1]
    distiller = _distiller(model, name, options, size)
    return Group(name, head, linear, distiller, options.gate, options.beta, seed=seed)


def _distiller(model: PreTrainedModel, name: str, options: Any, size: int) -> Any:
    if options.distiller == "rls":
        projection = None
        if 0 < options.features < size:
            generator = torch.Generator().manual_seed(options.seed)
            drawn = torch.randn(size, options.features, generator=generator) / options.features**0.5
            projection = drawn.double().numpy()
        features = size if projection is None else options.features
        return reference.RLS(features + 1, size, options.ridge, projection)
    drawn_network = ResidualNetwork(size, options, dtype=torch.float32)
    template = named_matrices(drawn_network, drawn_network.template()["weights"])
    kind = {"esamp_vocab": Vocabulary, "esamp_frozen": Frozen}.get(name, reference.Network)
    more: dict[str, Any] = dict(lr=options.lr, eps=options.eps, clip=options.clip)
    if kind is Vocabulary:
        more |= dict(head=model.get_output_embeddings().weight.detach().double().numpy())
        more |= dict(after=AFTER_HEAD.get(model.config.model_type, lambda logits: logits))
    return network(template, options.depth, kind, **more)
