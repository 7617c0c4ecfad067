"""Small random models that vLLM loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from support.hf_models import small, small_tokenizer

SHAPE: dict[str, Any] = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=32)
"""vLLM's attention on a CPU needs a head size that is a multiple of 32."""
CHANGES: dict[str, dict[str, Any]] = {
    "llama": dict(sliding_window=None),  # vLLM applies the window, transformers does not
    # vLLM ties these models' embeddings whatever the configuration says.
    "gemma2": dict(tie_word_embeddings=True, attn_logit_softcapping=0.5, attn_implementation="eager"),
    "cohere": dict(tie_word_embeddings=True),
}
"""What the configurations of single architectures change."""


def build(architecture: str) -> PreTrainedModel:
    """A random model of one architecture. Calls share one object, so tests must not change it."""
    return small(architecture, **SHAPE, **CHANGES.get(architecture, {}))


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Write the model, with a tokenizer of one token per character, as a folder that vLLM loads."""
    model.save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def own_logits(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """The model's own logits `[P + T, V]` after every token of the prompt and of the generated text."""
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0].double()
