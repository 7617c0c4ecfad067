"""The number types of intermediate results and of sums over many steps."""

import torch


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in beside tensors stored as `dtype`: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widest_type(device: torch.device | str) -> torch.dtype:
    """The type of sums over many steps: float64 where the device has it."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64
