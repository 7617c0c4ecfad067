"""Inverse transform sampling on rows of weights, in float64."""

import torch
from torch import Tensor


def locate(cumulative: Tensor, x: Tensor) -> Tensor:
    """`[R]` int64: the first token whose cumulative weight in `cumulative` `[R, V]` is above `x` `[R]`.

    An `x` that reaches the total weight is replaced by the next smaller number, so that tokens of weight 0 are never
    returned.
    """
    highest = torch.nextafter(cumulative[:, -1], torch.zeros_like(x))
    token = torch.searchsorted(cumulative, torch.minimum(x, highest).unsqueeze(1), right=True)
    return token.squeeze(1).clamp_max(cumulative.shape[1] - 1)


def at(rows: Tensor, tokens: Tensor) -> Tensor:
    """``rows[r, tokens[r]]`` `[R]`, for `rows` `[R, V]` and `tokens` `[R]`."""
    return rows.gather(1, tokens.unsqueeze(1)).squeeze(1)
