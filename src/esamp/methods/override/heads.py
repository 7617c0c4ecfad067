"""`Heads`: low-rank output heads that learn which tokens were drawn, trained by one Adam step per decode step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.adam import Adam
from esamp.decoding.layout import RowLayout
from esamp.decoding.precision import exact_type
from esamp.decoding.slots import Bank, State
from esamp.decoding.step import Rows
from esamp.methods.override.options import OverRIDEOptions

STD = 0.02
"""Standard deviation of the initial W_A."""
EPSILON = 1e-8
"""Adam's epsilon, PyTorch's default."""
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
WEIGHTS = ("a", "b")


@dataclass(frozen=True)
class Turn:
    """Whose heads act at one step. R rows on a grid of G stacks of H heads by C lanes."""

    layout: RowLayout
    """which stack a row belongs to"""
    guide: Tensor
    """`[G]` int64: where the weights are that reweight"""
    learner: Tensor
    """`[G]` int64: where the weights are that learn"""
    guided: Tensor
    """`[R, H]` bool: the head that a row is decoded against, if there is one and it has learned anything"""
    taught: Tensor
    """`[R, H]` bool: the head that learns from a row, if there is one"""
    initial: Tensor
    """`[G, H k, d]`: W_A of learners that begin"""


@dataclass(frozen=True)
class Lesson:
    """What came of one learning step, by row."""

    loss: Tensor
    """`[R]`: -log q(token) before the step, in nats; zero where nothing was learned"""
    learned: Tensor
    """`[R]` bool: a head learned from the row"""
    reset: Tensor
    """`[R]` bool: a head of the row's was wiped, because it gave or would have held numbers that are not finite"""


