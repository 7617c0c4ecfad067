"""Engines by name: what each needs and how to start it, without importing any before it is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec

from esamp.engines.base import Engine
from esamp.errors import MissingDependencyError, OptionError


@dataclass(frozen=True)
class EngineEntry:
    """One way to run a language model."""

    name: str
    target: str
    """``module:function`` that loads a model by name (None: the embedded one) into an `Engine`"""
    summary: str
    packages: tuple[str, ...]
    """modules that must be importable"""
    install: str
    """the command that provides them"""

    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(package for package in self.packages if find_spec(package) is None)


ENTRIES: Mapping[str, EngineEntry] = {
    entry.name: entry
    for entry in (
        EngineEntry(
            "hf",
            "esamp.engines.hf:HFEngine.load",
            "Hugging Face transformers, on any device that torch has",
            ("torch", "transformers"),
            "pip install esamp",
        ),
    )
}
"""A new engine is one entry here and one module."""


def start(name: str, model: str | None, *, device: str, dtype: str, batch_rows: int) -> Engine:
    """Load `model` into the engine called `name`; None is the embedded model.

    Raises:
        OptionError: no such engine, device or dtype.
        MissingDependencyError: the engine's packages are not installed.
    """
    if name not in ENTRIES:
        raise OptionError(f"unknown engine {name!r}: choose from {', '.join(ENTRIES)}")
    entry = ENTRIES[name]
    if missing := entry.missing():
        raise MissingDependencyError(f"engine {name!r} needs {' and '.join(missing)}: {entry.install}")
    load: Callable[..., Engine] = EntryPoint(name, entry.target, "esamp.engines").load()
    return load(model, device=device, dtype=dtype, batch_rows=batch_rows)
