"""Scales a model's residual stream to the size usual for language models, without changing its logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import LlamaForCausalLM


@torch.no_grad()
def unit_residual_stream(model: LlamaForCausalLM, ids: Tensor) -> int:
    """Divide the residual stream by 2**k, so that its root mean square after the first layer is about 1; returns k.

    Every block of a Llama normalises its input. Dividing the embedding and all that is added to the stream by 2**k, and
    the norms' epsilon by 4**k, therefore leaves every logit bitwise the same: a power of two changes exponents only.
    Optimisers with little weight decay let the scale grow, and networks that read the stream without normalising it,
    such as the published Latent Distiller, do not train on a large scale.

    Args:
        model: with untied embeddings; changed in place.
        ids: typical text, `[rows, tokens]`.
    """
    stream = model(ids, output_hidden_states=True).hidden_states[1]
    exponent = round(math.log2(float(stream.float().square().mean().sqrt())))
    factor = 2.0**-exponent
    model.model.embed_tokens.weight.mul_(factor)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(factor)
        layer.mlp.down_proj.weight.mul_(factor)
        layer.input_layernorm.variance_epsilon *= factor**2
        layer.post_attention_layernorm.variance_epsilon *= factor**2
    model.model.norm.variance_epsilon *= factor**2
    model.config.rms_norm_eps *= factor**2
    return exponent
