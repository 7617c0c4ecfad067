"""Which rows of a generate call have ended, as far as the tokens tell that the model is fed."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SURPRISE = 12.0
"""nats: rows that are fed one token again and again to the end of a call are taken for rows that have ended if, over
all of them, the model gave these repetitions a probability below exp(-12), one in 160,000"""


class EndingsWarning(UserWarning):
    """The tokens of a ``model.generate`` call contradict what `explore` knows of its end and padding tokens."""


@dataclass(frozen=True)
class Seen:
    """What one step's tokens tell."""

    learnable: Tensor
    """`[B]` bool: rows whose token was certainly sampled by the model"""
    live: Tensor
    """`[B]` bool: rows that go on"""


class Endings:
    """Follows the rows of one call. ``generate`` feeds a row its last token, and the padding ever after.

    Where padding and end of sequence are one token, a row that is fed it may have sampled it or may have been ended by
    a stopping criterion, so nothing is learned from that token. What contradicts the known tokens is counted on the
    device, and read and warned of by `report`, when the call is over.
    """

    def __init__(self, placed: Tensor, stops: Sequence[int], pad: int | None) -> None:
        """For a call with the rows `placed` `[B]` bool.

        Args:
            placed: rows that have a slot.
            stops: known end-of-sequence tokens.
            pad: the known padding token; without one, ``generate`` pads with the first of `stops`.
        """
        device = placed.device
        self._stops = torch.tensor(list(stops), dtype=torch.long, device=device)
        self._padding = pad if pad is not None else stops[0] if stops else None
        self._known = frozenset(stops) | ({self._padding} if self._padding is not None else set())
        self._placed, self._live = placed, placed
        self._ended = torch.zeros_like(placed)  # rows that have sampled one of `stops`
        self._over = torch.zeros(
            2, len(placed), dtype=torch.bool, device=device
        )  # rows fed the padding last; ended rows
        self._last = torch.full_like(placed, -1, dtype=torch.long)
        self._surprise = torch.zeros(len(placed), device=device)  # -log p of the repetitions of `_last`, in nats
        self._contradicted = torch.zeros_like(self._over)  # rows that went on behind padding, behind an end

    def see(self, tokens: Tensor, logits: Tensor | None) -> Seen:
        """The model is fed `tokens` `[B]`, each row's newest.

        `logits` `[B, V]` are those that the tokens were to be sampled from; None for the first token of a sample.
        """
        is_stop, is_pad = torch.isin(tokens, self._stops), self._is_padding(tokens)
        went_on = self._over > (is_stop | is_pad)  # on booleans, a > b is a and not b
        self._contradicted |= went_on
        self._ended = (self._ended > went_on[1]) | is_stop
        learnable = self._live > is_pad  # padding may be sampled, or fed to a row that has ended
        self._live = self._placed > (is_pad | self._ended)
        self._over = torch.stack([is_pad > self._ended, self._ended])
        if logits is not None:
            again = self._surprise + _surprise(logits, tokens)
            self._surprise = again.masked_fill(tokens != self._last, 0.0)
        self._last = tokens
        return Seen(learnable, self._live)

    def report(self) -> None:
        """Warn of what the call's tokens contradict. Waits for the device."""
        behind_padding, behind_end = self._contradicted.any(1).tolist()
        if behind_end:
            _warn(
                "rows went on behind a token that explore() takes for the end of a sequence",
                "If this call ends its samples by other tokens, name them: explore(eos_token_id=...)",
            )
        if behind_padding:
            _warn(
                f"rows went on behind token {self._padding}, which explore() takes for padding: where it was a word, "
                "its row was not steered for a step",
                "If this call pads with another token, name it: explore(pad_token_id=...)",
            )
        surprise: dict[int, float] = {}
        for token, row, live in zip(self._last.tolist(), self._surprise.tolist(), self._live.tolist(), strict=True):
            if live and token not in self._known:
                surprise[token] = surprise.get(token, 0.0) + row
        stuck = [token for token, nats in surprise.items() if nats > SURPRISE]
        if stuck:
            _warn(
                f"rows were fed nothing but token {min(stuck)} to the end of the call, as ended rows are, but "
                "explore() took them for running, steered them and learned from them",
                "If this token ends or pads the samples of this call, name it: explore(eos_token_id=..., "
                "pad_token_id=...)",
            )

    def _is_padding(self, tokens: Tensor) -> Tensor:
        if self._padding is None:
            return torch.zeros_like(self._placed)
        return tokens == self._padding


def _surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p of `tokens` `[B]` in nats; 0 for the most probable token, which greedy decoding takes at any odds."""
    logits = logits.float()
    chosen = logits.gather(1, tokens.unsqueeze(1)).squeeze(1)
    return (logits.logsumexp(-1) - chosen) * (chosen < logits.amax(-1))


def _warn(what: str, remedy: str) -> None:
    warnings.warn(
        f"model.generate: {what}. {remedy}, or call run.generate(...), which takes the same "
        "arguments and knows which rows have ended.",
        EndingsWarning,
        stacklevel=4,
    )
