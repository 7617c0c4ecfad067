"""`ModelHooks`: module hooks that read hidden states and let a listener replace the input of the LM head."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from esamp.errors import UnsupportedError


class Listener(Protocol):
    """The calls of `ModelHooks`, in the order of one forward pass of the model."""

    def on_forward(self, inputs: dict[str, Any]) -> bool:
        """The model is called with these keyword arguments. Returns whether the other calls of this pass follow."""

    def on_residual(self, layer: int, states: Tensor) -> None:
        """The residual stream `[B, T, s]` after `layer` transformer layers."""

    def on_head(self, states: Tensor) -> Tensor:
        """The head's input `[B, T, d]`; returns what to project instead, `[K * B, 1, d]`."""

    def on_logits(self, logits: Tensor) -> Tensor:
        """The model's logits `[K * B, 1, V]`, post-processing done; returns `[B, 1, V]`."""

    def on_end(self) -> None:
        """The pass has ended, with a result or with an error. Follows every `on_forward`, whatever it returned."""


class ModelHooks:
    """Hooks on a causal language model: its input, some of its layers, its LM head and its output.

    Nothing in the model is replaced: the hooks are PyTorch's own, and `remove` removes them. When `on_logits` is
    called, the model's own post-processing (soft cap, scale, bias) has been applied to every row. To refuse a second
    set of hooks on one model, the private dictionary ``_forward_pre_hooks`` is read: PyTorch has no other list of them.
    """

    def __init__(self, model: PreTrainedModel, layers: tuple[int, ...], listener: Listener) -> None:
        """Register the hooks.

        Args:
            model: the model.
            layers: numbers of transformer layers after which the residual stream is read.
            listener: gets the calls.

        Raises:
            UnsupportedError: the model has no such layer or no LM head module, or it has such hooks already.
        """
        if any(_is_ours(hook) for hook in model._forward_pre_hooks.values()):
            raise UnsupportedError(
                "this model is being explored already: leave the other explore() block first, or load the model twice"
            )
        self._listener: Listener | None = listener
        self._listening = False
        stack, head = layer_stack(model), output_head(model)
        if max(layers, default=0) > len(stack):
            raise UnsupportedError(
                f"layer {max(layers)} does not exist: {type(model).__name__} has {len(stack)} layers"
            )
        outside = _outside_graphs
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(outside(self._before_model), with_kwargs=True),
            head.register_forward_pre_hook(outside(self._before_head)),
            model.register_forward_hook(outside(self._after_model), always_call=True),
        ]
        for layer in layers:
            if layer == 0:
                handle = stack[0].register_forward_pre_hook(outside(self._before_first_layer), with_kwargs=True)
            else:
                handle = stack[layer - 1].register_forward_hook(outside(self._after_layer(layer)))
            self._handles.append(handle)

    def remove(self) -> None:
        """Remove the hooks. In compiled code that still contains them they do nothing from now on."""
        for handle in self._handles:
            handle.remove()
        self._listener = None
        self._listening = False

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._listener is not None:
            inputs = {"input_ids": args[0], **kwargs} if args else kwargs
            self._listening = self._listener.on_forward(inputs)

    def _before_first_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._listening and self._listener is not None:
            self._listener.on_residual(0, args[0] if args else kwargs["hidden_states"])

    def _after_layer(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._listening and self._listener is not None:
                self._listener.on_residual(layer, output if isinstance(output, Tensor) else output[0])

        return hook

    def _before_head(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        if self._listening and self._listener is not None:
            return (self._listener.on_head(args[0]),)
        return None

    def _after_model(self, module: nn.Module, args: Any, output: Any) -> Any:
        """End the pass. After an error in it, PyTorch calls this with None as the output."""
        if self._listener is None:
            return output
        listening, self._listening = self._listening, False
        try:
            if listening and output is not None:
                if isinstance(output, tuple):
                    raise UnsupportedError("the model returned a tuple: call it with return_dict=True")
                output["logits"] = self._listener.on_logits(output.logits)
        finally:
            self._listener.on_end()
        return output


def _outside_graphs(hook: Callable[..., Any]) -> Callable[..., Any]:
    """`hook`, which torch.compile does not trace: a compiled forward pass has a graph break at each hook.

    ``torch.compiler.disable`` alone would do, but takes longer at every call than most hooks do.
    """
    untraced: Callable[..., Any] = torch.compiler.disable(hook)

    @wraps(hook)
    def call(*args: Any) -> Any:
        return untraced(*args) if torch.compiler.is_compiling() else hook(*args)

    return call


def _is_ours(hook: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(hook)
    return isinstance(inner, MethodType) and isinstance(inner.__self__, ModelHooks)


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The list of transformer layers of a decoder.

    Raises:
        UnsupportedError: no list of ``num_hidden_layers`` modules was found.
    """
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise UnsupportedError(
        f"no list of {depth} layers was found in {type(model).__name__}: its hidden states are out of reach"
    )


def output_head(model: PreTrainedModel) -> nn.Module:
    """The LM head's module.

    Raises:
        UnsupportedError: the model has no LM head, or none that is a module.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise UnsupportedError(f"{type(model).__name__} has no LM head: load it with AutoModelForCausalLM")
    return head
