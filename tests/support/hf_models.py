"""Small random models of many architectures, built from their configurations without a network."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCAB = 96
EOS, PAD = 1, 2

COMMON: dict[str, Any] = dict(
    vocab_size=VOCAB, hidden_size=64, bos_token_id=0, eos_token_id=EOS, pad_token_id=PAD, tie_word_embeddings=False
)
DECODER = COMMON | dict(
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=96,
    head_dim=16,
    max_position_embeddings=256,
    sliding_window=64,
)
MIXTURE = DECODER | dict(num_local_experts=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48)
MAMBA2 = dict(mamba_n_heads=4, mamba_d_head=32, mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=8, mamba_expand=2)

CONFIGS: Mapping[str, dict[str, Any]] = {
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "mistral": DECODER,
    "gemma2": DECODER | dict(final_logit_softcapping=1.5, query_pre_attn_scalar=16),
    "gemma3_text": DECODER | dict(query_pre_attn_scalar=16),
    "granite": DECODER | dict(logits_scaling=8.0, embedding_multiplier=12.0, residual_multiplier=0.22),
    "cohere": DECODER | dict(logit_scale=0.0625),
    "phi3": DECODER,
    "olmo2": DECODER,
    "gpt_neox": DECODER,
    "gpt2": COMMON | dict(n_embd=64, n_layer=3, n_head=4, n_positions=256),
    "mixtral": MIXTURE,
    "qwen3_moe": MIXTURE,
    "mamba": COMMON | dict(num_hidden_layers=3, state_size=8, conv_kernel=4, expand=2),
    "falcon_h1": DECODER | MAMBA2 | dict(lm_head_multiplier=0.5, mamba_d_ssm=128),
    "lfm2": DECODER | dict(full_attn_idxs=[1], layer_types=["conv", "full_attention", "conv"]),
    "bamba": DECODER | MAMBA2 | dict(attn_layer_indices=[1]),
}
"""Fields of the configuration of each architecture; architectures ignore fields that they do not have."""

ARCHITECTURES = tuple(CONFIGS)

AFTER_HEAD: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gemma2": lambda logits: 1.5 * torch.tanh(logits / 1.5),
    "granite": lambda logits: logits / 8,
    "cohere": lambda logits: logits * 0.0625,
    "falcon_h1": lambda logits: logits * 0.5,
}
"""What these models apply to the output of their LM head, by architecture; all others apply nothing."""


@cache
def small(architecture: str, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A random model of one architecture. Calls share one object, so tests must not change it."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(architecture, **(dict(CONFIGS[architecture]) | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():  # larger than a default initialisation, so that samples differ and layers matter
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "mixer" not in name and "mamba" not in name:
                parameter.mul_(4)
    return model


def small_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character, the first three of which are special."""
    vocabulary = {chr(32 + index): index for index in range(3, VOCAB)} | {"<s>": 0, "</s>": EOS, "<pad>": PAD}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="~"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="~", **special)


def count_hooks(model: nn.Module) -> int:
    """The number of forward hooks on a model, with those that transformers itself registers for hidden states."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
