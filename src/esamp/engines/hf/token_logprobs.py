"""`TokenLogprobs`: log-probabilities of each sampled token. They stay on the device until a call has ended."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessor


class TokenLogprobs:
    """Records log p of every sampled token under two distributions, for one generate call.

    ``log p(token) = z[token] - logsumexp(z)`` in nats, in float32, with z once the scores that the token is drawn from
    and once the model's own logits. `own` must run before all other processors and `drawn` after those that change the
    distribution; neither changes any score. With greedy decoding the token is certain, and its log-probability is 0.
    """

    def __init__(self, reference: Callable[[], Tensor | None] = lambda: None) -> None:
        """Record one call.

        Args:
            reference: returns the model's own logits `[B, V]` of the step if a method replaced those that the
                processors get, or None if nothing replaced them.
        """
        self.greedy = False
        """whether the call takes the best token of each step"""
        self.own = _Reader(self._read_own)
        self.drawn = _Reader(self._read_drawn)
        self._reference = reference
        self._scores: dict[str, Tensor] = {}
        self._steps: list[Tensor] = []

    def record(self, tokens: Tensor) -> None:
        """Read the log-probabilities of the tokens `[B]` that this step sampled."""
        own, drawn = self._scores.pop("own"), self._scores.pop("drawn")
        sampled = torch.zeros_like(drawn[:, 0]) if self.greedy else token_logprobs(drawn, tokens)
        self._steps.append(torch.stack([sampled, token_logprobs(own, tokens).to(sampled.device)]))

    def table(self) -> Tensor:
        """`[2, B, T]` float32 on the CPU: under the sampling distribution, then under the model's own.

        Tokens after a row's end have no meaning. Waits for the device.
        """
        return torch.stack(self._steps, dim=2).cpu() if self._steps else torch.empty(2, 0, 0)

    def _read_own(self, scores: Tensor) -> None:
        reference = self._reference()
        self._scores["own"] = scores.clone() if reference is None else reference.float()  # a later one may write on it

    def _read_drawn(self, scores: Tensor) -> None:
        self._scores["drawn"] = scores.float()


class _Reader(LogitsProcessor):
    """Passes the scores on unchanged, and shows them to a function."""

    def __init__(self, read: Callable[[Tensor], None]) -> None:
        self._read = read

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._read(scores)
        return scores


def token_logprobs(scores: Tensor, tokens: Tensor) -> Tensor:
    """``scores[token] - logsumexp(scores)`` `[B]` in nats, of `tokens` `[B]` int64 under `scores` `[B, V]`."""
    chosen = scores.gather(1, tokens.to(scores.device).unsqueeze(1)).squeeze(1)
    return chosen - scores.logsumexp(1)
