"""`Amateur`: a second causal language model with its own KV cache, which reads what the engine's model reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from esamp.decoding.step import InputTokens
from esamp.errors import OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def embedded() -> str:
    """The folder of the amateur that ships with the package, a smaller version of the embedded model."""
    return str(files("esamp") / "models" / "countdown_amateur")


class Amateur:
    """Computes next-token logits for the tokens that an engine's model reads, in batches whose row order is fixed."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Use a model from `load`, which other instances may share.

        Raises:
            OptionError: the model returns no KV cache, which decoding token by token needs.
        """
        self._model = model
        self._accepted = frozenset(signature(model.forward).parameters)
        self._cache: Any = None
        self._mask = self._next = torch.empty(0)
        with torch.no_grad():
            out = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=True)
        if out.get("past_key_values") is None:
            raise OptionError(f"{type(model).__name__} returns no KV cache: choose a transformer as the amateur")
        self.vocabulary: int = out.logits.shape[-1]
        """V, the number of logits"""

    @property
    def context(self) -> int | None:
        """The largest number of tokens that the model can read; None if it has no limit."""
        limit = self._model.config.get_text_config(decoder=True).to_dict().get("max_position_embeddings")
        return None if limit is None else int(limit)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return _weights(self._model)

    def prefill(self, input_tokens: InputTokens) -> Tensor:
        """Clear the cache and read whole prompts, padded on the left; returns next-token logits `[R, V]` float32."""
        mask = input_tokens.mask.to(self._model.device, torch.long)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        self._cache, self._mask, self._next = None, mask, positions[:, -1:] + 1
        return self._read(input_tokens.ids, positions)

    def decode(self, input_tokens: InputTokens) -> Tensor:
        """Read one more token of each row; returns next-token logits `[R, V]` float32."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        positions, self._next = self._next, self._next + 1
        return self._read(input_tokens.ids, positions)

    def _read(self, ids: Tensor, positions: Tensor) -> Tensor:
        arguments = dict(attention_mask=self._mask, position_ids=positions, logits_to_keep=1)
        known = {name: value for name, value in arguments.items() if name in self._accepted}
        with torch.no_grad():
            out = self._model(input_ids=ids.to(self._mask.device), past_key_values=self._cache, use_cache=True, **known)
        self._cache = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits.float()


@lru_cache(maxsize=1)  # an engine builds a new method for each batch, with the same weights
def load(source: str, device: torch.device, dtype: str) -> PreTrainedModel:
    """Load a model by hub name or folder onto `device`, in evaluation mode. The most recent one is cached.

    Args:
        source: the argument of ``AutoModelForCausalLM.from_pretrained``.
        device: the device of the expert's logits.
        dtype: "auto" (float32 on a CPU, else the stored type), or a name in `DTYPES`.

    Raises:
        OptionError: the model cannot be found or loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=_precision(dtype, device))
    except (OSError, ValueError, SafetensorError) as error:
        raise _unloadable(source, error) from error
    module: nn.Module = model
    module.to(device)
    loaded: PreTrainedModel = model.eval()
    return loaded


def measure(source: str, device: torch.device, dtype: str) -> int:
    """Bytes of the weights that `load` would load, computed from the configuration alone.

    Raises:
        OptionError: the model has no readable configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source)
        precision = _precision(dtype, device)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=config.dtype if precision == "auto" else precision)
    except (OSError, ValueError) as error:
        raise _unloadable(source, error) from error
    return _weights(model)


@lru_cache(maxsize=1)
def tokens_of(source: str) -> Mapping[str, int] | None:
    """The token ids by text of the tokenizer stored with a model; None if there is none."""
    from transformers import AutoTokenizer

    try:
        vocabulary: Mapping[str, int] = AutoTokenizer.from_pretrained(source).get_vocab()
    except (OSError, ValueError):
        return None
    return vocabulary


def _precision(dtype: str, device: torch.device) -> torch.dtype | Literal["auto"]:
    return DTYPES.get(dtype, torch.float32 if device.type == "cpu" else "auto")


def _weights(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def _unloadable(source: str, error: Exception) -> OptionError:
    first = str(error).strip().splitlines()[0]
    return OptionError(
        f"amateur = {source!r} cannot be loaded: {first} -- give a folder with config.json and weights, or a hub name "
        "on a machine that reaches the hub"
    )
