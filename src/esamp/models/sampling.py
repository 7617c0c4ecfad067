"""Fast sampling at temperature 1 with a plain transformers model, to evaluate it with many samples of a prompt."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .cache import growing_cache


@torch.inference_mode()
def sample(model: PreTrainedModel, prompts: Tensor, max_length: int, generator: torch.Generator) -> list[list[int]]:
    """One sample per row of `prompts` (rows, prompt length; none padded), drawn from the full softmax.

    Returns the new token ids of each row, up to its end token or to `max_length` tokens with the prompt. Rows are
    removed from the batch when they end.
    """
    end = model.config.eos_token_id
    texts: list[list[int]] = [[] for _ in range(len(prompts))]
    rows = torch.arange(len(prompts))
    cache = growing_cache(model)
    tokens = prompts.to(model.device)
    for _ in range(max_length - prompts.shape[1]):
        logits = model(input_ids=tokens, past_key_values=cache, logits_to_keep=1).logits[:, -1]  # (rows, vocab)
        tokens = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)
        for row, token in zip(rows.tolist(), tokens[:, 0].tolist(), strict=True):
            texts[row].append(token)
        going = tokens[:, 0] != end
        if going.sum() <= 0.9 * len(rows):
            keep = going.nonzero()[:, 0]
            rows, tokens = rows[keep.cpu()], tokens[keep]
            assert cache is not None  # ours is a plain Llama
            cache.batch_select_indices(keep)
        if not len(rows):
            break
    return [text[: text.index(end) + 1] if end in text else text for text in texts]
