"""Fusion: the one place where a prediction becomes a change of the next-token distribution.

Notation: hL the final hidden state, W the LM head, delta the change of hL that the signals ask for::

    delta = beta e - gain a        e = c (hL - y)        a the predicted action

For a linear head ``W (hL + delta)`` is all there is to it, and for the state signal it equals the paper's
``(1 + beta) W hL - beta W y`` with y replaced by ``hL - e``. A head with a soft cap is not linear, so there both logits
are formed by the head itself and mixed::

    logits = (1 + s) head(hL) - s head(hL - delta / s)       s = beta, at least 1 with the action signal

Subtraction alone, the paper's ablation of this formula, is ``head(hL) - s head(y)``, with delta = -s y.
"""

import torch
from torch import Tensor

from esamp.decoding.logits import entropy

BISECTIONS = 14
"""Halvings of the interval in which `limited_logits` looks for a row's strength: it is known to one in ten thousand."""
NEWTON_STEPS = 10
"""Steps of Newton's method in `softened_logits`; entropies agree within a thousandth of a nat."""


def mixed_states(final: Tensor, delta: Tensor, steered: Tensor) -> Tensor:
    """``hL + delta`` on the rows in `steered` `[R]` bool, in the dtype of `final` `[R, d]`; others keep their bits."""
    return torch.where(steered.unsqueeze(-1), (final.to(delta.dtype) + delta).to(final.dtype), final)


def tilted_states(final: Tensor, signal: Tensor, strength: Tensor | None, beta: float) -> Tensor:
    """``hL + beta c s`` `[..., d]` in the dtype of `final`, for the signal s `[..., d]` and c `[..., 1]` (None: 1)."""
    if strength is None:
        tilted = torch.add(final, signal, alpha=beta)
    else:
        tilted = torch.addcmul(final, signal, strength, value=beta)
    return tilted if tilted.dtype == final.dtype else tilted.to(final.dtype)


def counter_states(final: Tensor, delta: Tensor, steered: Tensor, strength: float) -> Tensor:
    """``hL - delta / s``: the states whose logits are subtracted when the head is not linear."""
    return mixed_states(final, -delta / strength, steered)


def mixed_logits(reference: Tensor, counter: Tensor, strength: float) -> Tensor:
    """``(1 + s) reference - s counter`` in float32, both `[R, V]`; tokens that the head rules out stay so."""
    reference = reference.float()
    fused = torch.lerp(counter.float(), reference, 1 + strength)
    return torch.where(reference.isneginf(), reference, fused)


def subtracted_logits(reference: Tensor, counter: Tensor, strength: float) -> Tensor:
    """``reference - s counter`` in float32, both `[R, V]`; tokens that the head rules out stay so."""
    reference = reference.float()
    fused = reference - strength * counter.float()
    return torch.where(reference.isneginf(), reference, fused)


def capped_logits(reference: Tensor, fused: Tensor, cap: float) -> Tensor:
    """``reference + cap tanh((change - mean change) / cap)`` in float32, with change ``fused - reference`` `[R, V]`.

    The mean is over the tokens that the head does not rule out; those it does keep minus infinity. No logit moves by
    more than `cap` nats relative to the mean, and small changes stay as they are.
    """
    change = torch.sub(fused.float(), reference).nan_to_num_(0.0, 0.0, 0.0)
    mean = change.sum(-1, keepdim=True) / (reference > -torch.inf).sum(-1, keepdim=True)
    return torch.add(reference, change.sub_(mean).mul_(1 / cap).tanh_(), alpha=cap)


def limited_logits(reference: Tensor, fused: Tensor, budget: float) -> Tensor:
    """``reference + t (fused - reference)`` in float32, t in [0, 1] the largest with KL(new || reference) <= `budget`.

    Both are `[R, V]`; `budget` is in nats. KL grows with t, so t is found by bisection, to `BISECTIONS` binary digits
    and from below: ``KL(t) = t E_t[change] - log E_0[exp(t change)]``, E_t being the mean under the new distribution.
    """
    reference = reference.float()
    log_old = reference.log_softmax(-1)
    change = (fused.float() - reference).masked_fill(reference.isneginf(), 0.0)

    def kl(strength: Tensor) -> Tensor:
        new = log_old + strength.unsqueeze(-1) * change
        log_total = new.logsumexp(-1)
        mean_change = ((new - log_total.unsqueeze(-1)).exp() * change).sum(-1)
        return strength * mean_change - log_total

    low, high = torch.zeros_like(reference[:, 0]), torch.ones_like(reference[:, 0])
    low = torch.where(kl(high) <= budget, high, low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        within = kl(middle) <= budget
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    return reference + low.unsqueeze(-1) * change


def softened_logits(reference: Tensor, fused: Tensor) -> Tensor:
    """``max + t (fused - max)`` in float32, t in [0, 1] the largest with which a row has the entropy of `reference`.

    Both are `[R, V]`; rows of `fused` that have as much entropy already stay as they are (t = 1). A tilt toward
    what is new also sharpens a distribution; this takes the sharpening back and keeps the order of the tokens. Entropy
    falls with t, ``H(t) = log Z(t) - t E_t[fused]`` and ``H'(t) = -t Var_t[fused]`` under ``softmax(t fused)`` with the
    normaliser Z, so t is found by Newton's method within a bracket.
    """
    reference, fused = reference.float(), fused.float()
    log_old, ruled_out = reference.log_softmax(-1), fused.isneginf()
    wanted, absent = entropy(log_old), ruled_out.sum(-1)
    top = fused.amax(-1, keepdim=True)
    height = (fused - top).masked_fill(ruled_out, 0.0)  # ruled out tokens add 1 to a sum of weights, 0 to the others

    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    sharpness = high
    for _ in range(NEWTON_STEPS):
        weights = (sharpness.unsqueeze(-1) * height).exp_()
        total = weights.sum(-1) - absent
        mean = weights.mul_(height).sum(-1) / total
        variance = weights.mul_(height).sum(-1) / total - mean.square()
        surplus = total.log() - sharpness * mean - wanted
        low, high = torch.where(surplus >= 0, sharpness, low), torch.where(surplus >= 0, high, sharpness)
        newton = sharpness * (surplus / (sharpness.square() * variance).clamp_min(1e-12)).clamp(-2, 2).exp()
        inside = ((newton > low) & (newton < high)) | ((newton - sharpness).abs() < 1e-5 * sharpness)
        middle = torch.where(low > 0, (low * high).sqrt(), high / 2)
        sharpness = torch.where(inside, newton, middle).clamp_max(1.0)
    return top + (sharpness.unsqueeze(-1) * height).masked_fill(ruled_out, float("-inf"))


def kept_ends(reference: Tensor, fused: Tensor, stops: Tensor) -> Tensor:
    """`fused` in float32 with the probability that `reference` gives to the tokens `stops`, both `[R, V]`.

    `stops` is `[R, k]` int64, filled up with -1. Their logits are those of the reference, and the other tokens keep
    their proportions under `fused`::

        p(stop) = p_ref(stop)        p(z) = (1 - p_ref(stops)) p_fused(z) / (1 - p_fused(stops))
    """
    log_old, log_new = reference.float(), fused.float()
    place = stops.clamp_min(0).to(log_old.device)
    is_stop = torch.zeros_like(log_old).scatter_add(1, place, (stops >= 0).to(log_old)) > 0
    others_old = log_old.masked_fill(is_stop, float("-inf")).logsumexp(-1, keepdim=True)
    others_new = log_new.masked_fill(is_stop, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.where(is_stop, log_old, log_new - others_new + others_old)
