"""Converts a GGUF file to a model folder with safetensors in bfloat16, by means of transformers."""

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from esamp.errors import EsampError, MissingDependencyError
from esamp.models.store import WEIGHTS

NEEDED = ("gguf", "accelerate")
"""Packages that transformers needs to read GGUF files."""
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors of the GGUF readers for a damaged file, which they hardly check."""


def missing() -> list[str]:
    """The packages of `NEEDED` that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def convert(file: Path, folder: Path) -> None:
    """Write weights, configuration, tokenizer with chat template and generation settings of `file` to `folder`.

    Raises:
        MissingDependencyError: a package that reads the file is too old.
        EsampError: the file is damaged.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.bfloat16, **_dequantized()
            )
        except ImportError as error:
            raise MissingDependencyError(f"{error} -- pip install --upgrade gguf accelerate") from error
        except UNREADABLE as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EsampError(f"{file} cannot be read as a GGUF model: {first}") from error
    if tokenizer.chat_template is None:
        raise EsampError(f"{file} has no chat template")
    _split_digits(tokenizer)
    config = model.config
    settings = config.to_dict()
    for name in ("quantization_config", "unk_token_id", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    settings |= {
        "architectures": [type(model).__name__],
        "rms_norm_eps": float(f"{config.rms_norm_eps:.6g}"),  # stored in single precision
        "dtype": "bfloat16",
    }
    tokenizer.model_max_length = config.max_position_embeddings
    state = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    type(config).from_dict(settings).save_pretrained(folder)
    ids = dict(bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    GenerationConfig(**ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _dequantized() -> dict[str, Any]:
    """The argument to load weights as plain tensors; older releases of transformers always do, and have no argument."""
    import transformers

    gguf_config = getattr(transformers, "GgufConfig", None)
    return {} if gguf_config is None else {"quantization_config": gguf_config(dequantize=True)}


def _split_digits(tokenizer: Any) -> None:
    """Split numbers into digits before other words, as SmolLM2's own tokenizer does.

    transformers loses this step when it reads a GGUF file. It affects how spaces before a digit are tokenised.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off transformers' progress bars and messages below errors."""
    from transformers.utils import logging as words

    level, bars = words.get_verbosity(), words.is_progress_bar_enabled()
    words.set_verbosity(logging.ERROR)
    words.disable_progress_bar()
    try:
        yield
    finally:
        words.set_verbosity(level)
        if bars:
            words.enable_progress_bar()
