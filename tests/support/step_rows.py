"""Rows of a decode step, for tests without an engine."""

import torch

from esamp.decoding.step import Rows


def plain_rows(count: int, position: int = 1) -> Rows:
    """Samples 0, 1, ... of one group at one position, with seed 0, temperature 1, no end tokens and no token limit."""
    numbers = torch.arange(count)
    same = torch.full_like(numbers, position)
    none = torch.full((count, 1), -1)
    return Rows(numbers, torch.full_like(numbers, count), same, same + 10**9, same * 0, none, torch.ones(count))
