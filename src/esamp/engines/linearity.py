"""Measurements of an LM head: whether its logits are linear in the state, and the mean squared norm of its rows.

Linearity is measured by scaling a state, so no list of architectures with a soft cap is needed.
"""

import torch
from torch import Tensor

SCALES = (10.0, 1e3, 1e4, 1e5, 1e7)
"""Factors of the probe state. For weights of any size, one of them reaches a soft cap; logits that overflow are
ignored."""

PROBES = 2 + len(SCALES)
"""Number of rows of `probe_states`."""


def probe_states(size: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """The states 0, x and k x for the scales k, `[PROBES, size]`, with x standard normal and the same at every call."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return torch.stack([torch.zeros_like(x), x, *(scale * x for scale in SCALES)])


def is_linear(logits: Tensor) -> bool:
    """Whether a head is linear, from its logits `[PROBES, V]` of `probe_states`. Synchronises with the device.

    A linear head has ``logits(k x) - logits(0) = k (logits(x) - logits(0))``; 1% is allowed for rounding.
    """
    zero, one, *scaled = logits.double()
    for scale, measured in zip(SCALES, scaled, strict=True):
        expected = scale * (one - zero)
        if measured.isfinite().all() and (measured - zero - expected).norm() > 0.01 * expected.norm():
            return False
    return True


CHUNK = 4096
"""Number of rows of the head that are converted to float64 at a time."""


def row_sums(weight: Tensor) -> Tensor:
    """Number, sum of squared entries and sum of the rows of a head `[V, d]`, as `[2 + d]` float64 on the CPU.

    Rows of zeros are padding and left out. The sums of a head's shards can be added.
    """
    total = torch.zeros(2 + weight.shape[1], dtype=torch.float64)
    for start in range(0, len(weight), CHUNK):
        rows = weight[start : start + CHUNK].double()
        counts = torch.stack([(rows != 0).any(1).sum(), rows.square().sum()])
        total += torch.cat([counts, rows.sum(0)]).cpu()
    return total


def head_scale(sums: Tensor) -> float:
    """Mean of ``||w_v - mean w||^2`` over the rows w_v of a head, from its `row_sums`; 1 for a head of equal rows.

    Adding a token's centred row to the state changes the token's logit by about this much. A strength divided by it is
    therefore in nats for any model.
    """
    count, squares, total = float(sums[0]), float(sums[1]), sums[2:]
    if count == 0:
        return 1.0
    scale = squares / count - float((total / count).square().sum())
    return scale if scale > 1e-12 else 1.0
