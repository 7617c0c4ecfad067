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
    def read(self, inner: Sequence[Tensor] | None, hidden: Tensor) -> Mapping[int, Tensor]:
        """States `[T, s]` by depth: the residual stream after that many layers.

        `inner` and `hidden` `[T, d]` are what the model returned: inner states, if it does, and what the head projects.
        """


class OutputTaps(Taps):
    """A model that returns its inner states."""

    in_output = True

    def __init__(self, model: nn.Module, layers: tuple[int, ...]) -> None:
        """Tell the model which states to return: the sums that enter the layers of these numbers."""
        self._layers = tuple(sorted(set(layers)))
        chosen: Any = model  # vLLM's own interface
        chosen.set_aux_hidden_state_layers(self._layers)

    def read(self, inner: Sequence[Tensor] | None, hidden: Tensor) -> Mapping[int, Tensor]:
        """The states in the order of their depth."""
        if inner is None or len(inner) != len(self._layers):
            raise UnsupportedError(
                f"the model returned {0 if inner is None else len(inner)} inner states, not those of layers "
                f"{self._layers}"
            )
        return dict(zip(self._layers, inner, strict=True))


class HookTaps(Taps):
    """Any other model: hooks on its layers.

    Many layers return two tensors, and the residual stream is their sum: the next norm adds them. Others return the
    whole stream and, beside it, what nobody reads. Which it is can be told behind the last layer, where the final norm
    of the stream is what the head projects.
    """

    in_output = False

    def __init__(
        self, model: nn.Module, layers: tuple[int, ...], *, tokens: int, size: int, dtype: torch.dtype
    ) -> None:
        """Hook the layers; buffers hold `tokens` states of `size`.

        Raises:
            UnsupportedError: the model has no stack of layers, or not that many.
        """
        stack, self._norm = layer_stack(model)
        device = next(model.parameters()).device
        self._layers, self._last = sorted(set(layers)), len(stack)
        self._buffers: dict[int, Tensor] = {}
        self._apart: bool | None = None
        for layer in sorted({*layers, len(stack)}):
            if not 1 <= layer <= len(stack):
                raise UnsupportedError(f"this model has layers 1 to {len(stack)} to read from, not {layer}")
            # One row more than is ever filled: code that is compiled while all are would be for that number alone.
            buffer = torch.zeros(2, tokens + 1, size, dtype=dtype, device=device)
            stack[layer - 1].register_forward_hook(_copy_to(buffer))
            self._buffers[layer] = buffer
        self.nbytes = sum(buffer.nbytes for buffer in self._buffers.values())

    def read(self, inner: Sequence[Tensor] | None, hidden: Tensor) -> Mapping[int, Tensor]:
        """The buffers; rows behind the latest pass's tokens are of earlier passes. Synchronises once."""
        if self._apart is None:
            self._apart = self._are_apart(hidden)
        rows = len(hidden)
        parts = {layer: self._buffers[layer][:, :rows] for layer in self._layers}
        return {layer: part.sum(0) if self._apart else part[0] for layer, part in parts.items()}

    def _are_apart(self, hidden: Tensor) -> bool:
        """Whether the stream is the sum of what a layer returns, judged by the first token."""
        if self._norm is None:
            return True
        returned = self._buffers[self._last][:, :1]
        whole, summed = (self._normed(state) - hidden[:1] for state in (returned[0], returned.sum(0)))
        return bool(summed.norm() <= whole.norm())

    def _normed(self, state: Tensor) -> Tensor:
        output: Any = None if self._norm is None else self._norm(state)
        normed: Tensor = output[0] if isinstance(output, tuple) else output
        return normed


def install(model: nn.Module, layers: tuple[int, ...], *, tokens: int, size: int, dtype: torch.dtype) -> Taps:
    """Choose the way for `model`, which must not have been compiled yet."""
    if supports_eagle3(model):
        return OutputTaps(model, layers)
    return HookTaps(model, layers, tokens=tokens, size=size, dtype=dtype)


def layer_stack(model: nn.Module) -> tuple[nn.ModuleList, nn.Module | None]:
    """The decoder layers, and the norm behind them if there is one.

    The layers are the longest list of modules in the model, without counting what lies inside a layer.

    Raises:
        UnsupportedError: there is none.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {name: module for name, module in lists.items() if name.rpartition(".")[2] in ("layers", "h", "blocks")}
    if not outer:
        raise UnsupportedError(f"{type(model).__name__}: found no list of decoder layers to read inner states from")
    longest = max(outer, key=lambda name: len(outer[name]))
    around = model.get_submodule(longest.rpartition(".")[0])
    norms = [module for module in around.children() if "norm" in type(module).__name__.lower()]
    return outer[longest], norms[-1] if norms else None


def _copy_to(buffer: Tensor) -> Any:
    """A hook that keeps both of a layer's outputs, the second 0 if there is none."""

    def copy(module: nn.Module, inputs: Any, output: Any) -> None:
        state, other = output[:2] if isinstance(output, tuple) and len(output) > 1 else (output, None)
        state = state[0] if isinstance(state, tuple) else state
        rows = buffer[:, : state.shape[0]]
        rows[0].copy_(state)
        if other is None:
            rows[1].zero_()
        else:
            rows[1].copy_(other)

    return copy
