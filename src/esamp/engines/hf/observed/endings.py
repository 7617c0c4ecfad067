"""`Endings`: which rows of a generate call have ended, inferred from the tokens that the model is given."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.logits import surprisal

MAX_SURPRISAL = 12.0
"""Nats. Rows whose input is one and the same token until the end of a call count as ended if, over all of them, the
model gave these repetitions a probability below exp(-12), one in 160,000."""


class EndingsWarning(UserWarning):
    """The tokens of a ``model.generate`` call contradict the end and padding tokens that `explore` assumes."""


@dataclass(frozen=True)
class Seen:
    """The state of the rows after one step's tokens."""

    learnable: Tensor
    """`[B]` bool: rows whose token was certainly sampled by the model"""
    live: Tensor
    """`[B]` bool: rows that have not ended"""


class Endings:
    """Follows the rows of one call. A row's input is its last token once, and the padding token from then on.

    Where padding and end of sequence are one token, a row with this input may have sampled it or may have been ended by
    a stopping criterion, so nothing is learned from that token. Contradictions to the known tokens are counted on the
    device; `report` reads them when the call is over, and warns.
    """

    def __init__(self, placed: Tensor, stops: Sequence[int], pad: int | None) -> None:
        """Start with all rows that have a slot.

        Args:
            placed: `[B]` bool: rows that have a slot.
            stops: known end-of-sequence tokens.
            pad: the known padding token; without one, ``generate`` pads with the first of `stops`.
        """
        device = placed.device
        self._stops = torch.tensor(list(stops), dtype=torch.long, device=device)
        self._padding = pad if pad is not None else stops[0] if stops else None
        self._known = frozenset(stops) | ({self._padding} if self._padding is not None else set())
        self._placed, self._live = placed, placed
        self._ended = torch.zeros_like(placed)  # rows that have sampled one of `stops`
        # rows whose latest input was padding; rows that have ended
        self._over = torch.zeros(2, len(placed), dtype=torch.bool, device=device)
        self._last = torch.full_like(placed, -1, dtype=torch.long)  # each row's latest input
        self._surprisal = torch.zeros(len(placed), device=device)  # of the repetitions of `_last`, in nats
        self._contradicted = torch.zeros_like(self._over)  # rows that went on after padding; after an end

    def see(self, tokens: Tensor, logits: Tensor | None) -> Seen:
        """Update the rows by the model's new input.

        Args:
            tokens: `[B]`: the newest token of each row.
            logits: `[B, V]` that these tokens were sampled from, if they were; None for the first token of a sample.
        """
        is_stop, is_pad = torch.isin(tokens, self._stops), self._is_padding(tokens)
        went_on = self._over > (is_stop | is_pad)  # on booleans, a > b is a and not b
        self._contradicted |= went_on
        self._ended = (self._ended > went_on[1]) | is_stop
        learnable = self._live > is_pad  # padding may be sampled, or follow a row's end
        self._live = self._placed > (is_pad | self._ended)
        self._over = torch.stack([is_pad > self._ended, self._ended])
        if logits is not None:
            repeated = self._surprisal + _surprisal(logits, tokens)
            self._surprisal = repeated.masked_fill(tokens != self._last, 0.0)
        self._last = tokens
        return Seen(learnable, self._live)

    def report(self) -> None:
        """Warn of contradictions between the call's tokens and the known ones. Waits for the device."""
        after_padding, after_end = self._contradicted.any(1).tolist()
        if after_end:
            _warn(
                "rows went on behind a token that explore() takes for the end of a sequence",
                "If this call ends its samples by other tokens, name them: explore(eos_token_id=...)",
            )
        if after_padding:
            _warn(
                f"rows went on behind token {self._padding}, which explore() takes for padding: where it was sampled, "
                "its row was not steered for a step",
                "If this call pads with another token, name it: explore(pad_token_id=...)",
            )
        surprisal: dict[int, float] = {}
        for token, nats, live in zip(self._last.tolist(), self._surprisal.tolist(), self._live.tolist(), strict=True):
            if live and token not in self._known:
                surprisal[token] = surprisal.get(token, 0.0) + nats
        repeated = [token for token, nats in surprisal.items() if nats > MAX_SURPRISAL]
        if repeated:
            _warn(
                f"some rows had nothing but token {min(repeated)} as their input to the end of the call, as ended rows "
                "have, but explore() took them for running, steered them and learned from them",
                "If this token ends or pads the samples of this call, name it: explore(eos_token_id=..., "
                "pad_token_id=...)",
            )

    def _is_padding(self, tokens: Tensor) -> Tensor:
        if self._padding is None:
            return torch.zeros_like(self._placed)
        return tokens == self._padding


def _surprisal(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p of `tokens` `[B]` in nats; 0 for the most probable token, which greedy decoding always takes."""
    logp = logits.float().log_softmax(-1)
    nats = surprisal(logp, tokens)
    return nats * (-nats < logp.amax(-1))


def _warn(what: str, remedy: str) -> None:
    warnings.warn(
        f"model.generate: {what}. {remedy}, or call run.generate(...), which takes the same "
        "arguments and knows which rows have ended.",
        EndingsWarning,
        stacklevel=4,
    )
