"""`BenchOptions`: what `esamp bench` measures, declared once."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import Field

from esamp.errors import OptionError
from esamp.models import EMBEDDED
from esamp.models.shapes import SHAPES
from esamp.options import Options

What: TypeAlias = Literal["throughput", "diversity", "scaling"]
TOKENS, SHAPE_TOKENS, DIVERSITY_TOKENS = 64, 32, 128
"""Tokens of each sample by default: of a model that is timed, of a shape, whose steps may take a second on a CPU, and
of texts whose diversity is measured."""

_MODEL = frozenset({"model", "n", "tokens", "device", "dtype"})
USED: Mapping[What, frozenset[str]] = {
    "throughput": _MODEL | {"engine", "shape", "prompts", "pairs", "method", "against", "count", "full"},
    "diversity": _MODEL | {"seeds", "embedder", "prompt"},
    "scaling": frozenset({"device", "dtype", "method", "out"}),
}
"""The options that each measurement reads."""


class BenchOptions(Options):
    """What is measured, and where."""

    engine: Literal["hf", "vllm"] = "hf"
    """throughput: what runs the model"""
    model: str = EMBEDDED
    """throughput, diversity: hub name, folder, countdown or smollm2"""
    shape: str | None = Field(
        None, description=f"throughput: made-up weights of this shape instead of a model: {', '.join(SHAPES)}"
    )
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """number format of the model's weights; scaling: of the random states"""
    prompts: int = Field(1, ge=1, le=65536)
    """throughput: prompts side by side"""
    n: int = Field(16, ge=2, le=65536)
    """throughput, diversity: samples of each prompt"""
    tokens: int | None = Field(
        None,
        ge=2,
        description=f"throughput, diversity: tokens of each sample, by default {TOKENS}, of a shape {SHAPE_TOKENS}, "
        f"for diversity {DIVERSITY_TOKENS}",
    )
    pairs: int = Field(5, ge=1, le=100_000)
    """throughput: interleaved pairs of runs; with --against, rounds of three runs and more"""
    method: str = "esamp"
    """throughput, scaling: what is measured, a method with options as in override:heads=published; esamp itself takes
    its options from the flags below"""
    against: tuple[str, ...] = ()
    """throughput: a method that runs in the same rounds, written in the same way"""
    count: bool = False
    """throughput: count what a decode step launches and moves, instead of timing it"""
    full: bool = False
    """throughput: with the telemetry that costs a second projection"""
    seeds: int = Field(2, ge=1, le=1000)
    """diversity: seeds"""
    embedder: Literal["auto", "ngram", "minilm"] = "auto"
    """diversity: what texts are compared by"""
    prompt: tuple[str, ...] = ()
    """diversity: a text to continue; by default stories, or Countdown for the embedded model"""
    out: str | None = None
    """scaling: a folder for scaling.csv and scaling.svg"""

    def check(self, what: What) -> None:
        """Refuse options that `what` does not read, and those that exclude each other.

        Raises:
            OptionError: naming the option.
        """
        for name in sorted(self.model_fields_set - USED[what]):
            users = " and ".join(other for other, used in USED.items() if name in used)
            raise OptionError(f"option {name!r} does nothing for {what}, it belongs to {users}: leave it out")
        if self.shape is not None and "model" in self.model_fields_set:
            raise OptionError("give --model or --shape, not both")
        if self.count and "pairs" in self.model_fields_set:
            raise OptionError("option 'pairs' does nothing with --count, which times nothing: leave it out")

    @property
    def timed_tokens(self) -> int:
        """`tokens`, or their default for this model or shape."""
        return self.tokens or (SHAPE_TOKENS if self.shape else TOKENS)
