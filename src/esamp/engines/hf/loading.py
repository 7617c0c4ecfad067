"""Loads models and tokenizers from the hub or a folder onto a device."""

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from esamp.errors import InputError, OptionError
from esamp.models import hub

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(source: str | Path, *, device: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, in evaluation mode, and its tokenizer; the arguments are those of `HFEngine.load`.

    Raises:
        InputError: the model cannot be found or loaded.
        OptionError: an unknown dtype, or a device that cannot be used.
    """
    place = _device(device)
    precision = _precision(dtype, place)
    hub.check(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=precision)
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"model {str(source)!r} cannot be loaded: {first} -- {hub.remedy(source)}") from error
    module: nn.Module = loaded
    module.to(place)
    return loaded.eval(), tokenizer


def refuse(device: str, dtype: str, base_url: str) -> None:
    """Refuse a device that cannot be used on this machine, or an unknown dtype; `base_url` has no meaning here.

    Raises:
        OptionError: names the values that can be used.
    """
    _precision(dtype, _device(device))


def place(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and number format for work without a model; as a dtype, "auto" is float32 on any device.

    Raises:
        OptionError: no such dtype or device.
    """
    where = _device(device)
    precision = _precision(dtype, where)
    return where, precision if isinstance(precision, torch.dtype) else torch.float32


def random_model(folder: Path, *, device: str, dtype: str) -> PreTrainedModel:
    """A model with random weights, in evaluation mode, of the shape in the ``config.json`` of `folder`.

    Raises:
        OptionError: no such dtype or device.
    """
    place = _device(device)
    precision = _precision(dtype, place)
    with place:
        created = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=precision)
    model: PreTrainedModel = created.eval()
    return model


def _precision(dtype: str, place: torch.device) -> torch.dtype | Literal["auto"]:
    if dtype not in ("auto", *DTYPES):
        raise OptionError(f"dtype = {dtype!r}: choose from auto, {', '.join(DTYPES)}")
    return DTYPES.get(dtype, torch.float32 if place.type == "cpu" else "auto")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise OptionError(f"device = {name!r} cannot be used: {first} -- try cpu, cuda or auto") from error
    return device
