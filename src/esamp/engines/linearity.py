"""Whether an LM head is linear, measured: does scaling the state scale the logits?

No list of architectures with a soft cap is needed: such a head bends under one of the scales.
"""

import torch
from torch import Tensor

SCALES = (10.0, 1e3, 1e4, 1e5, 1e7)
"""Whatever the size of a head's weights, one of these drives its logits into a soft cap; overflow is left out."""

PROBES = 2 + len(SCALES)
"""Rows of `probe_states`."""


def probe_states(size: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """The states 0, x and k x for the scales k, `[PROBES, size]`."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return torch.stack([torch.zeros_like(x), x, *(scale * x for scale in SCALES)])


def is_linear(logits: Tensor) -> bool:
    """Judge by the logits `[PROBES, V]` of `probe_states`. Synchronises with the device."""
    zero, one, *scaled = logits.double()
    for scale, found in zip(SCALES, scaled, strict=True):
        expected = scale * (one - zero)
        if found.isfinite().all() and (found - zero - expected).norm() > 0.01 * expected.norm():
            return False
    return True
