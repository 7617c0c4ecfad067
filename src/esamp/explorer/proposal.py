"""`Proposal`: what the explorer wants to change at one step, and what it will learn from it."""

from dataclasses import dataclass

from torch import Tensor

from esamp.explorer.layout import RowLayout


@dataclass
class Proposal:
    """What the explorer found at one step. R rows, d the size of the deep state; everything in float32 or better."""

    layout: RowLayout
    source: Tensor
    """`[R, s]` h1, as the engine gave it"""
    sample: Tensor
    """`[R]` int64: the index of each row's sample in its group"""
    target: Tensor
    """`[R, d]` what the distiller is to predict"""
    deep: Tensor
    """`[R, d]` hL"""
    residual: Tensor
    """`[R, d]` target - y, before the gate; y is the sample's own mean with the contrast signal"""
    error: Tensor
    """`[R, d]` e, the gated error (or contrast) in the space of the deep state"""
    delta: Tensor
    """`[R, d]` beta e - gain a, or what stands in for e"""
    live: Tensor
    """`[R]` bool: rows that take part and are finite"""
    broken: Tensor
    """`[R]` bool: rows that take part and are not finite, or would not be when steered"""
    steered: Tensor
    """`[R]` bool: rows whose distribution changes"""

    def reject(self, rows: Tensor) -> None:
        """Leave `rows` `[R]` bool alone after all: their logits came out as no numbers. Their slots are reset."""
        self.broken |= self.live & rows
        self.live &= ~rows
        self.steered &= ~rows
