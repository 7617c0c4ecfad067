"""A logits processor that replays given tokens in transformers."""

import torch
from torch import Tensor
from transformers import LogitsProcessor


class ForcedTokens(LogitsProcessor):
    """Forces the given tokens `[B, T]`, and records the scores `[B, V]` of each step."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens, self.scores = tokens, list[Tensor]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.tokens[:, len(self.scores), None]
        self.scores.append(scores)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
