"""An independent implementation of ESamp: its formulas row by row in float64. It shares no code with the package.

Symbols: hL final hidden state, h1 source state, y prediction of hL, c confidence, e = c (hL - y), w_z the
LM head's row of token z.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def phi(h: Vector, projection: Vector | None = None) -> Vector:
    """[h / rms(h) / sqrt(d), 0.5], with the normalised state projected if there is a projection."""
    rms = math.sqrt(sum(x * x for x in h) / len(h))
    unit = h / rms / math.sqrt(len(h))
    if projection is not None:
        unit = unit @ projection
    return np.append(unit, 0.5)


@dataclass
class RLS:
    """Recursive least squares: K = (I + F P F')^-1 F P; W += K' (Y - F W); P -= P F' K."""

    features: int
    """length of phi"""
    target: int
    ridge: float
    projection: Vector | None = None
    P: Vector = field(init=False)
    W: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.P = np.eye(self.features) / self.ridge
        self.W = np.zeros((self.features, self.target))

    def predict(self, h: Vector) -> tuple[Vector, float]:
        f = phi(h, self.projection)
        confidence = 1 - (f @ self.P @ f) / (f @ f / self.ridge)
        return f @ self.W, float(confidence)

    def learn(self, sources: Sequence[Vector], targets: Sequence[Vector]) -> None:
        F, Y = np.stack([phi(h, self.projection) for h in sources]), np.stack(list(targets))
        K = np.linalg.inv(np.eye(len(F)) + F @ self.P @ F.T) @ F @ self.P
        self.W = self.W + K.T @ (Y - F @ self.W)
        self.P = self.P - self.P @ F.T @ K


def ridge_fit(
    steps: Sequence[tuple[Vector, Vector]], ridge: float, forgetting: float = 1.0, centre: bool = False
) -> tuple[Vector, Vector, Vector]:
    """Minimise sum_t g^(T-t) ||Y_t - mean - F_t W||^2 + ridge ||W||^2 directly. Returns W, the mean and A^-1.

    `steps` holds one pair of features `[rows, m]` and targets `[rows, d]` per step.
    """
    age = [forgetting ** (len(steps) - 1 - t) for t in range(len(steps))]
    F = np.concatenate([f * math.sqrt(w) for (f, _), w in zip(steps, age, strict=True)])
    weights = np.concatenate([np.full(len(f), w) for (f, _), w in zip(steps, age, strict=True)])
    Y = np.concatenate([y for _, y in steps])
    mean = (weights[:, None] * Y).sum(0) / weights.sum() if centre else np.zeros(Y.shape[1])
    inverse = np.linalg.inv(ridge * np.eye(F.shape[1]) + F.T @ F)
    return inverse @ F.T @ (np.sqrt(weights)[:, None] * (Y - mean)), mean, inverse


@dataclass
class Mean:
    """The group's running mean; its confidence is that of RLS with the constant feature alone."""

    target: int
    ridge: float
    rows: list[Vector] = field(default_factory=list)

    def predict(self, h: Vector) -> tuple[Vector, float]:
        P = 1 / (self.ridge + sum(0.25 for _ in self.rows))
        mean = sum(self.rows, np.zeros(self.target)) / max(len(self.rows), 1)
        return mean, 1 - (0.5 * P * 0.5) / (0.25 / self.ridge)

    def learn(self, sources: Sequence[Vector], targets: Sequence[Vector]) -> None:
        self.rows.extend(targets)


def silu(x: Vector) -> Vector:
    return x / (1 + np.exp(-x))


@dataclass
class Network:
    """x + Down(silu(Gate x) * Up x), or x + Down(silu(Up x)); Adam written out number by number.

    `weights[block][name]` are `[in, out]` matrices. Gradients come from autograd, in float64.
    """

    weights: list[dict[str, Vector]]
    lr: float = 4e-4
    eps: float = 1e-4
    clip: float = 0.5
    loss: str = "sum"
    steps: int = 0
    m: list[dict[str, Vector]] = field(init=False)
    v: list[dict[str, Vector]] = field(init=False)

    def __post_init__(self) -> None:
        self.m = [{name: np.zeros_like(w) for name, w in block.items()} for block in self.weights]
        self.v = [{name: np.zeros_like(w) for name, w in block.items()} for block in self.weights]

    def predict(self, h: Vector) -> tuple[Vector, float]:
        x = h
        for block in self.weights:
            up = x @ block["up"]
            x = x + (silu(x @ block["gate"]) * up if "gate" in block else silu(up)) @ block["down"]
        return x, 1.0

    def gradients(self, sources: Sequence[Vector], targets: Sequence[Vector]) -> tuple[float, list[dict[str, Vector]]]:
        """The loss (mean over rows; sum or mean over dimensions) and its gradients, not clipped."""
        with torch.inference_mode(False), torch.enable_grad():
            weights = [{n: torch.tensor(w, requires_grad=True) for n, w in block.items()} for block in self.weights]
            total = torch.zeros((), dtype=torch.float64)
            for h, target in zip(sources, targets, strict=True):
                x = torch.tensor(h)
                for block in weights:
                    up = x @ block["up"]
                    gated = torch.nn.functional.silu(x @ block["gate"]) * up if "gate" in block else None
                    x = x + (torch.nn.functional.silu(up) if gated is None else gated) @ block["down"]
                squares = (x - torch.tensor(target)) ** 2
                total = total + (squares.sum() if self.loss == "sum" else squares.mean())
            loss = total / len(sources)
            loss.backward()
            return float(loss.detach()), [{n: _gradient(w) for n, w in block.items()} for block in weights]

    def learn(self, sources: Sequence[Vector], targets: Sequence[Vector]) -> None:
        _, gradients = self.gradients(sources, targets)
        norm = math.sqrt(sum(float((g**2).sum()) for block in gradients for g in block.values()))
        scale = min(1.0, self.clip / (norm + 1e-7)) if self.clip else 1.0
        self.steps += 1
        for block, grads, m, v in zip(self.weights, gradients, self.m, self.v, strict=True):
            for name, raw in grads.items():
                g = raw * scale
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g * g
                m_hat, v_hat = m[name] / (1 - 0.9**self.steps), v[name] / (1 - 0.999**self.steps)
                block[name] = block[name] - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


Batch: TypeAlias = tuple[Sequence[Vector], Sequence[Vector]]


def torch_adam(network: Network, batches: Sequence[Batch]) -> list[dict[str, Vector]]:
    """The weights after the same training by `torch.optim.Adam` and `clip_grad_norm_`, to check `Network` itself."""
    with torch.inference_mode(False), torch.enable_grad():
        weights = [{n: torch.tensor(w, requires_grad=True) for n, w in b.items()} for b in network.weights]
        flat = [w for block in weights for w in block.values()]
        adam = torch.optim.Adam(flat, lr=network.lr, eps=network.eps, foreach=False)
        for sources, targets in batches:
            current = Network([{n: w.detach().numpy() for n, w in b.items()} for b in weights], loss=network.loss)
            _, gradients = current.gradients(sources, targets)
            for block, grads in zip(weights, gradients, strict=True):
                for name, weight in block.items():
                    weight.grad = torch.tensor(grads[name])
            if network.clip:
                torch.nn.utils.clip_grad_norm_(flat, network.clip)
            adam.step()
        return [{n: w.detach().numpy() for n, w in b.items()} for b in weights]


def _gradient(weight: torch.Tensor) -> Vector:
    assert weight.grad is not None
    return np.asarray(weight.grad.numpy())


@dataclass
class NoDistiller(Mean):
    """No distiller, for the action signal alone: predicts the running mean with confidence 0."""

    def predict(self, h: Vector) -> tuple[Vector, float]:
        return super().predict(h)[0], 0.0


@dataclass
class Group:
    """One group: changes the final hidden states of its rows, then trains on them, and keeps the telemetry."""

    distiller: Any
    memory: RLS | None = None
    gate: bool = True
    beta: float = 0.5
    gain: float = 0.0
    seen: list[Vector] = field(default_factory=list)
    residual: float = 0.0
    variance: float = 0.0
    norms: list[float] = field(default_factory=list)

    def step(
        self, sources: Sequence[Vector], finals: Sequence[Vector], actions: Sequence[Vector] | None = None
    ) -> list[Vector]:
        """The changes of hL, one per row, computed before training on this step."""
        changes = []
        centre = sum(self.seen, np.zeros(len(finals[0]))) / max(len(self.seen), 1)
        for h, final in zip(sources, finals, strict=True):
            y, confidence = self.distiller.predict(h)
            e = (confidence if self.gate else 1.0) * (final - y)
            change = self.beta * e
            if self.memory is not None:
                change = change - self.gain * self.memory.predict(final)[0]
            changes.append(change)
            self.norms.append(float(np.linalg.norm(e)))
            if self.seen:
                self.residual += float(((final - y) ** 2).sum())
                self.variance += float(((final - centre) ** 2).sum())
        self.seen.extend(finals)
        self.distiller.learn(sources, finals)
        if self.memory is not None and actions is not None:
            self.memory.learn(finals, actions)
        return changes

    @property
    def explained_variance(self) -> float:
        return 1 - self.residual / self.variance


def softmax(logits: Vector) -> Vector:
    top = max(logits)
    weights = np.array([math.exp(x - top) for x in logits])
    return weights / weights.sum()


def kl(new: Vector, old: Vector) -> float:
    """KL(new || old) in nats, from logits."""
    p, q = softmax(new), softmax(old)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def action(W: Vector, token: int, reference_logits: Vector) -> Vector:
    """The action of a token z: w_z - sum_v p_v w_v, with p the softmax of the reference logits."""
    p = softmax(reference_logits)
    return W[token] - sum((p[v] * W[v] for v in range(len(W))), np.zeros(W.shape[1]))


def fused_logits(head: Callable[[Vector], Vector], final: Vector, y: Vector, beta: float) -> Vector:
    """(1 + beta) head(hL) - beta head(y)."""
    return (1 + beta) * head(final) - beta * head(y)


def survivors(logits: Vector, temperature: float, top_k: int, top_p: float, min_p: float) -> list[int]:
    """Tokens that survive temperature, min-p, top-k and top-p, applied in this order, most likely first."""
    scaled = logits / temperature
    order = sorted(range(len(logits)), key=lambda v: (-scaled[v], v))
    share = softmax(scaled)
    order = [token for token in order if share[token] >= min_p * share[order[0]]]
    if top_k:
        order = order[:top_k]
    p = softmax(scaled[order])
    kept, mass = [], 0.0
    for token, part in zip(order, p, strict=True):
        if kept and mass >= top_p:
            break
        kept.append(token)
        mass += part
    return kept


def candidate_distribution(
    rule: str, reference: Vector, fused: Vector, temperature: float, top_k: int, top_p: float, min_p: float
) -> Vector:
    """The sampling distribution by candidate rule.

    The rule ``fused`` filters the fused logits; ``reference`` filters the reference logits, and gives the survivors
    their fused logits.
    """
    chosen = survivors(fused if rule == "fused" else reference, temperature, top_k, top_p, min_p)
    result = np.zeros(len(reference))
    result[chosen] = softmax(fused[chosen] / temperature)
    return result
