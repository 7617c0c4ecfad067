"""A model shape for `esamp bench --shape` that decodes in milliseconds."""

from esamp.models.shapes import QWEN2

TINY_SHAPE = dict(
    QWEN2,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=256,
    max_position_embeddings=128,
    tie_word_embeddings=True,
)
"""Its heads have size 32, the smallest that vLLM's CPU kernel supports."""
