"""`FusedNetwork`: prediction and training of the published network, where kernels do the rest of the step."""

from typing import Any

import torch
from torch import Tensor

from esamp.decoding.adam import BETA1, BETA2
from esamp.decoding.layout import RowLayout
from esamp.explorer.bank import PackedBank
from esamp.explorer.distiller import Past, Prediction
from esamp.explorer.mlp import ResidualNetwork

WIDTH = 1024
"""Numbers of a gradient that a program holds at a time."""
PROGRAMS = 1024
"""Programs of a launch that are wanted; each moves some kilobytes."""


def launch(kernel: Any, grid: tuple[int, int], tensor: Tensor, *arguments: object, **constants: object) -> None:
    """Run a kernel on the device of its first argument, a `tensor`. Products and sums may be fused, as torch's are."""
    with torch.cuda.device_of(tensor):
        kernel[grid](tensor, *arguments, **constants, enable_fp_fusion=True)


class FusedNetwork:
    """The products of a step by batched matrix multiplication, and Adam by two launches for each piece of the bank."""

    def __init__(self, network: ResidualNetwork, bank: PackedBank) -> None:
        """For the network of an explorer and its bank. Imports Triton."""
        from esamp.explorer.kernels.adam import adam, measure

        self._measure_kernel, self._adam_kernel = measure, adam
        self.network, self.bank = network, bank
        self._zero = torch.zeros((), device=network.device)
        self._nothing = Past(self._zero, self._zero)

    def predict(self, source: Tensor, layout: RowLayout, live: Tensor) -> tuple[Tensor, ...]:
        """The predictions `[G, C, d]` of rows `[R, d]`, and what training needs besides."""
        active = layout.mask(live).unsqueeze(-1)
        grid = torch.where(active, layout.arrange(source), self._zero)
        pieces = self.bank.pieces(layout, "weights")
        prediction = Prediction.joined(
            [self.network.predict(each.state, each.of(grid), self._nothing) for each in pieces]
        )
        return prediction.value.contiguous(), *prediction.kept

    @property
    def steepness(self) -> float:
        """The derivative of a row's loss in y is this times ``y - hL``."""
        return 2 / (self.network.size if self.network.config.loss == "mean" else 1)

    def train(self, layout: RowLayout, kept: tuple[Tensor, ...], slope: Tensor, reports: Tensor) -> None:
        """One step of Adam in the slots.

        Args:
            layout: of the step.
            kept: what `predict` returned besides the predictions.
            slope: `[G, C, d]`, the gradient of each group's loss in the predictions.
            reports: `[2, G]` bool: groups that learn, and groups whose weights start again.
        """
        network = self.network
        for piece in self.bank.pieces(layout, "weights", scratch=network.scratch):
            gradient = torch.empty(piece.groups, network.numbers, device=slope.device)
            matrices = network.matrices(piece.state["weights"]), network.matrices(gradient)
            network.backward(*matrices, tuple(map(piece.of, kept)), piece.of(slope))
            last = piece.first + piece.groups
            self._adam(gradient, layout.slots[piece.first : last], reports[:, piece.first : last])

    def _adam(self, gradient: Tensor, slots: Tensor, reports: Tensor) -> None:
        groups, numbers = gradient.shape
        total = -(-numbers // WIDTH)
        tiles = -(-total // max(1, min(total, PROGRAMS // groups)))
        blocks = -(-total // tiles)
        partials = torch.empty(groups, blocks, device=gradient.device)
        corrections = torch.empty(groups, 2, device=gradient.device)
        weights, weights_at = self.bank.located("weights")
        moments, first_at = self.bank.located("first")
        second_at, decay_at = self.bank.located("second")[1], self.bank.located("decay")[1]
        config = self.network.config
        launch(
            self._measure_kernel, (groups, blocks),
            gradient, partials, corrections, moments, reports, slots, numbers, moments.stride(0), decay_at,
            tiles, blocks, WIDTH=WIDTH, KEEP1=BETA1, KEEP2=BETA2,
        )  # fmt: skip
        launch(
            self._adam_kernel, (groups, blocks),
            gradient, partials, corrections, weights, moments, self.bank.template["weights"], reports, slots,
            reports.stride(0), numbers, weights.stride(0), moments.stride(0), weights_at, first_at, second_at,
            config.clip, config.lr, config.eps, tiles, blocks,
            WIDTH=WIDTH, SHARE1=1 - BETA1, SHARE2=1 - BETA2,
        )  # fmt: skip
