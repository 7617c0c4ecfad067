"""`JudgeOptions`: the options of ``esamp judge``, declared once."""

from typing import Any, Literal

from pydantic import Field, field_validator

from esamp.judge.prompt import CRITERIA, VERSION
from esamp.options import Options


class JudgeOptions(Options):
    """How groups of samples are compared, and by which models."""

    judge: tuple[str, ...] = Field(min_length=1, strict=False)
    """name of a model on the server; several judges compare the same groups"""
    base_url: str = ""
    """the server's address, as in http://127.0.0.1:8000/v1; by default $OPENAI_BASE_URL"""
    mode: Literal["pairwise", "ranked"] = "pairwise"
    """pairwise compares two groups at a time, ranked orders all groups of a problem"""
    criterion: str = "diversity"
    """diversity, quality or novelty, or a sentence of your own that says which group is better"""
    arms: tuple[str, ...] = Field(default=(), strict=False)
    """compare only these arms: their labels, separated by commas"""
    task: tuple[str, ...] = Field(default=(), strict=False)
    """compare only samples of these tasks"""
    groups: tuple[int, ...] = Field(default=(), strict=False)
    """compare only groups of these sizes"""
    limit: int | None = Field(default=None, ge=1, lt=2**31)
    """compare only this many problems of each task, the first ones"""
    rounds: int = Field(default=1, ge=1, le=1000)
    """how often each comparison is repeated; in one round every group is shown once at every place"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the random orders of groups and samples"""
    samples: int | None = Field(default=None, ge=1, lt=2**31)
    """show at most this many samples of a group, drawn at random"""
    sample_chars: int = Field(default=2000, ge=1, le=10_000_000)
    """show at most this many characters of a sample, from its beginning"""
    prompt_chars: int = Field(default=8000, ge=1, le=10_000_000)
    """show at most this many characters of a problem, from its end"""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """sampling temperature of the judge"""
    max_tokens: int = Field(default=4096, ge=1, lt=2**31)
    """most tokens of the judge's answer, including its reasoning"""
    extra: dict[str, Any] = Field(default_factory=dict)
    """additional fields of the request to the judge; null removes a field, as in {"seed": null}"""
    again: int = Field(default=2, ge=0, le=100)
    """how often a presentation is repeated if the answer has no readable verdict"""
    parallel: int = Field(default=8, ge=1, le=10_000)
    """most requests at the same time"""
    timeout: float = Field(default=600.0, gt=0, le=1e6)
    """seconds to wait for a complete answer"""
    retries: int = Field(default=4, ge=0, le=100)
    """how often a request is sent again if the server is busy or fails, after growing pauses"""

    @field_validator("criterion")
    @classmethod
    def _check_criterion(cls, value: str) -> str:
        if value not in CRITERIA and len(value.split()) < 3:
            raise ValueError(f"expected one of {', '.join(CRITERIA)}, or a sentence that says which group is better")
        return value

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("messages", "model", "n", "stream"):
            if name in value:
                raise ValueError(f"{name} cannot be set: esamp judge sets it itself")
        return value

    def settings(self) -> dict[str, Any]:
        """The settings that all verdicts of a file share. A file may gain judges, arms, tasks, rounds and problems."""
        kept = ("mode", "criterion", "seed", "samples", "sample_chars", "prompt_chars", "temperature", "max_tokens")
        values = self.model_dump(mode="json", include={*kept, "extra", "again"})
        return {"judging": {**values, "prompt": VERSION}}
