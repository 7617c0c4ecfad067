"""`CachedModel`: a model folder in the user's cache. A folder that is not complete is written again.

A model is written into a temporary folder next to its final place, checked, given a manifest, and renamed. A lock lets
one process do this while others wait for the result.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from esamp.errors import EsampError

MANIFEST = "esamp.json"
"""Name of the manifest, which is written last: the source of the model, and size and SHA-256 of every other file."""
WEIGHTS = "model.safetensors"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""


def cache_root() -> Path:
    """The cache folder: ``$ESAMP_CACHE``, else ``$XDG_CACHE_HOME/esamp``, else ``~/.cache/esamp``.

    Raises:
        EsampError: neither variable is set and the user has no home directory.
    """
    try:
        if own := os.environ.get("ESAMP_CACHE"):
            return Path(own).expanduser().absolute()
        shared = os.environ.get("XDG_CACHE_HOME")
        return (Path(shared) if shared else Path.home() / ".cache").absolute() / "esamp"
    except RuntimeError as error:
        raise EsampError(f"no place for the model cache: {error} -- set ESAMP_CACHE to a folder") from None


@dataclass(frozen=True)
class CachedModel:
    """The place of one model in the cache."""

    name: str
    version: int
    """version of the conversion; folders of another version are written again"""
    bytes_needed: int
    """free disk space needed to write the model"""

    @property
    def path(self) -> Path:
        """The final folder, whether or not it exists."""
        return cache_root() / "models" / self.name

    def manifest(self, *, hash_weights: bool = False) -> dict[str, Any] | None:
        """The manifest if the folder is complete and undamaged, else None.

        Small files are compared by hash. The weights are compared by size and header, unless `hash_weights`, which
        takes about a second.
        """
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            files = manifest["files"]
            if manifest["version"] != self.version or WEIGHTS not in files:
                return None
            hashed = [name for name in files if name != WEIGHTS or hash_weights]
            same_sizes = all((self.path / name).stat().st_size == entry["bytes"] for name, entry in files.items())
            if not same_sizes or any(_sha256(self.path / name) != files[name]["sha256"] for name in hashed):
                return None
            check(self.path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EsampError):
            return None
        return dict(manifest)

    def get(self, write: Callable[[Path], dict[str, str]]) -> Path:
        """The complete folder, which is written if there is none.

        Args:
            write: writes the model's files into a folder and returns the manifest's entries about the source.

        Raises:
            EsampError: the cache cannot be written, the disk is full, or `write` wrote no valid model.
        """
        if self.manifest() is not None:
            return self.path
        with _explained(self.path.parent), self._lock():
            if self.manifest() is None:  # another process may have written it while this one waited
                self._create(write)
        return self.path

    def _create(self, write: Callable[[Path], dict[str, str]]) -> None:
        parent = self.path.parent
        self._remove_leftovers()
        if shutil.disk_usage(parent).free < self.bytes_needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary = Path(tempfile.mkdtemp(prefix=f".{self.name}-", suffix=".part", dir=parent))
        try:
            source = write(temporary)
            check(temporary)
            _write_manifest(temporary, {"version": self.version, **source})
            temporary.chmod(0o755)
            if self.path.exists():
                self.path.rename(temporary.with_suffix(".old.part"))
            temporary.rename(self.path)
        finally:
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove temporary folders, also those of killed processes. The lock is held, so no process writes them."""
        for folder in self.path.parent.glob(f".{self.name}-*.part"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / f".{self.name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is preparing {self.name}, waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check(folder: Path) -> None:
    """Compare the header of the weights with the configuration of a Llama model.

    Raises:
        EsampError: a file or a tensor is missing, or a tensor has another shape than the configuration says.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        expected = _shapes(config)
        with safe_open(folder / WEIGHTS, framework="numpy") as weights:
            names = set(weights.keys())
            for name, shape in expected.items():
                actual = tuple(weights.get_slice(name).get_shape()) if name in names else None
                if actual != shape:
                    raise EsampError(f"tensor {name} of the model has shape {actual}, expected {shape}")
    except (SafetensorError, FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise EsampError(f"the model's files are incomplete or damaged: {error}") from None


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    head = {} if config.get("tie_word_embeddings") else {"lm_head.weight": (config["vocab_size"], hidden)}
    return {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
        **head,
        **{
            f"model.layers.{number}.{name}.weight": shape
            for number in range(config["num_hidden_layers"])
            for name, shape in layer.items()
        },
    }


def say(text: str) -> None:
    """Print one line on standard error about work that takes several seconds."""
    sys.stderr.write(f"esamp: {text}\n")
    sys.stderr.flush()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Replace errors of the file system by errors that say what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        remedy = "set ESAMP_CACHE to a folder that can be written"
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        number = error.errno if isinstance(error, OSError) else None
        if number in FULL or any(f"os error {code})" in reason for code in FULL):  # safetensors is written in Rust
            raise EsampError(f"the disk of {folder} is full: free 300 MB, or {remedy} on another disk") from error
        raise EsampError(f"cannot write to the model cache {folder}: {reason} -- {remedy}") from error


def _write_manifest(folder: Path, source: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        if path.stat().st_nlink == 1:  # not a hard link into the hub's cache
            path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(json.dumps({**source, "files": files}, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
