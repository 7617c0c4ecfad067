"""`Sampling`: the ordinary sampler's settings, the same for every engine."""

from typing import Annotated

from pydantic import Field

from esamp.options import Options

DEFAULT_TOKENS = 512
"""Most tokens of a sample if the request sets no `max_tokens`."""


class Sampling(Options):
    """Settings of the ordinary sampler, applied in the order temperature, min-p, top-k, top-p."""

    temperature: float = Field(default=1.0, ge=0, le=100)
    """softmax temperature; 0 decodes greedily"""
    top_k: int = Field(default=0, ge=0, lt=2**31)
    """keep the k most likely tokens; 0 keeps all"""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """keep the most likely tokens whose probabilities sum to p"""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """keep tokens with at least this share of the top token's probability"""
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    """divide positive logits of tokens already in the text, prompt included, by this, and multiply negative ones"""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """subtract this from the logits of tokens already generated"""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """subtract this from a token's logit for each time it was generated"""
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    """generate at most this many tokens a sample; by default what the model's context holds, at most 512"""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), strict=False)
    """end a sample at the first of these texts"""
