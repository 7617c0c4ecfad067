"""Where a vLLM model's inner states are read.

About forty architectures hand them out themselves, through the interface that EAGLE-3 uses. Of the others a forward
hook copies the chosen layers' outputs into buffers, which compiled code and CUDA graphs write like any other tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.models.interfaces import supports_eagle3

from esamp.errors import UnsupportedError


class Taps(ABC):
    """The states of a model's inner layers at its latest forward pass."""

    in_output: bool
    """whether the model returns ``(hidden states, list of inner states)`` instead of the hidden states alone"""

    nbytes: int = 0
    """memory of buffers of our own"""

    @abstractmethod
    def read(self, inner: Sequence[Tensor] | None) -> Mapping[int, Tensor]:
        """States `[T, s]` by depth: the residual stream after that many layers. `inner` is what the model returned."""


class OutputTaps(Taps):
    """A model that returns its inner states."""

    in_output = True

    def __init__(self, model: nn.Module, layers: tuple[int, ...]) -> None:
        """Tell the model which states to return: the sums that enter the layers of these numbers."""
        self._layers = tuple(sorted(set(layers)))
        chosen: Any = model  # vLLM's own interface
        chosen.set_aux_hidden_state_layers(self._layers)

    def read(self, inner: Sequence[Tensor] | None) -> Mapping[int, Tensor]:
        """The states in the order of their depth."""
        if inner is None or len(inner) != len(self._layers):
            raise UnsupportedError(
                f"the model returned {0 if inner is None else len(inner)} inner states, not those of layers "
                f"{self._layers}"
            )
        return dict(zip(self._layers, inner, strict=True))


class HookTaps(Taps):
    """Any other model: hooks on its layers."""

    in_output = False

    def __init__(
        self, model: nn.Module, layers: tuple[int, ...], *, tokens: int, size: int, dtype: torch.dtype
    ) -> None:
        """Hook the layers; buffers hold `tokens` states of `size`.

        Raises:
            UnsupportedError: the model has no stack of layers, or not that many.
        """
        stack = layer_stack(model)
        device = next(model.parameters()).device
        self._buffers: dict[int, Tensor] = {}
        for layer in sorted(set(layers)):
            if not 1 <= layer <= len(stack):
                raise UnsupportedError(f"this model has layers 1 to {len(stack)} to read from, not {layer}")
            buffer = torch.zeros(tokens, size, dtype=dtype, device=device)
            stack[layer - 1].register_forward_hook(_copy_to(buffer))
            self._buffers[layer] = buffer
        self.nbytes = sum(buffer.nbytes for buffer in self._buffers.values())

    def read(self, inner: Sequence[Tensor] | None) -> Mapping[int, Tensor]:
        """The buffers; rows behind the latest pass's tokens are of earlier passes."""
        return self._buffers


def install(model: nn.Module, layers: tuple[int, ...], *, tokens: int, size: int, dtype: torch.dtype) -> Taps:
    """Choose the way for `model`, which must not have been compiled yet."""
    if supports_eagle3(model):
        return OutputTaps(model, layers)
    return HookTaps(model, layers, tokens=tokens, size=size, dtype=dtype)


def layer_stack(model: nn.Module) -> nn.ModuleList:
    """The decoder layers: the longest list of modules in the model, without counting what lies inside a layer.

    Raises:
        UnsupportedError: there is none.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [module for name, module in lists if name.rpartition(".")[2] in ("layers", "h", "blocks")]
    if not outer:
        raise UnsupportedError(f"{type(model).__name__}: found no list of decoder layers to read inner states from")
    return max(outer, key=len)


def _copy_to(buffer: Tensor) -> Any:
    """A hook that keeps a layer's output: ``hidden + residual`` where the layer returns them apart."""

    def copy(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, tuple):
            state = output[0] if len(output) < 2 or output[1] is None else output[0] + output[1]
        else:
            state = output
        buffer[: state.shape[0]].copy_(state)

    return copy
