"""`Group` and `LiveSample`: the groups and samples that explore. Host memory only; independent of vLLM."""

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from esamp.engines.base import SEED_LIMIT
from esamp.engines.vllm.workers.method_pool import BuiltMethod


@dataclass(eq=False)
class Group:
    """Samples that share a slot: those of one request, or of all requests that name the same group."""

    key: Hashable
    built: BuiltMethod | None = None
    slot: int | None = None
    refused: str | None = None
    """why the group runs as plain sampling"""
    live: set[str] = field(default_factory=set)
    """engine ids of its samples that have not ended"""
    expected: int | None = None
    """samples that have not arrived yet; None if unknown"""
    trace: bool = False
    report: Callable[[], Mapping[str, float]] | None = None
    """returns the telemetry, once the slot has been released"""

    def telemetry(self) -> Mapping[str, float]:
        """What the method did for the group so far. Synchronises with the device."""
        if self.report is not None:
            return self.report()
        if self.built is None or self.slot is None:
            return {"groups_refused": 1.0}
        return self.built.method.telemetry(self.slot)


@dataclass(frozen=True)
class SampleSettings:
    """Settings of a sample in vLLM's ``SamplingParams`` that methods need."""

    stops: tuple[int, ...] = ()
    """tokens that end it"""
    limit: int = 2**62
    """most tokens"""
    seed: int | None = None
    """vLLM adds a sample's index to the seed of its request"""
    temperature: float = 1.0


@dataclass
class LiveSample:
    """A sample that explores and has not ended. While it is scheduled, it is a row of the batch."""

    group: Group
    parent: str
    """the request that it belongs to"""
    index: int
    count: int
    """n of the request; 0 if unknown"""
    settings: SampleSettings
    trace: list[Tensor]
    """with a trace, `[3]` per token: novelty, KL and surprisal as in `esamp.engines.token_trace.TokenTrace`"""

    @property
    def seed(self) -> int:
        """The request's seed, equal for all its samples on all ranks; derived from its id if it has none."""
        if self.settings.seed is not None:
            return (self.settings.seed - self.index) % SEED_LIMIT
        return int.from_bytes(hashlib.blake2b(self.parent.encode(), digest_size=8).digest(), "little") % SEED_LIMIT
