"""`Cost`: what a completion cost, in tokens, calls and seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The cost of a completion, so that methods can be compared at equal cost."""

    tokens: int
    """generated tokens, including those of discarded samples"""
    prompt_tokens: int
    """tokens of prompts; each prompt counts once, whatever its number of samples"""
    calls: int
    """samples drawn from the model"""
    seconds: float
    """wall time; that of the batch for requests that shared one"""

    def __add__(self, other: Cost) -> Cost:
        """The cost of both, one after the other."""
        return Cost(
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
            self.calls + other.calls,
            self.seconds + other.seconds,
        )
