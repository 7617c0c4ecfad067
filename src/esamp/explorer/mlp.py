"""The Latent Distiller of the paper: a small residual network, trained by one Adam step per decode step."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esamp.decoding.adam import Adam
from esamp.decoding.precision import exact_type
from esamp.decoding.slots import GroupState
from esamp.explorer.config import ESampConfig
from esamp.explorer.distiller import Distiller, Past, Prediction, TrainingBatch

INWARD = {"swiglu": ("up", "gate"), "mlp": ("up",)}
"""Matrices from the state to the inner width, which lie side by side."""


class ResidualNetwork(Distiller):
    """Blocks ``x + Down(silu(Gate x) * Up x)`` (or ``x + Down(silu(Up x))``), weights stacked over groups.

    The gradient is written out by hand: it runs under ``inference_mode`` and inside CUDA graphs, where autograd does
    not, and one batched product serves all groups. The loss of a group with n live rows is::

        L = 1/n sum_rows ||y - hL||^2        (divided by d as well for ``loss = "mean"``)

    (arXiv 2604.24927, Eq. 10), its gradient is clipped to the norm `clip` per group, and Adam takes one step.

    The weights of a group are one vector, in which the matrices lie one behind the other. The gradient is clipped and
    zero in rows that are not live, so that only a prediction that has grown out of the range of numbers, never a
    gradient, can spoil a slot: its weights start again, and Adam's moments, which stay finite, go on.
    """

    mixes_rows = True

    def __init__(
        self, size: int, config: ESampConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        """`size` d of source and target; width, depth, block, lr, eps, clip, loss and seed come from `config`."""
        self.size, self.config, self.dtype, self.device = size, config, dtype, device
        self.exact = exact_type(dtype)
        self.inward = INWARD[config.block]
        self._adam = Adam(config.lr, config.eps, self.exact, device)

    @property
    def numbers(self) -> int:
        """Weights of a group."""
        return (len(self.inward) + 1) * self.config.depth * self.size * self.config.width

    @property
    def scratch(self) -> int:
        return self.numbers * self.exact.itemsize

    def template(self) -> GroupState:
        """``weights`` `[numbers]`: matrices `[in, out]`, drawn uniformly from +-1/sqrt(in); see `matrices`."""
        if torch.device(self.device).type == "meta":
            return {"weights": torch.empty(self.numbers, dtype=self.dtype, device=self.device)}
        generator = torch.Generator().manual_seed(self.config.seed)
        d, w, depth = self.size, self.config.width, self.config.depth
        inward = [_drawn(depth, d, w, generator) for _ in self.inward]
        down = _drawn(depth, w, d, generator)
        blocks = [torch.cat([*(each[block] for each in inward)], dim=1) for block in range(depth)]
        drawn = [matrix.flatten() for pair in zip(blocks, down, strict=True) for matrix in pair]
        return {"weights": torch.cat(drawn).to(self.dtype).to(self.device)}

    def moments(self) -> GroupState:
        """Adam's moments ``first`` and ``second`` `[numbers]`; ``decay`` `[2]`: beta1^t, beta2^t of the next step t."""
        zeros = torch.zeros(self.numbers, dtype=self.dtype, device=self.device)
        return {"first": zeros, "second": zeros, "decay": self._adam.first_decay}

    def matrices(self, vector: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each block, as views of `vector` `[G, numbers]`: Up and Gate side by side `[G, d, w or 2 w]`, and Down."""
        d, inner = self.size, len(self.inward) * self.config.width
        sizes = [d * inner, d * self.config.width] * self.config.depth
        parts = vector.split(sizes, dim=1)
        return [
            (into.unflatten(1, (d, inner)), down.unflatten(1, (self.config.width, d)))
            for into, down in zip(parts[::2], parts[1::2], strict=True)
        ]

    def predict(self, state: GroupState, source: Tensor, past: Past) -> Prediction:
        """The network's output, with confidence 1."""
        x, kept = source.to(self.dtype), []
        for into, down in self.matrices(state["weights"]):
            both = x @ into
            if len(self.inward) == 2:
                up, gate = both.chunk(2, dim=-1)
                open_gate = F.silu(gate)
                inner = open_gate * up
            else:
                inner = open_gate = F.silu(both)
            kept += [x, both, open_gate, inner]
            x = torch.baddbmm(x, inner, down)
        return Prediction(x.to(self.exact), None, tuple(kept))

    def learn(self, state: GroupState, batch: TrainingBatch) -> None:
        """One clipped Adam step on the live rows; the loss is the mean over them."""
        rows = batch.live.sum(1).clamp_min(1).view(-1, 1, 1)
        if batch.slope is not None:
            slope = batch.slope / rows
        else:
            slope = batch.residual / (rows * (-0.5 * (self.size if self.config.loss == "mean" else 1)))
        gradient = torch.empty(slope.shape[0], self.numbers, dtype=self.dtype, device=slope.device)
        matrices = self.matrices(state["weights"]), self.matrices(gradient)
        self.backward(*matrices, batch.prediction.kept, slope.to(self.dtype))
        gradient = gradient.to(self.exact).nan_to_num_(0, 0, 0)  # a live row that is not finite costs its group a step
        if self.config.clip > 0:
            gradient.renorm_(2, 0, self.config.clip)
        weights, first, second = (state[name].to(self.exact) for name in ("weights", "first", "second"))
        self._adam.step(weights, first, second, state["decay"], gradient, batch.present)
        if self.dtype != self.exact:
            for name, new in (("weights", weights), ("first", first), ("second", second)):
                state[name].copy_(new)

    def backward(
        self,
        weights: Sequence[tuple[Tensor, Tensor]],
        gradient: Sequence[tuple[Tensor, Tensor]],
        kept: Sequence[Tensor],
        slope: Tensor,
    ) -> None:
        """Fill in the `gradient` of all matrices, given dL/d output `slope` `[G, C, d]` and what `predict` kept."""
        width = self.config.width
        for block in reversed(range(self.config.depth)):
            x, both, open_gate, inner = kept[4 * block : 4 * block + 4]
            torch.bmm(inner.mT, slope, out=gradient[block][1])
            into_inner = slope @ weights[block][1].mT
            if len(self.inward) == 2:
                up, gate = both.chunk(2, dim=-1)
                into_both = torch.empty_like(both)
                torch.mul(into_inner, open_gate, out=into_both[..., :width])
                torch.ops.aten.silu_backward.grad_input(into_inner * up, gate, grad_input=into_both[..., width:])
            else:
                into_both = torch.ops.aten.silu_backward(into_inner, both)
            torch.bmm(x.mT, into_both, out=gradient[block][0])
            if block:
                slope = torch.baddbmm(slope, into_both, weights[block][0].mT)


class FrozenNetwork(Distiller):
    """A `ResidualNetwork` that stays as it was drawn. Its weights are the same for all groups and stored once."""

    learns = False

    def __init__(self, network: ResidualNetwork) -> None:
        """Freeze `network`."""
        self.network = network
        self.weights = network.template()["weights"].unsqueeze(0)

    @property
    def shared_bytes(self) -> int:
        return self.weights.nbytes

    def template(self) -> GroupState:
        """Nothing: there is nothing to learn."""
        return {}

    def predict(self, state: GroupState, source: Tensor, past: Past) -> Prediction:
        """The network's output, with confidence 1."""
        groups, lanes, size = source.shape
        prediction = self.network.predict({"weights": self.weights}, source.reshape(1, groups * lanes, size), past)
        return Prediction(prediction.value.view(groups, lanes, size), None)

    def learn(self, state: GroupState, batch: TrainingBatch) -> None:
        """Nothing changes."""


def _drawn(depth: int, fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    """Matrices `[depth, in, out]` drawn uniformly from +-1/sqrt(in)."""
    uniform = torch.rand(depth, fan_in, fan_out, generator=generator) * 2 - 1
    return uniform.div(math.sqrt(fan_in))
