"""`Change`: logits of a method that replace the model's own, and how samplers apply them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.logits import rescore_survivors

GREEDY = 1e-5
"""Below this temperature vLLM takes the most likely token."""

Project = Callable[[Sequence[tuple[Tensor, Tensor]]], Sequence[Tensor]]
"""Logits `[r, V]` for each pair of rows `[r]` of the batch and states `[r, d]` that replace theirs."""


@dataclass(frozen=True)
class Change:
    """Logits of a method that replace the model's own."""

    rows: Tensor
    """`[r]` int64: positions in the batch"""
    logits: Tensor
    """`[r, V]`"""
    rescore: Tensor | None = None
    """`[r, V]`, see `esamp.decoding.step.Combined`"""
    late: Callable[[Tensor], Tensor] | None = None
    """see `esamp.decoding.step.Combined`"""
    all_rows: bool = False
    """whether `rows` are all rows of the batch, in order"""

    @property
    def acts_after_filters(self) -> bool:
        """Whether the logits change once more after the filters."""
        return self.rescore is not None or self.late is not None


def project(
    compute_logits: Callable[[Tensor], Tensor],
    batch: Tensor,
    states: Sequence[tuple[Tensor, Tensor]],
    *,
    in_place: bool,
) -> Sequence[Tensor]:
    """`Project` with vLLM's own LM head.

    Args:
        compute_logits: the model's method, `[R, d]` to `[R, V]`.
        batch: `[R, d]`: the batch's final hidden states.
        states: rows and states as in `Project`.
        in_place: whether each state must be projected at its row of a full batch; LoRA needs this, as it finds a row's
            adapter by the row's position.
    """
    if not in_place:
        joined = states[0][1] if len(states) == 1 else torch.cat([state for _, state in states])
        return compute_logits(joined.to(batch.dtype)).split([len(rows) for rows, _ in states])
    full = [batch.index_copy(0, rows, state.to(batch.dtype)) for rows, state in states]
    return [compute_logits(replaced).index_select(0, rows) for replaced, (rows, _) in zip(full, states, strict=True)]


def apply_changes(logits: Tensor, changes: Sequence[Change], *, restricted: bool) -> Tensor:
    """`logits` `[R, V]` with the rows of `changes` replaced.

    If they are `restricted` by a grammar, tokens that it has ruled out (minus infinity) stay ruled out.
    """
    for change in changes:
        new = change.logits.to(logits.dtype)
        if restricted:
            old = logits if change.all_rows else logits.index_select(0, change.rows)
            new = new.masked_fill(old.isneginf(), float("-inf"))
        logits = new if change.all_rows else logits.index_copy(0, change.rows, new)
    return logits


def apply_after_filters(logits: Tensor, changes: Sequence[Change], temperature: Tensor) -> Tensor:
    """The logits that tokens are drawn from: rescored, and passed through the methods' `Combined.late`.

    Args:
        logits: `[R, V]`: filtered, and divided by the temperature.
        changes: of this step.
        temperature: `[R]`; 0 where decoding is greedy.
    """
    for change in changes:
        if change.rescore is not None:
            kept = logits.index_select(0, change.rows)
            divisor = temperature.index_select(0, change.rows)
            divisor = torch.where(divisor < GREEDY, 1.0, divisor).unsqueeze(1)
            logits = logits.index_copy(0, change.rows, rescore_survivors(kept, change.rescore, divisor))
        if change.late is not None:
            last = change.late(logits.index_select(0, change.rows).float())
            logits = logits.index_copy(0, change.rows, last.to(logits.dtype))
    return logits
