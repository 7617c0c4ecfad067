"""`Heads`: low-rank output heads that learn which tokens were drawn, by one step of Adam per decode step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.adam import Adam
from esamp.decoding.layout import RowLayout
from esamp.decoding.precision import exact_type
from esamp.decoding.slots import Bank, GroupState, Slots
from esamp.decoding.step import Rows
from esamp.methods.override.options import OverRIDEOptions

STD = 0.02
"""Standard deviation of the initial W_A."""
EPSILON = 1e-8
"""Adam's epsilon, PyTorch's default."""
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
WEIGHTS = ("a", "b")
"""Names of W_A and W_B in a state."""


@dataclass(frozen=True)
class Assignment:
    """Which heads act on the rows of one step: R rows on a grid of G stacks of H heads by C lanes."""

    layout: RowLayout
    """the stack of each row"""
    guide: Tensor
    """`[G]` int64: where the weights of the guide lie, the head that logits are reweighted by"""
    learner: Tensor
    """`[G]` int64: where the weights of the learner lie, the head that is trained"""
    guided: Tensor
    """`[R, H]` bool: the head that a row is reweighted by, if there is one and it has taken a step"""
    trained: Tensor
    """`[R, H]` bool: the head that is trained on a row, if there is one"""
    initial: Tensor
    """`[G, H k, d]`: W_A of learners that have taken no step yet"""


@dataclass(frozen=True)
class TrainingResult:
    """The result of one training step, by row."""

    loss: Tensor
    """`[R]`: -log q(token) before the step, in nats; zero for rows that no head was trained on"""
    trained: Tensor
    """`[R]` bool: a head was trained on the row"""
    reset: Tensor
    """`[R]` bool: a head of the row was reset, because its output or its new weights were not finite"""


class Heads(ABC):
    """Stacks of H heads of rank k over states of size d and V tokens, with Adam's moments.

    A head adds ``W_B W_A h`` to the model's logits l(h); W_A `[k, d]` starts at N(0, 0.02^2), W_B `[V, k]` at zero. It
    is trained to predict the tokens y that were drawn, with the model's own logits fixed::

        q = softmax(l + W_B W_A h)        L = -1/n sum_rows log q(y)

    with n the number of rows that the stack is trained on at this step. The gradient is written out by hand: with
    ``s = (q - onehot(y)) / n``, dL/dW_B = sum s (W_A h)^T and dL/dW_A = sum (W_B^T s) h^T. Adam takes one step for each
    head that has rows; the other heads do not change.

    A slot of the bank holds one stack, with W_B transposed and the heads concatenated along the first dimension: ``a``
    `[T, H k, d]` and ``b`` `[T, H k, V]`, their moments `[H k, .]`, and ``steps`` `[H]`, ``round`` and ``swaps``. With
    T = 2, one half holds the learner and the other one the guide; ``swaps`` counts how often the two have swapped.
    """

    slots: Slots
    """the slots of groups"""

    def __init__(
        self,
        options: OverRIDEOptions,
        sizes: tuple[int, int],
        device: torch.device,
        *,
        stack: int,
        halves: int,
        slots: int,
    ) -> None:
        """Allocate `slots` stacks of `stack` H heads in `halves` T; `sizes` are d and V."""
        self.rounds, self.rank = options.rounds, options.head_rank
        self.stack, self.halves, self.sizes = stack, halves, sizes
        self.dtype = DTYPES[options.head_dtype]
        self.exact = exact_type(self.dtype)
        self._adam = Adam(options.head_lr, EPSILON, self.exact, device)
        generator = torch.Generator().manual_seed(options.head_seed)
        drawn = torch.randn(self.rounds - 1, self.rank, sizes[0], generator=generator) * STD
        self.initial = drawn.to(self.dtype).to(device)
        """`[rounds - 1, k, d]`: the initial W_A of the head that is trained on each round"""
        self.bank = Bank(self._template(device), slots)

    def _template(self, device: torch.device) -> GroupState:
        zero = torch.zeros((), dtype=self.dtype, device=device)
        rows = self.stack * self.rank
        template: GroupState = {
            "steps": torch.zeros(self.stack, dtype=self.exact, device=device),
            "round": torch.zeros(1, dtype=torch.int64, device=device),
            "swaps": torch.zeros(1, dtype=torch.int64, device=device),
        }
        for name, width in zip(WEIGHTS, self.sizes, strict=True):
            template[name] = zero.expand(self.halves, rows, width)  # takes no memory
            template[f"{name}.m"] = template[f"{name}.v"] = zero.expand(rows, width)
        return template

    @abstractmethod
    def assign(self, layout: RowLayout, rows: Rows, live: Tensor) -> Assignment:
        """The heads that act on the rows in `live` `[R]` bool; groups that enter a new round start a new learner."""

    @torch.no_grad()
    def residual(self, assigned: Assignment, final: Tensor, live: Tensor) -> Tensor:
        """``W_B W_A h`` `[R, V]` of each row's guide, for states h `final` `[R, d]`; zeros where a row has no guide."""
        x = assigned.layout.to_grid(final.to(self.exact), live)
        a, b = (self._halves(name).index_select(0, assigned.guide).to(self.exact) for name in WEIGHTS)
        inner = (x @ a.mT) * self._wide(assigned.layout.to_grid(assigned.guided, live))
        return assigned.layout.to_rows(inner @ b)

    @torch.no_grad()
    def learn(
        self, assigned: Assignment, final: Tensor, logits: Tensor, tokens: Tensor, rows: Tensor, broken: Tensor
    ) -> TrainingResult:
        """Take one training step.

        Args:
            assigned: the heads of this step.
            final: `[R, d]` states h.
            logits: `[R, V]` the model's own logits l(h).
            tokens: `[R]` int64, y.
            rows: `[R]` bool: rows to train on where they have a learner; their states and logits are finite.
            broken: `[R]` bool: rows for which the output of the guide is not finite.
        """
        layout = assigned.layout
        learned = rows & assigned.trained.any(1)
        x, reference = (layout.to_grid(values.to(self.exact), learned) for values in (final, logits))
        trained = layout.to_grid(assigned.trained, learned)  # [G, C, H]
        new = self._learners(assigned)
        loss, gradients = self._gradients(new, x, reference, layout.to_grid(tokens, learned), self._wide(trained))
        due = trained.any(1)  # [G, H]
        self._train(new, gradients, due)
        wiped = due & ~self._finite(new) | layout.to_grid(assigned.guided & broken.unsqueeze(1), broken).any(1)
        self._store(assigned, new, wiped)
        reset = (layout.spread(wiped) & (assigned.trained & learned.unsqueeze(1) | assigned.guided)).any(1)
        return TrainingResult(layout.to_rows(loss), learned, reset)

    def _gradients(
        self, state: GroupState, x: Tensor, reference: Tensor, tokens: Tensor, trained: Tensor
    ) -> tuple[Tensor, GroupState]:
        """The loss of each cell `[G, C]` and the gradients of ``a`` and ``b``; `trained` `[G, C, H k]` bool."""
        inner = (x @ state["a"].mT) * trained
        logq = (reference + inner @ state["b"]).log_softmax(-1)
        counts, chosen = trained.any(-1).to(x.dtype), tokens.unsqueeze(-1)
        loss = -logq.gather(-1, chosen).squeeze(-1) * counts
        slope = logq.exp_().scatter_add_(-1, chosen, torch.full_like(loss, -1).unsqueeze(-1))
        slope *= (counts / counts.sum(1, keepdim=True).clamp_min(1)).unsqueeze(-1)
        into_inner = (slope @ state["b"].mT) * trained
        return loss, {"a": into_inner.mT @ x, "b": inner.mT @ slope}

    def _train(self, state: GroupState, gradients: GroupState, due: Tensor) -> None:
        """Change `state` in place by one step of Adam for the heads in `due` `[G, H]`."""
        heads, steps = due.flatten(), state["steps"].flatten()
        for name, gradient in gradients.items():
            size = (-1, self.rank * gradient.shape[-1])
            weights, first, second = (state[key].view(size) for key in (name, f"{name}.m", f"{name}.v"))
            own = torch.where(heads.unsqueeze(1), gradient.view(size), 0.0)  # a broken head must not affect the others
            self._adam.step(weights, first, second, self._adam.decay(steps), own, heads)
        state["steps"] = state["steps"] + due

    def _learners(self, assigned: Assignment) -> GroupState:
        """Steps `[G, H]`, weights and moments `[G, H k, .]` of the learners; initial values before their first step."""
        slots = assigned.layout.slots
        steps = self.bank.tensors["steps"].index_select(0, slots)
        fresh = (steps == 0).repeat_interleave(self.rank, 1).unsqueeze(-1)
        state: GroupState = {"steps": steps}
        for name in WEIGHTS:
            stored = self._halves(name).index_select(0, assigned.learner).to(self.exact)
            start = assigned.initial.to(self.exact) if name == "a" else 0.0
            state[name] = torch.where(fresh, start, stored)
            for moment in (f"{name}.m", f"{name}.v"):
                kept = self.bank.tensors[moment].index_select(0, slots).to(self.exact)
                state[moment] = torch.where(fresh, 0.0, kept)
        return state

    def _store(self, assigned: Assignment, new: GroupState, wiped: Tensor) -> None:
        """Store `new`. Heads in `wiped` `[G, H]` start again, and groups with their own heads also lose their guide."""
        slots, tensors = assigned.layout.slots, self.bank.tensors
        tensors["steps"].index_copy_(0, slots, new["steps"] * ~wiped)
        swaps = tensors["swaps"].index_select(0, slots)
        tensors["swaps"].index_copy_(0, slots, swaps * ~wiped.any(1, keepdim=True))
        gone = wiped.repeat_interleave(self.rank, 1).unsqueeze(-1)
        for name in WEIGHTS:
            self._halves(name).index_copy_(0, assigned.learner, torch.where(gone, 0.0, new[name]).to(self.dtype))
            for moment in (f"{name}.m", f"{name}.v"):
                tensors[moment].index_copy_(0, slots, torch.where(gone, 0.0, new[moment]).to(self.dtype))

    def _halves(self, name: str) -> Tensor:
        """Weights `[S T, H k, .]`, a view."""
        return self.bank.tensors[name].flatten(0, 1)

    def _wide(self, picked: Tensor) -> Tensor:
        """Repeat each head's value `[..., H]` for its k rows `[..., H k]`."""
        return picked.repeat_interleave(self.rank, -1)

    def _finite(self, state: GroupState) -> Tensor:
        """`[G, H]` bool: heads of finite weights and moments; one that is not finite shows in its head's sum."""
        sums = [
            tensor.unflatten(1, (self.stack, self.rank)).sum((2, 3))
            for name, tensor in state.items()
            if name != "steps"
        ]
        return torch.stack(sums).isfinite().all(0)
