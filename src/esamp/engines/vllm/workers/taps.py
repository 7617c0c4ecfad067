"""`Taps`: read the residual stream between the layers of a vLLM model.

About forty architectures return these states themselves, through the interface that EAGLE-3 uses. For the others,
forward hooks copy the chosen layers' outputs into buffers, which compiled code and CUDA graphs write like any tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override
from vllm.model_executor.models.interfaces import supports_eagle3

from esamp.errors import UnsupportedError


class Taps(ABC):
    """The residual stream after chosen layers, as of the model's latest forward pass."""

    in_output: bool
    """whether the model returns ``(final hidden states, residuals of the layers)`` instead of hidden states only"""

    nbytes: int = 0
    """bytes of allocated buffers"""

    @abstractmethod
    def read(self, returned: Sequence[Tensor] | None, hidden_states: Tensor) -> Mapping[int, Tensor]:
        """States `[T, s]` by depth: the residual stream after that many layers.

        Args:
            returned: the residuals that the model returned, if `in_output`.
            hidden_states: `[T, d]`: the final hidden states, which the LM head projects.
        """


class OutputTaps(Taps):
    """Taps of a model that returns its residual stream."""

    in_output = True

    def __init__(self, model: nn.Module, layers: tuple[int, ...]) -> None:
        """Make the model return the inputs of the layers with these numbers."""
        self._layers = tuple(sorted(set(layers)))
        eagle3: Any = model  # implements vLLM's SupportsEagle3
        eagle3.set_aux_hidden_state_layers(self._layers)

    @override
    def read(self, returned: Sequence[Tensor] | None, hidden_states: Tensor) -> Mapping[int, Tensor]:
        if returned is None or len(returned) != len(self._layers):
            raise UnsupportedError(
                f"the model returned {0 if returned is None else len(returned)} inner states, not those of layers "
                f"{self._layers}"
            )
        return dict(zip(self._layers, returned, strict=True))


class HookTaps(Taps):
    """Taps of any other model: forward hooks on its layers.

    Many layers return two tensors whose sum is the residual stream: the next norm adds them. Others return the complete
    stream and a second, unrelated tensor. Which it is, is measured at the last layer, as the final norm of the stream
    must be the state that the LM head projects.
    """

    in_output = False

    def __init__(
        self, model: nn.Module, layers: tuple[int, ...], *, tokens: int, size: int, dtype: torch.dtype
    ) -> None:
        """Register hooks and allocate buffers of `tokens` states of `size` per layer.

        Raises:
            UnsupportedError: the model has no list of layers, or not that many.
        """
        stack, self._norm = layer_stack(model)
        device = next(model.parameters()).device
        self._layers, self._last = sorted(set(layers)), len(stack)
        self._buffers: dict[int, Tensor] = {}
        self._summed: bool | None = None
        for layer in sorted({*layers, len(stack)}):
            if not 1 <= layer <= len(stack):
                raise UnsupportedError(f"this model has layers 1 to {len(stack)} to read from, not {layer}")
            # One row more than is ever filled: code compiled for a full buffer would be specialised to that size.
            buffer = torch.zeros(2, tokens + 1, size, dtype=dtype, device=device)
            stack[layer - 1].register_forward_hook(_copy_to(buffer))
            self._buffers[layer] = buffer
        self.nbytes = sum(buffer.nbytes for buffer in self._buffers.values())

    @override
    def read(self, returned: Sequence[Tensor] | None, hidden_states: Tensor) -> Mapping[int, Tensor]:
        """Read the buffers. The first call synchronises with the device."""
        if self._summed is None:
            self._summed = self._is_sum(hidden_states)
        outputs = {layer: self._buffers[layer][:, : len(hidden_states)] for layer in self._layers}
        return {layer: output.sum(0) if self._summed else output[0] for layer, output in outputs.items()}

    def _is_sum(self, hidden_states: Tensor) -> bool:
        """Whether the stream is the sum of a layer's two outputs, judged by the first token."""
        if self._norm is None:
            return True
        outputs = self._buffers[self._last][:, :1]
        first, both = (self._normed(state) - hidden_states[:1] for state in (outputs[0], outputs.sum(0)))
        return bool(both.norm() <= first.norm())

    def _normed(self, state: Tensor) -> Tensor:
        output: Any = None if self._norm is None else self._norm(state)
        normed: Tensor = output[0] if isinstance(output, tuple) else output
        return normed


def attach_taps(model: nn.Module, layers: tuple[int, ...], *, tokens: int, size: int, dtype: torch.dtype) -> Taps:
    """Taps of the right kind for `model`, which must not have been compiled yet."""
    if supports_eagle3(model):
        return OutputTaps(model, layers)
    return HookTaps(model, layers, tokens=tokens, size=size, dtype=dtype)


def layer_stack(model: nn.Module) -> tuple[nn.ModuleList, nn.Module | None]:
    """The decoder layers, and the norm after them if there is one.

    The layers are the longest list of modules named ``layers``, ``h`` or ``blocks``.

    Raises:
        UnsupportedError: there is none.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {name: module for name, module in lists.items() if name.rpartition(".")[2] in ("layers", "h", "blocks")}
    if not outer:
        raise UnsupportedError(
            f"{type(model).__name__}: found no list of decoder layers to read the residual stream from"
        )
    longest = max(outer, key=lambda name: len(outer[name]))
    around = model.get_submodule(longest.rpartition(".")[0])
    norms = [module for module in around.children() if "norm" in type(module).__name__.lower()]
    return outer[longest], norms[-1] if norms else None


def _copy_to(buffer: Tensor) -> Any:
    """A forward hook that copies a layer's two outputs; a missing second one is replaced by zeros."""

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
