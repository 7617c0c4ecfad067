"""Measures of logits and log-probabilities: surprisal, entropy, divergence, and which rows can be sampled from."""

import torch
from torch import Tensor


def sound_rows(logits: Tensor) -> Tensor:
    """`[R]` bool: rows of `logits` `[R, V]` that can be sampled from: the largest is a finite number, and none is NaN.

    Minus infinity rules a token out.
    """
    return logits.amax(-1).abs() < torch.inf


def keeps_tokens(reference: Tensor, fused: Tensor) -> Tensor:
    """`[R]` bool: rows of `fused` `[R, V]` that rule out no more tokens than `reference` does, as overflow may."""
    return (~fused.isneginf() | reference.isneginf()).all(-1)


def surprisal(logp: Tensor, tokens: Tensor) -> Tensor:
    """``-log p(token)`` in nats `[...]` of `tokens` `[...]` int64, from log-probabilities `[..., V]`."""
    return -logp.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropy(logp: Tensor) -> Tensor:
    """``-sum_v p_v log p_v`` in nats `[...]`, from log-probabilities `[..., V]`; tokens at -inf add nothing."""
    terms: Tensor = torch.special.entr(logp.exp())
    return terms.sum(-1)


def divergence(fused: Tensor, reference: Tensor) -> Tensor:
    """KL(fused || reference) of each row `[R]` in nats, from logits `[R, V]`."""
    return kl_divergence(fused.float().log_softmax(-1), reference.float().log_softmax(-1))


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q) = sum_v p_v (log p_v - log q_v)`` `[R]` in nats, from log-probabilities `[R, V]`.

    Tokens with p = 0 add nothing; a token with q = 0 < p makes the row infinite.
    """
    return (log_p.exp() * torch.where(log_p.isneginf(), 0.0, log_p - log_q)).sum(-1)


def rescore_survivors(filtered: Tensor, change: Tensor, temperature: float | Tensor) -> Tensor:
    """The `reference` candidate rule: tokens that survived filtering on the reference get the fused score.

    `filtered` `[R, V]` are the reference logits after temperature and filters, minus infinity where a token was
    dropped; `change` `[R, V]` is ``fused - reference``, zero on rows that are not steered; `temperature` is a number or
    `[R, 1]`. Returns ``filtered + change / T`` on the survivors, so that penalties and biases among the processors keep
    their effect. The best token of the reference is the last that any filter drops, so it is always among them.
    """
    return torch.where(filtered.isneginf(), filtered, filtered + change.to(filtered.dtype) / temperature)
