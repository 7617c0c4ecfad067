"""Shapes of well-known models, to measure speed without their weights: random weights run the same kernels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from esamp.errors import OptionError

QWEN2: Mapping[str, Any] = dict(
    architectures=["Qwen2ForCausalLM"],
    model_type="qwen2",
    hidden_act="silu",
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    dtype="bfloat16",
)
LLAMA: Mapping[str, Any] = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    hidden_act="silu",
    rms_norm_eps=1e-5,
    dtype="bfloat16",
)
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama-125m": dict(
        LLAMA,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=50304,
        max_position_embeddings=2048,
        rope_theta=1e4,
        tie_word_embeddings=True,
    ),
    "qwen2.5-0.5b": dict(
        QWEN2,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151936,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
    "qwen2.5-7b": dict(
        QWEN2,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
    ),
    "llama-3.1-8b": dict(
        LLAMA,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
        rope_theta=5e5,
        rope_scaling=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
        tie_word_embeddings=False,
    ),
}
"""Contents of ``config.json`` by name. llama-125m has the size of GPT-2; the others are those of published models."""


def write_shape(name: str, folder: Path) -> Path:
    """Write the ``config.json`` of a shape into `folder`, and return the folder.

    Raises:
        OptionError: there is no such shape.
    """
    if name not in SHAPES:
        raise OptionError(f"unknown shape {name!r}: choose from {', '.join(SHAPES)}")
    (folder / "config.json").write_text(json.dumps(SHAPES[name], indent=1), encoding="utf-8")
    return folder
