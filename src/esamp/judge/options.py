"""What is asked of whom."""

from typing import Any, Literal

from pydantic import Field, field_validator

from esamp.judge.prompt import CRITERIA, VERSION
from esamp.options import Options


class JudgeOptions(Options):
    """How groups of samples are compared, and by which models."""

    judge: tuple[str, ...] = Field(min_length=1, strict=False)
    """name of a model at the server; several judges judge the same"""
    base_url: str = ""
    """the server's address, as in http://127.0.0.1:8000/v1; by default $OPENAI_BASE_URL"""
    mode: Literal["pairwise", "ranked"] = "pairwise"
    """two groups at a time, or all of them put in order"""
    criterion: str = "diversity"
    """diversity, quality or novelty, or a sentence of your own that says which group is better"""
    arms: tuple[str, ...] = Field((), strict=False)
    """only these ways to decode, by their labels, separated by commas"""
    task: tuple[str, ...] = Field((), strict=False)
    """only these tasks of the study"""
    groups: tuple[int, ...] = Field((), strict=False)
    """only groups of these sizes"""
    limit: int | None = Field(None, ge=1, lt=2**31)
    """only the first so many problems of each task"""
    rounds: int = Field(1, ge=1, le=1000)
    """how often everything is compared; in a round every group stands at every place once"""
    seed: int = Field(0, ge=0, lt=2**63)
    """of the orders in which groups and samples are shown"""
    samples: int | None = Field(None, ge=1, lt=2**31)
    """show at most so many samples of a group, drawn by the seed"""
    sample_chars: int = Field(2000, ge=1, le=10_000_000)
    """show at most so many characters of a sample, its beginning"""
    prompt_chars: int = Field(8000, ge=1, le=10_000_000)
    """show at most so many characters of a problem, its end"""
    temperature: float = Field(0.0, ge=0, le=2)
    """of the judge"""
    max_tokens: int = Field(4096, ge=1, lt=2**31)
    """length of the judge's answer, thinking included"""
    extra: dict[str, Any] = Field(default_factory=dict)
    """more fields of the request to the judge; null takes one out, as in {"seed": null}"""
    again: int = Field(2, ge=0, le=100)
    """how often an answer without a readable verdict is asked for again"""
    parallel: int = Field(8, ge=1, le=10_000)
    """most requests at a time"""
    timeout: float = Field(600.0, gt=0, le=1e6)
    """seconds to wait for a whole answer"""
    retries: int = Field(4, ge=0, le=100)
    """how often a request is sent again when the server is busy or fails, with growing pauses"""

    @field_validator("criterion")
    @classmethod
    def _a_name_or_a_sentence(cls, value: str) -> str:
        if value not in CRITERIA and len(value.split()) < 3:
            raise ValueError(f"give one of {', '.join(CRITERIA)}, or a sentence that says which group is better")
        return value

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("messages", "model", "n", "stream"):
            if name in value:
                raise ValueError(f"{name} is decided here")
        return value

    def settings(self) -> dict[str, Any]:
        """What one file of verdicts has in common. Judges, arms, tasks, rounds and problems can be added to it."""
        kept = ("mode", "criterion", "seed", "samples", "sample_chars", "prompt_chars", "temperature", "max_tokens")
        values = self.model_dump(mode="json", include={*kept, "extra", "again"})
        return {"judging": {**values, "prompt": VERSION}}
