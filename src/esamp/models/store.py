"""Model folders in the user's cache. A folder is complete or it is not there.

A model is written into a temporary folder beside its final place, checked, given a manifest, and renamed. A lock lets
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
"""Written last. It records where the model comes from, and the size and SHA-256 of every other file."""
WEIGHTS = "model.safetensors"
NO_SPACE = f"os error {errno.ENOSPC}"
"""How safetensors, which is written in Rust, reports a full disk."""


def cache_root() -> Path:
    """The cache folder: ``$ESAMP_CACHE``, else ``$XDG_CACHE_HOME/esamp``, else ``~/.cache/esamp``."""
    if own := os.environ.get("ESAMP_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").absolute() / "esamp"


@dataclass(frozen=True)
class CachedModel:
    """The place of one model in the cache."""

    name: str
    version: int
    """version of the conversion; folders of another one are made again"""
    tensors: Mapping[str, tuple[int, ...]]
    """shapes of tensors that the weights must hold"""
    bytes_needed: int
    """free disk space that writing the model takes"""

    @property
    def path(self) -> Path:
        """The final folder, whether or not it exists."""
        return cache_root() / "models" / self.name

    def manifest(self) -> dict[str, Any] | None:
        """The manifest if the folder is complete and undamaged, else None.

        Small files are compared by hash; the weights by size and header, as hashing them takes most of a second.
        """
        try:
            found = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            files = found["files"] if found["version"] == self.version else {}
            if WEIGHTS not in files or not all(_same(self.path / name, entry) for name, entry in files.items()):
                return None
            self.check_weights(self.path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EsampError):
            return None
        return dict(found)

    def get(self, make: Callable[[Path], dict[str, str]]) -> Path:
        """The complete folder; where there is none, `make` writes it and returns what the manifest says of its source.

        Raises:
            EsampError: the cache cannot be written, the disk is full, or `make` wrote no valid model.
        """
        if self.manifest() is not None:
            return self.path
        with _explained(self.path.parent), self._lock():
            if self.manifest() is None:  # another process may have written it while this one waited
                self._install(make)
        return self.path

    def _install(self, make: Callable[[Path], dict[str, str]]) -> None:
        parent = self.path.parent
        for leftover in parent.glob(f".{self.name}-*.part"):  # of processes that were killed: this one has the lock
            shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(parent).free
        if free < self.bytes_needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary = Path(tempfile.mkdtemp(prefix=f".{self.name}-", suffix=".part", dir=parent))
        try:
            source = make(temporary)
            self.check_weights(temporary)
            _write_manifest(temporary, {"version": self.version, **source})
            temporary.chmod(0o755)
            if self.path.exists():
                self.path.rename(temporary.with_name(f".{self.name}-{os.getpid()}.part"))
            temporary.rename(self.path)
        finally:
            for rest in parent.glob(f".{self.name}-*.part"):
                shutil.rmtree(rest, ignore_errors=True)

    def check_weights(self, folder: Path) -> None:
        """Compare the header of the weights with what the model must hold.

        Raises:
            EsampError: a tensor is missing or has another shape, or the file is no safetensors file.
        """
        try:
            with safe_open(folder / WEIGHTS, framework="numpy") as weights:
                names = set(weights.keys())
                for name, shape in self.tensors.items():
                    found = tuple(weights.get_slice(name).get_shape()) if name in names else None
                    if found != shape:
                        raise EsampError(f"{self.name}: tensor {name} has shape {found}, expected {shape}")
        except (SafetensorError, FileNotFoundError) as error:
            raise EsampError(f"{self.name}: {WEIGHTS} cannot be read: {error}") from None

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


def say(text: str) -> None:
    """One line on standard error about work that takes more than a moment."""
    sys.stderr.write(f"esamp: {text}\n")
    sys.stderr.flush()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the file system reports into an error that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        remedy = "set ESAMP_CACHE to a folder that can be written"
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or NO_SPACE in str(error):
            raise EsampError(f"the disk of {folder} is full: free some space, or {remedy} on another disk") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EsampError(f"cannot write to the model cache {folder}: {reason} -- {remedy}") from error


def _write_manifest(folder: Path, source: Mapping[str, Any]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    text = json.dumps({**source, "files": files}, indent=2)
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _same(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.stat().st_size == entry["bytes"] and (path.name == WEIGHTS or _sha256(path) == entry["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
