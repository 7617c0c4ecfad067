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
    """`[R]` bool: rows that take part and whose states or predictions are not finite; their slots are reset"""
    steered: Tensor
    """`[R]` bool: rows whose distribution changes"""

    def fall_back(self, reference: Tensor, fused: Tensor, *, narrow: bool) -> None:
        """Leave rows alone after all whose logits cannot be sampled from: not those in `reference`, `fused` `[R]` bool.

        A row whose own logits are not finite is not learned from. Where only the fused ones are not, the prediction has
        diverged and its slot is reset, except in a `narrow` dtype (float16): there steering leaves the range of numbers
        although slot and row are in order.
        """
        diverged = self.live & reference & ~fused
        if not narrow:
            self.broken |= diverged
            self.live &= ~diverged
        self.live &= reference
        self.steered &= reference & fused
