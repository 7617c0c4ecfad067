"""`HFHead`: the LM head of a transformers model as methods use it, and `probe`, which measures a model and its head."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from esamp.engines.hf.hooks import ModelHooks, layer_stack, output_head
from esamp.engines.linearity import head_scale, is_linear, probe_states, row_sums
from esamp.errors import UnsupportedError
from esamp.methods.base import ModelShape

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class HFHead:
    """Implements `esamp.decoding.step.Head` with the weight of the head's module."""

    is_linear: bool
    weight: Tensor | None
    """`[V, d]` in a float dtype; None if it cannot be read"""
    obstacle: str = ""
    """why it cannot be read, see `ModelShape.head_obstacle`"""

    @property
    def has_rows(self) -> bool:
        """Whether the weight can be read."""
        return self.weight is not None

    def rows(self, tokens: Tensor) -> Tensor:
        """Rows w_z of `tokens` `[R]`, as `[R, d]` float32."""
        return nn.functional.embedding(tokens.to(self._readable_weight.device), self._readable_weight).float()

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        """``sum_v p_v w_v`` of `probabilities` `[R, V]`, as `[R, d]` float32."""
        weight = self._readable_weight
        return (probabilities.to(weight.device, weight.dtype) @ weight).float()

    @property
    def _readable_weight(self) -> Tensor:
        if self.weight is None:
            raise UnsupportedError(f"this needs the rows of the LM head, which {self.obstacle}")
        return self.weight


class _Probe:
    """A listener that makes the head project the states of `probe_states`."""

    def __init__(self) -> None:
        self.layer_sizes: dict[int, int] = {}
        self.final: Tensor | None = None
        self.linear = True
        self.vocabulary = 0

    def on_forward(self, inputs: dict[str, Any]) -> bool:
        return True

    def on_residual(self, layer: int, states: Tensor) -> None:
        self.layer_sizes[layer] = states.shape[-1]

    def on_head(self, states: Tensor) -> Tensor:
        self.final = states[:1, -1]
        return probe_states(states.shape[-1], states.dtype, states.device).unsqueeze(1)

    def on_logits(self, logits: Tensor) -> Tensor:
        self.linear = is_linear(logits[:, -1])
        self.vocabulary = logits.shape[-1]
        return logits[:1]

    def on_end(self) -> None: ...


def probe(model: PreTrainedModel, layers: tuple[int, ...]) -> tuple[ModelShape, HFHead]:
    """Measure a model's sizes and device, and whether its head is linear, with a forward pass of one token.

    Args:
        model: the model.
        layers: residual-stream depths whose sizes are measured.

    Raises:
        UnsupportedError: the model is not a decoder, or has no LM head or layers that can be hooked.
    """
    if model.config.is_encoder_decoder:
        raise UnsupportedError(
            f"{type(model).__name__} is an encoder-decoder: esamp needs a decoder-only model (AutoModelForCausalLM)"
        )
    listener = _Probe()
    place = "cpu" if model.device.type == "meta" else model.device  # offloaded weights are moved to the inputs' device
    hooks = ModelHooks(model, layers, listener)
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=place), use_cache=False, return_dict=True)
    finally:
        hooks.remove()
    if listener.final is None or set(listener.layer_sizes) != set(layers):
        raise UnsupportedError(f"{type(model).__name__} does not pass its states through its layers and its LM head")
    weight, obstacle = _find_weight(output_head(model), listener.final.shape[-1])
    shape = ModelShape(
        hidden_size=listener.final.shape[-1],
        layer_sizes=listener.layer_sizes,
        layers=len(layer_stack(model)),
        device=listener.final.device,
        head_obstacle=obstacle,
        vocabulary=listener.vocabulary,
        tied=_is_tied(model.get_input_embeddings(), output_head(model)),
        head_scale=1.0 if weight is None else head_scale(row_sums(weight)),
    )
    return shape, HFHead(listener.linear, weight, obstacle)


def _find_weight(head: nn.Module, size: int) -> tuple[Tensor | None, str]:
    """The weight `[V, size]` if it is an ordinary floating-point tensor; else None and the obstacle."""
    weight = dict(head.named_parameters(recurse=False)).get("weight")
    if weight is None and any(name.endswith("weight") for name, _ in head.named_parameters()):
        return None, "is wrapped by other layers, such as a LoRA adapter (merge it, or adapt other layers only)"
    if type(weight) not in (Tensor, nn.Parameter) or weight is None or weight.dtype not in DTYPES:
        return None, "this model keeps quantised"
    if weight.device.type == "meta":
        return None, "is offloaded: it is on no device between forward passes (keep lm_head on one in the device map)"
    if weight.shape[-1] != size:
        return None, "this model keeps packed or in shards"
    return weight.detach(), ""


def _is_tied(embedding: nn.Module, head: nn.Module) -> bool:
    """Whether the head is the embedding's own matrix."""
    own, other = (dict(module.named_parameters(recurse=False)).get("weight") for module in (embedding, head))
    return own is not None and own is other
