"""`VLLMHead`: the LM head of a vLLM model as methods see it, sharded over tensor-parallel ranks or not."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

from esamp.engines.linearity import head_scale, is_linear, probe_states, row_sums
from esamp.errors import UnsupportedError


@dataclass(frozen=True)
class VLLMHead:
    """Implements `esamp.decoding.step.Head` with this rank's rows of the head's weight."""

    is_linear: bool
    weight: Tensor | None
    """`[V / ranks, d]`: this rank's rows of the head; None when the head is quantised"""
    first: int
    """the token whose row is the first of `weight`"""
    sharded: bool
    """whether other ranks have other rows"""
    scale: float = 1.0
    """see `esamp.methods.base.ModelShape.head_scale`"""

    @property
    def has_rows(self) -> bool:
        """Whether the weight can be read."""
        return self.weight is not None

    def rows(self, tokens: Tensor) -> Tensor:
        """Rows w_z of `tokens` `[R]`, as `[R, d]` float32; every rank gets all of them."""
        weight = self._readable_weight
        if not self.sharded:
            return nn.functional.embedding(tokens, weight).float()
        local = tokens.long() - self.first
        mine = (local >= 0) & (local < weight.shape[0])
        rows = nn.functional.embedding(local.clamp(0, weight.shape[0] - 1), weight).float()
        return tensor_model_parallel_all_reduce(rows * mine.unsqueeze(-1))

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        """``sum_v p_v w_v`` of `probabilities` `[R, V]`, as `[R, d]` float32; every rank gets the whole sum."""
        weight = self._readable_weight
        share = probabilities[:, self.first : self.first + weight.shape[0]].to(weight.dtype)
        return tensor_model_parallel_all_reduce((share @ weight[: share.shape[1]]).float())

    @property
    def _readable_weight(self) -> Tensor:
        if self.weight is None:
            raise UnsupportedError("the rows of this LM head cannot be read: it is quantised")
        return self.weight


@torch.inference_mode()
def find_head(model: Any, hidden_size: int, dtype: torch.dtype, device: torch.device) -> VLLMHead:
    """Read the head of a loaded model, and measure whether it is linear. Collective: all ranks must call it.

    Args:
        model: the model.
        hidden_size: d.
        dtype: of the states.
        device: of the states.
    """
    logits = model.compute_logits(probe_states(hidden_size, dtype, device))
    module = _head_module(model)
    weight = None
    if module is not None and isinstance(module.quant_method, UnquantizedEmbeddingMethod):
        weight = module.weight.detach()
        weight = weight if weight.shape[-1] == hidden_size else None
    scale = 1.0
    if weight is not None:
        sums = row_sums(weight).to(device, torch.float32)  # collectives on a CPU do not support float64
        scale = head_scale(tensor_model_parallel_all_reduce(sums).double().cpu())
    first = 0 if weight is None else get_tensor_model_parallel_rank() * weight.shape[0]
    sharded = get_tensor_model_parallel_world_size() > 1
    return VLLMHead(is_linear(logits), weight, first, sharded, scale)


def _head_module(model: nn.Module) -> Any:
    """The head's module: named ``lm_head`` in all of vLLM's models, or the embedding if the head is tied to it."""
    modules = {
        name.removesuffix(".base_layer"): module  # LoRA wraps modules that it can adapt
        for name, module in model.named_modules()
        if isinstance(module, VocabParallelEmbedding)
    }
    heads = [module for name, module in modules.items() if name.rpartition(".")[2] == "lm_head"]
    tied = [module for name, module in modules.items() if name.rpartition(".")[2] == "embed_tokens"]
    return (heads or tied or [None])[0]
