"""`BenchOptions`: the options of ``esamp bench``, declared once."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import Field

from esamp.errors import OptionError
from esamp.models import EMBEDDED
from esamp.models.shapes import SHAPES
from esamp.options import Options

Benchmark: TypeAlias = Literal["throughput", "diversity", "scaling"]
TOKENS, SHAPE_TOKENS, DIVERSITY_TOKENS = 64, 32, 128
"""Default tokens of each sample: of a timed model, of a shape (a step may take a second on a CPU), and of texts whose
diversity is measured."""

_MODEL = frozenset({"model", "n", "tokens", "device", "dtype"})
USED: Mapping[Benchmark, frozenset[str]] = {
    "throughput": _MODEL | {"engine", "shape", "prompts", "pairs", "method", "against", "count", "full", "capture"},
    "diversity": _MODEL | {"seeds", "embedder", "prompt"},
    "scaling": frozenset({"device", "dtype", "method", "out", "capture"}),
}
"""The options that each measurement reads."""


class BenchOptions(Options):
    """What ``esamp bench`` measures, on which model and device."""

    engine: Literal["hf", "vllm"] = "hf"
    """throughput: the library that runs the model"""
    model: str = EMBEDDED
    """throughput, diversity: hub name, folder, countdown or smollm2"""
    shape: str | None = Field(
        default=None,
        description=f"throughput: a model of this shape with random weights, instead of --model: {', '.join(SHAPES)}",
    )
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """number format of the model's weights; for scaling, of the random states"""
    prompts: int = Field(default=1, ge=1, le=65536)
    """throughput: prompts decoded at the same time"""
    n: int = Field(default=16, ge=2, le=65536)
    """throughput, diversity: samples of each prompt"""
    tokens: int | None = Field(
        default=None,
        ge=2,
        description=f"throughput, diversity: tokens of each sample; by default {TOKENS}, with --shape {SHAPE_TOKENS}, "
        f"for diversity {DIVERSITY_TOKENS}",
    )
    pairs: int = Field(default=5, ge=1, le=100_000)
    """throughput: interleaved pairs of runs; with --against, rounds of three or more runs"""
    method: str = "esamp"
    """throughput, scaling: the method, which may have options as in override:heads=published; the options of esamp
    have flags of their own below"""
    against: tuple[str, ...] = ()
    """throughput: another method to measure in the same rounds, written as for --method"""
    count: bool = False
    """throughput: count the launches and bytes of a decode step instead of timing it"""
    full: bool = False
    """throughput: with full telemetry, which needs a second projection by the LM head"""
    capture: bool = False
    """throughput with --engine vllm, scaling: replay the kernels of esamp's steps as CUDA graphs"""
    seeds: int = Field(default=2, ge=1, le=1000)
    """diversity: number of seeds"""
    embedder: Literal["auto", "ngram", "minilm"] = "auto"
    """diversity: what the similarity of texts is computed from"""
    prompt: tuple[str, ...] = ()
    """diversity: a text to continue; by default beginnings of stories, or Countdown for the embedded model"""
    out: str | None = None
    """scaling: folder in which scaling.csv and scaling.svg are written"""

    def check(self, what: Benchmark) -> None:
        """Check that `what` uses all options that are set, and that they do not contradict each other.

        Raises:
            OptionError: an option has no effect; the message names it.
        """
        for name in sorted(self.model_fields_set - USED[what]):
            users = " and ".join(other for other, used in USED.items() if name in used)
            raise OptionError(f"option {name!r} has no effect on {what}: it belongs to {users}, so leave it out")
        if self.shape is not None and "model" in self.model_fields_set:
            raise OptionError("give --model or --shape, not both")
        if self.capture and what == "throughput" and self.engine != "vllm":
            raise OptionError("option 'capture' has no effect on engine 'hf': leave it out, or set engine = 'vllm'")
        if self.count and "pairs" in self.model_fields_set:
            raise OptionError("option 'pairs' has no effect with --count, which times nothing: leave it out")

    @property
    def timed_tokens(self) -> int:
        """`tokens`, or the default for this model or shape."""
        return self.tokens or (SHAPE_TOKENS if self.shape else TOKENS)
