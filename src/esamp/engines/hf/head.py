"""The LM head of a transformers model, as methods see it, and what one forward pass tells about the model."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from esamp.engines.hf.taps import Taps, layer_stack, output_head
from esamp.engines.linearity import head_scale, is_linear, probe_states, row_sums
from esamp.errors import UnsupportedError
from esamp.methods.base import ModelShape

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class HFHead:
    """Implements `esamp.step.Head` by the head module's weight."""

    is_linear: bool
    weight: Tensor | None
    """`[V, d]` in a float dtype; None when the head is quantised"""

    @property
    def has_rows(self) -> bool:
        """Whether the weight can be read."""
        return self.weight is not None

    def rows(self, tokens: Tensor) -> Tensor:
        """w_z of `tokens` `[R]`, as `[R, d]` float32."""
        return nn.functional.embedding(tokens.to(self._readable.device), self._readable).float()

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        """sum_v p_v w_v of `probabilities` `[R, V]`, as `[R, d]` float32."""
        weight = self._readable
        return (probabilities.to(weight.device, weight.dtype) @ weight).float()

    @property
    def _readable(self) -> Tensor:
        if self.weight is None:
            raise UnsupportedError("the rows of this LM head cannot be read: it is quantised")
        return self.weight


class _Probe:
    """A listener that sends the states of `probe_states` through the head."""

    def __init__(self) -> None:
        self.hidden: dict[int, int] = {}
        self.deep: Tensor | None = None
        self.linear = True
        self.vocabulary = 0

    def on_forward(self, inputs: dict[str, Any]) -> bool:
        return True

    def on_hidden(self, layer: int, states: Tensor) -> None:
        self.hidden[layer] = states.shape[-1]

    def on_head(self, states: Tensor) -> Tensor:
        self.deep = states[:1, -1]
        return probe_states(states.shape[-1], states.dtype, states.device).unsqueeze(1)

    def on_logits(self, logits: Tensor) -> Tensor:
        self.linear = is_linear(logits[:, -1])
        self.vocabulary = logits.shape[-1]
        return logits[:1]


def probe(model: PreTrainedModel, layers: tuple[int, ...]) -> tuple[ModelShape, HFHead]:
    """Run one token through `model` to learn its sizes, its device, and whether its head is linear.

    Measuring linearity (does scaling the state scale the logits?) needs no list of architectures with a soft cap.

    Raises:
        UnsupportedError: the model is no decoder that we can read.
    """
    if model.config.is_encoder_decoder:
        raise UnsupportedError(
            f"{type(model).__name__} is an encoder-decoder: esamp needs a decoder-only model (AutoModelForCausalLM)"
        )
    listener = _Probe()
    taps = Taps(model, layers, listener)
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False, return_dict=True)
    finally:
        taps.remove()
    if listener.deep is None or set(listener.hidden) != set(layers):
        raise UnsupportedError(f"{type(model).__name__} does not pass its states through its layers and its LM head")
    weight = _readable_weight(output_head(model), listener.deep.shape[-1])
    shape = ModelShape(
        hidden_size=listener.deep.shape[-1],
        layer_sizes=listener.hidden,
        layers=len(layer_stack(model)),
        device=listener.deep.device,
        head_rows=weight is not None,
        vocabulary=listener.vocabulary,
        tied=_is_tied(model.get_input_embeddings(), output_head(model)),
        head_scale=1.0 if weight is None else head_scale(row_sums(weight)),
    )
    return shape, HFHead(listener.linear, weight)


def _readable_weight(head: nn.Module, size: int) -> Tensor | None:
    """The weight `[V, size]` if it is an ordinary tensor of numbers: not packed, scaled, sharded or adapted."""
    weight = dict(head.named_parameters(recurse=False)).get("weight")
    plain = type(weight) in (Tensor, nn.Parameter) and weight is not None and weight.dtype in DTYPES
    return weight.detach() if plain and weight is not None and weight.shape[-1] == size else None


def _is_tied(embedding: nn.Module, head: nn.Module) -> bool:
    """Whether the head is the embedding's own matrix."""
    own, other = (dict(module.named_parameters(recurse=False)).get("weight") for module in (embedding, head))
    return own is not None and own is other
