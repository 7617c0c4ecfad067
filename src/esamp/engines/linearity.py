"""What is measured of an LM head when exploration starts: whether it is linear, and how long its rows are.

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


CHUNK = 4096
"""Rows of the head that are converted to float64 at a time."""


def row_sums(weight: Tensor) -> Tensor:
    """Count, sum of squares and sum of the rows of a head `[V, d]` that are not zero, as `[2 + d]` float64.

    Rows of zeros only fill up a sharded or padded table. Shards of a head add up.
    """
    total = torch.zeros(2 + weight.shape[1], dtype=torch.float64)
    for start in range(0, len(weight), CHUNK):
        rows = weight[start : start + CHUNK].double()
        counts = torch.stack([(rows != 0).any(1).sum(), rows.square().sum()])
        total += torch.cat([counts, rows.sum(0)]).cpu()
    return total


def head_scale(sums: Tensor) -> float:
    """Mean of ||w_v - mean w||^2 over the rows w_v of a head, from its `row_sums`; 1 for a head of equal rows.

    The logit of a token moves by about this much when its centred row is added to the state, so a strength divided by
    it is in nats on every model.
    """
    count, squares, total = float(sums[0]), float(sums[1]), sums[2:]
    if count == 0:
        return 1.0
    scale = squares / count - float((total / count).square().sum())
    return scale if scale > 1e-12 else 1.0