class Heads(ABC):
    """Stacks of H heads of rank k over states of size d and V tokens, with Adam's moments.

    A head adds ``W_B W_A h`` to the model's logits l(h); W_A `[k, d]` starts at N(0, 0.02^2), W_B `[V, k]` at zero. It
    learns to give the tokens y that were drawn, with the model's own logits fixed::

        q = softmax(l + W_B W_A h)        L = -1/n sum_rows log q(y)

    n being the rows that the stack learns from at this step. The gradient is written out by hand; with
    ``s = (q - onehot(y)) / n``, dL/dW_B = sum s (W_A h)^T and dL/dW_A = sum (W_B^T s) h^T. Adam takes one step for each
    head that has rows; the others stay as they are.

    Kept in the bank, with W_B transposed and the heads of a stack one below the other: ``a`` `[T, H k, d]` and ``b``
    `[T, H k, V]`, their moments `[H k, .]`, and ``steps`` `[H]`, ``round`` and ``turn``. With T = 2 one half learns
    while the other one guides; ``turn`` says how often they have changed places.
    """

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
        """Allocate; `sizes` are d and V, `stack` is H and `halves` T."""
        self.rounds, self.rank = options.rounds, options.head_rank
        self.stack, self.halves, self.sizes = stack, halves, sizes
        self.dtype = DTYPES[options.head_dtype]
        self.exact = exact_type(self.dtype)
        self._adam = Adam(options.head_lr, EPSILON, self.exact, device)
        generator = torch.Generator().manual_seed(options.head_seed)
        drawn = torch.randn(self.rounds - 1, self.rank, sizes[0], generator=generator) * STD
        self.initial = drawn.to(self.dtype).to(device)
        """`[rounds - 1, k, d]`: W_A of the head that each round teaches, as it begins"""
        self.bank = Bank(self._template(device), slots)

    def _template(self, device: torch.device) -> State:
        zero = torch.zeros((), dtype=self.dtype, device=device)
        rows = self.stack * self.rank
        template: State = {
            "steps": torch.zeros(self.stack, dtype=self.exact, device=device),
            "round": torch.zeros(1, dtype=torch.int64, device=device),
            "turn": torch.zeros(1, dtype=torch.int64, device=device),
        }
        for name, width in zip(WEIGHTS, self.sizes, strict=True):
            template[name] = zero.expand(self.halves, rows, width)  # takes no memory
            template[f"{name}.m"] = template[f"{name}.v"] = zero.expand(rows, width)
        return template

    @abstractmethod
    def claim(self) -> int | None:
        """A place for a new group; None when all are taken."""

    @abstractmethod
    def release(self, slot: int) -> None:
        """The group is gone."""

    @abstractmethod
    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""

    @abstractmethod
    def begin(self, layout: RowLayout, rows: Rows, live: Tensor) -> Turn:
        """Say which heads act on which of the rows in `live` `[R]` bool, and start those that are to begin."""

    @torch.no_grad()
    def residual(self, turn: Turn, final: Tensor, live: Tensor) -> Tensor:
        """``W_B W_A h`` `[R, V]` of each row's guide for `final` `[R, d]`; of no use where a row has none."""
        x = turn.layout.to_grid(final.to(self.exact), live)
        a, b = (self._halves(name).index_select(0, turn.guide).to(self.exact) for name in WEIGHTS)
        inner = (x @ a.mT) * self._wide(turn.layout.to_grid(turn.guided, live))
        return turn.layout.to_rows(inner @ b)

    @torch.no_grad()
    def learn(self, turn: Turn, final: Tensor, logits: Tensor, tokens: Tensor, rows: Tensor, broken: Tensor) -> Lesson:
        """One learning step.

        Args:
            turn: of this step.
            final: `[R, d]` states h.
            logits: `[R, V]` the model's own logits l(h).
            tokens: `[R]` int64, y.
            rows: `[R]` bool: those to learn from, as far as they have a head; all numbers of theirs are finite.
            broken: `[R]` bool: rows whose guide gave numbers that are not finite.
        """
        layout = turn.layout
        learned = rows & turn.taught.any(1)
        x, reference = (layout.to_grid(each.to(self.exact), learned) for each in (final, logits))
        taught = layout.to_grid(turn.taught, learned)  # [G, C, H]
        new = self._learners(turn)
        loss, gradients = self._gradients(new, x, reference, layout.to_grid(tokens, learned), self._wide(taught))
        due = taught.any(1)  # [G, H]
        self._train(new, gradients, due)
        wiped = due & ~self._finite(new) | layout.to_grid(turn.guided & broken.unsqueeze(1), broken).any(1)
        self._store(turn, new, wiped)
        reset = (layout.spread(wiped) & (turn.taught & learned.unsqueeze(1) | turn.guided)).any(1)
        return Lesson(layout.to_rows(loss), learned, reset)

    def _gradients(
        self, state: State, x: Tensor, reference: Tensor, tokens: Tensor, taught: Tensor
    ) -> tuple[Tensor, State]:
        """The loss of each cell `[G, C]` and the gradients of ``a`` and ``b``; `taught` `[G, C, H k]` 0 or 1."""
        inner = (x @ state["a"].mT) * taught
        logq = (reference + inner @ state["b"]).log_softmax(-1)
        counts, chosen = taught.any(-1).to(x.dtype), tokens.unsqueeze(-1)
        loss = -logq.gather(-1, chosen).squeeze(-1) * counts
        slope = logq.exp_().scatter_add_(-1, chosen, torch.full_like(loss, -1).unsqueeze(-1))
        slope *= (counts / counts.sum(1, keepdim=True).clamp_min(1)).unsqueeze(-1)
        into_inner = (slope @ state["b"].mT) * taught
        return loss, {"a": into_inner.mT @ x, "b": inner.mT @ slope}

    def _train(self, state: State, gradients: State, due: Tensor) -> None:
        """Change `state` in place by one step of Adam for the heads in `due` `[G, H]`."""
        heads, steps = due.flatten(), state["steps"].flatten()
        for name, gradient in gradients.items():
            size = (-1, self.rank * gradient.shape[-1])
            tensors = (state[key].view(size) for key in (name, f"{name}.m", f"{name}.v"))
            own = torch.where(heads.unsqueeze(1), gradient.view(size), 0.0)  # a broken head must not reach the others
            self._adam.step(*tensors, self._adam.decay(steps), own, heads)
        state["steps"] = state["steps"] + due

    def _learners(self, turn: Turn) -> State:
        """What learns: steps `[G, H]`, weights and moments `[G, H k, .]`, as they begin where no step was taken."""
        slots = turn.layout.slots
        steps = self.bank.tensors["steps"].index_select(0, slots)
        fresh = (steps == 0).repeat_interleave(self.rank, 1).unsqueeze(-1)
        state: State = {"steps": steps}
        for name in WEIGHTS:
            found = self._halves(name).index_select(0, turn.learner).to(self.exact)
            start = turn.initial.to(self.exact) if name == "a" else 0.0
            state[name] = torch.where(fresh, start, found)
            for moment in (f"{name}.m", f"{name}.v"):
                kept = self.bank.tensors[moment].index_select(0, slots).to(self.exact)
                state[moment] = torch.where(fresh, 0.0, kept)
        return state

    def _store(self, turn: Turn, new: State, wiped: Tensor) -> None:
        """Keep `new`; heads in `wiped` `[G, H]` begin anew, and groups with heads of their own lose their guide."""
        slots, tensors = turn.layout.slots, self.bank.tensors
        tensors["steps"].index_copy_(0, slots, new["steps"] * ~wiped)
        turns = tensors["turn"].index_select(0, slots)
        tensors["turn"].index_copy_(0, slots, turns * ~wiped.any(1, keepdim=True))
        gone = wiped.repeat_interleave(self.rank, 1).unsqueeze(-1)
        for name in WEIGHTS:
            self._halves(name).index_copy_(0, turn.learner, torch.where(gone, 0.0, new[name]).to(self.dtype))
            for moment in (f"{name}.m", f"{name}.v"):
                tensors[moment].index_copy_(0, slots, torch.where(gone, 0.0, new[moment]).to(self.dtype))

    def _halves(self, name: str) -> Tensor:
        """Weights `[S T, H k, .]`, a view."""
        return self.bank.tensors[name].flatten(0, 1)

    def _wide(self, picked: Tensor) -> Tensor:
        """`[..., H]` to `[..., H k]`."""
        return picked.repeat_interleave(self.rank, -1)

    def _finite(self, state: State) -> Tensor:
        """`[G, H]` bool: whether every number of a head is finite. One that is not spoils the sum it is in."""
        sums = [
            tensor.unflatten(1, (self.stack, self.rank)).sum((2, 3))
            for name, tensor in state.items()
            if name != "steps"
        ]
        return torch.stack(sums).isfinite().all(0)
