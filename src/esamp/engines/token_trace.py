"""`TokenTrace`: what was measured at each token of a sample. Imports torch for type checking only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenTrace:
    """Measurements of each generated token of one sample, each `[tokens]` float32 on the CPU.

    NaN where a value was not measured: most methods do not act on a sample's first token, which comes from prefill, and
    a method without a steering error has surprisal and entropy alone. None: this engine does not measure the value. A
    token's values are those of the step that sampled it, before the model has read the token.
    """

    novelty: Tensor
    """``||e||``, the norm of the steering error, after the gate"""
    kl: Tensor
    """``KL(steered || reference)`` in nats"""
    surprisal: Tensor
    """``-log p(token)`` under the reference distribution, in nats"""
    pieces: tuple[str, ...]
    """the text that each token adds; joined, they are the sample's text before stop texts are cut off"""
    residual: Tensor | None = None
    """``||hL - y||``, the norm of the distiller's prediction error, before the gate"""
    entropy: Tensor | None = None
    """``-sum_v p_v log p_v`` of the reference distribution, in nats"""
    cosine: Tensor | None = None
    """``cos(e, w)`` with w the LM-head row of the token. The gate scales e and does not change the cosine, but a closed
    gate makes e zero and this NaN. For `esamp_noise`, this and novelty measure the error that the noise replaces"""
    explained: Tensor | None = None
    """``1 - ||hL - y||^2 / ||hL - running mean||^2``; the explained variance in telemetry is one minus the ratio of the
    sums. NaN in a group's first step, which has no mean yet"""
