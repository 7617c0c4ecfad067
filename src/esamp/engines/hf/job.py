"""`Job`: a request in progress, with its encoded prompt, random numbers and finished samples."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from esamp.engines.base import Completion, Cost, Request, Sample
from esamp.engines.hf import beams


@dataclass
class Job:
    """A request in progress."""

    request: Request
    prompt: list[int]
    limit: int
    """most tokens of a sample"""
    uniforms: Tensor
    """`[n, limit]` float64: the random numbers of its samples"""
    samples: list[Sample] = field(default_factory=list)
    found: beams.Found | None = None
    """the result of a beam search"""


def completion(job: Job, seconds: float, telemetry: Mapping[str, float]) -> Completion:
    """The completion of a job whose samples are all finished."""
    prompt_tokens, found = len(job.prompt), job.found
    spent = Cost(found.generated, prompt_tokens, job.request.n, seconds) if found else None
    details = found.details if found else {}
    return Completion(job.request, tuple(job.samples), prompt_tokens, seconds, telemetry, spent, details)


def kind(job: Job) -> tuple[object, ...]:
    """Equal for jobs that can share a generate call."""
    request = job.request
    return request.own_sampling, request.method, request.own_options, request.n, job.limit
