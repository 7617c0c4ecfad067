"""Inverse transform sampling on rows of weights, in float64."""

import torch
from torch import Tensor


def locate(cumulative: Tensor, x: Tensor) -> Tensor:
    """`[R]` int64: the first token whose running sum in `cumulative` `[R, V]` is above `x` `[R]`.

    Where ``x`` reaches the sum of all, by rounding or because it should, it is taken for the number just below: tokens
    of weight 0 are never found.
    """
    highest = torch.nextafter(cumulative[:, -1], torch.zeros_like(x))
    found = torch.searchsorted(cumulative, torch.minimum(x, highest).unsqueeze(1), right=True)
    return found.squeeze(1).clamp_max(cumulative.shape[1] - 1)


def at(rows: Tensor, tokens: Tensor) -> Tensor:
    """``rows[r, tokens[r]]`` of `[R, V]` at `[R]`."""
    return rows.gather(1, tokens.unsqueeze(1)).squeeze(1)
