"""Exploratory Sampling for large language models.

import esamp

engine = esamp.load("smollm2")
texts = engine.sample("A title for a novel about a lighthouse keeper.", n=16)

or inside a program of your own that calls ``model.generate``:

with esamp.explore(model, esamp.ESampConfig()) as run:
    run.generate(**inputs, do_sample=True, num_return_sequences=16)
print(run.telemetry())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esamp.engines.base import Completion, Engine, Failure, Request, Sample
    from esamp.engines.hf import HFEngine, Run
    from esamp.engines.hf.explore import explore
    from esamp.engines.registry import load
    from esamp.engines.token_trace import TokenTrace
    from esamp.engines.vllm.engine import VLLMEngine
    from esamp.errors import EsampError
    from esamp.explorer.config import ESampConfig
    from esamp.sampling import Sampling
    from esamp.search.base import answer

    __version__: str

__all__ = [
    "Completion",
    "ESampConfig",
    "Engine",
    "EsampError",
    "Failure",
    "HFEngine",
    "Request",
    "Run",
    "Sample",
    "Sampling",
    "TokenTrace",
    "VLLMEngine",
    "answer",
    "explore",
    "load",
]

_HOME = {
    "Completion": "esamp.engines.base",
    "ESampConfig": "esamp.explorer.config",
    "Engine": "esamp.engines.base",
    "EsampError": "esamp.errors",
    "Failure": "esamp.engines.base",
    "HFEngine": "esamp.engines.hf",
    "Request": "esamp.engines.base",
    "Run": "esamp.engines.hf",
    "Sample": "esamp.engines.base",
    "Sampling": "esamp.sampling",
    "TokenTrace": "esamp.engines.token_trace",
    "VLLMEngine": "esamp.engines.vllm.engine",
    "answer": "esamp.search.base",
    "explore": "esamp.engines.hf",
    "load": "esamp.engines.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import esamp`` alone does not import torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("esamp")
    if name not in _HOME:
        raise AttributeError(f"module 'esamp' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names and nothing else, whether they are imported yet or not."""
    return sorted({*__all__, "__version__"})
