"""The tables of a study's TOML file, as they are declared: what the study says once, its models, tasks and methods."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from esamp.metrics.embedding import DEFAULT_MODEL
from esamp.options import Options
from esamp.runs.failures import FailureOptions
from esamp.runs.job import ModelOptions

MOST_ITEMS = 10_000_000
"""Problems of a task."""


class StudyOptions(FailureOptions):
    """What a study says once, beside its lists of models, tasks and methods."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.+ -]+$")
    """what reports call it"""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field((0,), min_length=1, strict=False)
    """every cell is run with each of them"""
    groups: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] = Field((16,), min_length=1, strict=False)
    """how many samples a group has; each size is run by itself"""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """settings of the sampler that all methods start from"""
    embedder: str = DEFAULT_MODEL
    """sentence-transformers model that the report compares texts with: a hub name, a folder, or "none" """
    second_model: str = "none"
    """model under which the report measures every text's perplexity, a hub name or a folder"""
    likelihood: bool = True
    """whether the report measures perplexity and entropy under the model that drew the samples"""
    entropy: bool = True
    """whether entropy is one of them; without it engine vllm measures perplexity while drawing, which is faster"""
    words: bool = True
    """whether the report counts non-words, which takes English texts and the package wordfreq"""
    traces: bool = False
    """keep what the method saw at every token, for the report's novelty analysis and heat map (engine hf)"""


class ModelSpec(ModelOptions):
    """One model on one engine."""

    label: str | None = None
    """what reports call it; by default its name"""

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.label or Path(self.model).name


class TaskSpec(Options):
    """One task and how much of it."""

    task: str
    """its name, as `esamp study tasks` lists them"""
    label: str | None = None
    """what reports call it; by default its name"""
    skip: int = Field(0, ge=0, le=MOST_ITEMS)
    """leave out the first so many problems"""
    limit: int | None = Field(None, ge=1, le=MOST_ITEMS)
    """only so many problems"""
    options: dict[str, Any] = Field(default_factory=dict)
    """the task's own"""

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.label or self.task


class MethodSpec(Options):
    """One method, or a grid of its options."""

    method: str
    """one method, or several joined by +"""
    label: str | None = None
    """what reports call it; by default its name and options"""
    options: dict[str, Any] = Field(default_factory=dict)
    """the method's own"""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """changes to the study's sampler settings"""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """values to try of some options (or of sampler settings, as "sampling.temperature"): every combination is an arm"""
    baseline: bool = False
    """what all others are compared with; the first vanilla one if no method says so"""
