"""`Step`: what `HFEngine` reports of its samples while they are drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from esamp.engines.base import Progress
from esamp.engines.hf.traces import Trace
from esamp.engines.streaming import StreamedTexts


@dataclass(frozen=True)
class Step:
    """One token of each unfinished sample of a wave. Rows come prompt by prompt: B = prompts x size."""

    prompts: Sequence[Sequence[int]]
    """token ids of each prompt in the batch"""
    first: int
    """index of each prompt's first sample in this wave"""
    size: int
    """samples of each prompt in this wave"""
    tokens: Tensor
    """`[B]`: the sampled tokens; padding in rows that are not live"""
    live: Tensor
    """`[B]` bool: rows that drew a token in this step"""
    trace: Callable[[], Trace] | None
    """measurements of the wave's tokens so far, which wait for the device; None if the engine keeps no traces or no
    method acts on decode steps"""


OnStep: TypeAlias = Callable[[Step], None]
"""Called after each decode step. An exception ends the decoding, and the caller of the engine gets it."""


@dataclass(frozen=True)
class Listeners:
    """Whom the engine tells about its progress."""

    progress: Progress | None = None
    on_step: OnStep | None = None


def passed_to(texts: StreamedTexts) -> OnStep:
    """Pass the tokens of a request that has its batch to itself on to `texts`."""

    def on_step(step: Step) -> None:
        for row, (token, live) in enumerate(zip(step.tokens.tolist(), step.live.tolist(), strict=True)):
            if live:
                texts.add(step.first + row, step.prompts[0], [token])

    return on_step
