"""`Adam`: the optimiser of the small networks that learn during decoding, written out for stacked weights."""

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999
"""Decay rates of the first and the second moment, PyTorch's defaults."""


class Adam:
    """Adam with bias correction (Kingma & Ba 2015), epsilon outside the root, for N weight vectors at once.

    Autograd and `torch.optim` do not run under ``inference_mode`` or inside CUDA graphs, where decode steps do. With
    the corrections ``r = 1 - beta^t`` of step t, the update ``lr (m / r1) / (sqrt(v / r2) + eps)`` is computed as
    ``(lr / eps) m / (r1 + sqrt(v) r1 / sqrt(r2) / eps)``. Its divisor is infinite in vectors that take no step, so
    that the step needs neither a copy of the weights nor a mask over them.
    """

    def __init__(self, lr: float, eps: float, dtype: torch.dtype, device: torch.device | str) -> None:
        """`dtype` is the type to compute in: that of the gradients and of the decay."""
        self.lr, self.eps = lr, eps
        self._share = torch.tensor([1 - BETA1, 1 - BETA2], dtype=dtype).to(device)
        """the weight of a new gradient in the two moments"""

    @property
    def first_decay(self) -> Tensor:
        """``beta1^t, beta2^t`` `[2]` of the first step, t = 1."""
        return 1 - self._share

    def decay(self, steps: Tensor) -> Tensor:
        """``beta1^t, beta2^t`` `[..., 2]` of the step after `steps` `[...]` earlier ones, a tensor of the own dtype."""
        return self.first_decay ** (steps + 1).unsqueeze(-1)

    def step(
        self, weights: Tensor, first: Tensor, second: Tensor, decay: Tensor, gradient: Tensor, due: Tensor
    ) -> None:
        """Take one step in place, in the vectors that are `due`; the others keep their bits.

        Args:
            weights: `[N, P]`.
            first: `[N, P]`, the first moment m.
            second: `[N, P]`, the second moment v.
            decay: `[N, 2]`, ``beta1^t, beta2^t`` of this step; holds those of the next step afterwards.
            gradient: `[N, P]`, finite in vectors that are not due; overwritten.
            due: `[N]` bool.
        """
        taking = due.to(self._share.dtype).unsqueeze(1)
        share = taking * self._share
        first.lerp_(gradient, share[:, :1])
        second.lerp_(gradient.square_(), share[:, 1:])
        correction = 1 - decay
        decay.addcmul_(decay, share, value=-1)
        root = torch.sqrt(second, out=gradient)
        slope = correction[:, :1] * correction[:, 1:].rsqrt()
        divisor = torch.addcmul(correction[:, :1] / taking, root, slope, value=1 / self.eps, out=gradient)
        weights.addcdiv_(first, divisor, value=-self.lr / self.eps)
