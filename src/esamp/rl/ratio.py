"""The importance weights of tokens that another distribution drew than the policy that is trained.

With pi_theta the policy that is trained, pi_old the same at the time of the rollout, and b the distribution that the
tokens were drawn from, the gradient needs the ratio pi_theta / b, which is split in two factors:

    pi_theta(y_t) / b(y_t) = [pi_theta(y_t) / pi_old(y_t)] * w_t,    w_t = pi_old(y_t) / b(y_t)

TRL's loss has the first factor and clips it to [1 - epsilon, 1 + epsilon]. The second one is a constant of the sample,
truncated to at most `cap`, so that a token that b hardly ever draws cannot dominate a batch.
"""

import torch
from torch import Tensor


def importance_weights(policy: Tensor, sampled: Tensor, mask: Tensor, cap: float) -> Tensor:
    """``min(exp(policy - sampled), cap)`` where `mask` is not 0, and 1 elsewhere.

    Args:
        policy: `[B, T]` log pi_old of each token, in nats.
        sampled: `[B, T]` log b of each token, in nats.
        mask: `[B, T]`: 0 at padding.
        cap: largest weight.

    Returns:
        `[B, T]` in the dtype of `policy`, without a gradient.
    """
    difference = (policy - sampled).detach().masked_fill(mask == 0, 0.0)
    return torch.exp(difference).clamp(max=cap)


def ratio_metrics(policy: Tensor, sampled: Tensor, mask: Tensor, cap: float) -> dict[str, float]:
    """What the weights of a batch are like: their mean, their extremes, the share that `cap` cut, and the divergence.

    The divergence is ``mean(sampled - policy)``, which estimates KL(b || pi_old) of a token in nats.
    """
    real = mask != 0
    if not bool(real.any()):  # every sample was cut off, and the trainer leaves those out
        return {}
    difference = (policy - sampled)[real].double()
    ratio = difference.exp()
    return {
        "sampling/importance_sampling_ratio/mean": ratio.clamp(max=cap).mean().item(),
        "sampling/importance_sampling_ratio/min": ratio.min().item(),
        "sampling/importance_sampling_ratio/max": ratio.max().item(),
        "sampling/importance_sampling_ratio/capped": (ratio > cap).double().mean().item(),
        "sampling/divergence": -difference.mean().item(),
    }
