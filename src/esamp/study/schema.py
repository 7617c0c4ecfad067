"""The tables of a study's TOML file as option classes: the study itself, its models, tasks and methods."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import override

from esamp.errors import InputError
from esamp.metrics.embedding import DEFAULT_MODEL
from esamp.options import Options
from esamp.runs.failures import FailureOptions
from esamp.runs.job import ModelOptions

MOST_ITEMS = 10_000_000
"""Largest number of problems of a task."""


class StudyOptions(FailureOptions):
    """The keys of a study outside of its lists of models, tasks and methods."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.+ -]+$")
    """the study's name in reports"""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1, strict=False)
    """every cell is run with each of these seeds"""
    groups: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] = Field(default=(16,), min_length=1, strict=False)
    """samples of a group; each size is run separately"""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """settings of the sampler that all methods start from"""
    embedder: str = DEFAULT_MODEL
    """sentence-transformers model with which the report compares texts: a hub name, a folder, or "none" """
    second_model: str = "none"
    """model under which the report measures the perplexity of every text, a hub name or a folder"""
    likelihood: bool = True
    """whether the report measures perplexity and entropy under the model that drew the samples"""
    entropy: bool = True
    """whether entropy is one of them; without it engine vllm measures perplexity while drawing, which is faster"""
    words: bool = True
    """whether the report counts non-words, which takes English texts and the package wordfreq"""
    traces: bool = False
    """keep measurements of every token for the report's novelty analysis and heat map (engine hf)"""


class ModelSpec(ModelOptions):
    """One model on one engine."""

    placement: ClassVar[frozenset[str]] = ModelOptions.placement | {"label"}

    label: str | None = None
    """the model's name in reports; by default the last part of its path"""

    @property
    def name(self) -> str:
        return self.label or Path(self.model).name

    @override
    def chats(self) -> bool:
        try:
            return super().chats()
        except InputError as error:
            raise InputError(
                f"{error}; if only its chat template is missing, write chat = true or chat = false"
            ) from error


class TaskSpec(Options):
    """One task and which of its problems are used."""

    task: str
    """the task's name, as `esamp study tasks` lists it"""
    label: str | None = None
    """the task's name in reports; by default `task`"""
    skip: int = Field(default=0, ge=0, le=MOST_ITEMS)
    """leave out this many problems from the beginning"""
    limit: int | None = Field(default=None, ge=1, le=MOST_ITEMS)
    """use at most this many problems"""
    options: dict[str, Any] = Field(default_factory=dict)
    """the task's own options"""

    @property
    def name(self) -> str:
        return self.label or self.task


class MethodSpec(Options):
    """One method, or a grid of its options."""

    method: str
    """one method, or several joined by +"""
    label: str | None = None
    """the method's name in reports; by default its name and options"""
    options: dict[str, Any] = Field(default_factory=dict)
    """the method's own options"""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """changes to the study's sampler settings"""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """values of some options (or of sampler settings, as "sampling.temperature"); every combination is an arm"""
    baseline: bool = False
    """whether all others are compared with this arm; by default with the first vanilla one"""
