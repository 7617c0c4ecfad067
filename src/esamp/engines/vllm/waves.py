"""`Gate`: which samples may start now. It knows names and the time it is told; nothing of vLLM is in it.

A request's samples come one by one and start wave by wave: a wave once all of its samples have come and none of an
earlier wave is left. Whoever waits for samples that do not come loses patience. Groups may have to wait for a place.
"""

import math
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


@dataclass(frozen=True)
class Plan:
    """How the samples of one request start."""

    group: Hashable
    """what takes one place: the request itself, or a group that it shares with others"""
    sizes: tuple[int, ...] = ()
    """samples in each wave; empty when nobody knows how many there are, and none waits for another"""


class Start(NamedTuple):
    """A sample that starts now."""

    sample: str
    later: bool
    """whether it is of a later wave than the first that had any"""


class Gate:
    """Holds samples back until they may start. Every sample comes out once, or ends while it is held."""

    def __init__(self, *, places: int | None = None, patience: float) -> None:
        """Let in `places` groups at a time (None: all); wait `patience` seconds after a request's latest sample."""
        self._line = _Line(math.inf if places is None else places)
        self._patience = patience
        self._requests: dict[str, _Request] = {}
        self._samples: dict[str, tuple[_Request, int]] = {}  # that have come and not ended
        self._changed: dict[_Request, None] = {}  # may have something to start, or wait for samples to come

    def __contains__(self, request: str) -> bool:
        """Whether samples of the request have come, and not all that are to come have ended."""
        return request in self._requests

    def __len__(self) -> int:
        """Samples that are here, held or running."""
        return len(self._samples)

    def arrive(self, sample: str, request: str, index: int, plan: Plan, now: float) -> list[Start]:
        """Sample `index` of `request` has come at `now`: the samples that start, often none or this one.

        `plan` counts when the request is new (not ``in`` the gate). A sample that runs already starts again.
        """
        if sample in self._samples:
            return [Start(sample, False)] if sample in self._samples[sample][0].running else []
        if request not in self._requests:
            self._requests[request] = _Request(request, plan)
            self._line.join(self._requests[request])
        its = self._requests[request]
        its.arrive(sample, index, now)
        self._samples[sample] = its, index
        return self._look(its, now)

    def ended(self, sample: str) -> None:
        """A sample has finished or was aborted, running or held. What that lets in comes with the next `ready`."""
        its, index = self._samples.pop(sample, (None, 0))
        if its is not None:
            its.end(sample, index)
            self._changed[its] = None

    def ready(self, now: float) -> list[Start]:
        """Samples that start at `now`, in the order in which they run."""
        found: list[Start] = []
        while True:
            again = list(self._changed)
            started = [start for its in again for start in self._look(its, now)]
            found += started
            if self._changed.keys() <= set(again):  # nobody was let in meanwhile
                return found

    def _look(self, its: "_Request", now: float) -> list[Start]:
        inside, overdue = self._line.admits(its), now - its.latest >= self._patience
        started = its.starts(overdue) if inside else []
        if not its.here and (overdue or not inside or not its.incomplete):
            del self._requests[its.name]
            self._changed.pop(its, None)
            self._changed.update(dict.fromkeys(self._line.leave(its)))
        elif inside and not its.running:
            self._changed[its] = None
        else:
            self._changed.pop(its, None)
        return started


class _Wave:
    """Samples of a request that start together."""

    def __init__(self, size: int) -> None:
        self.held: dict[int, str] = {}
        self._size = size
        self._came: set[int] = set()

    @property
    def missing(self) -> bool:
        """Whether some are still to come."""
        return len(self._came) < self._size

    def arrive(self, sample: str, index: int) -> None:
        """Hold a sample."""
        self._came.add(index)
        self.held[index] = sample

    def take(self) -> list[str]:
        """What is held, by index."""
        taken = [self.held[index] for index in sorted(self.held)]
        self.held.clear()
        return taken


class _Request:
    """The samples of one request."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name, self.group = name, plan.group
        self.running: set[str] = set()
        self.latest = -math.inf
        self._stops = list(accumulate(plan.sizes or (0,)))
        self._waves = [_Wave(size) for size in plan.sizes or (0,)]
        self._opened = 0

    def arrive(self, sample: str, index: int, now: float) -> None:
        """Hold a sample that has come."""
        self._wave(index).arrive(sample, index)
        self.latest = now

    def end(self, sample: str, index: int) -> None:
        """Forget a sample that has ended."""
        self.running.discard(sample)
        wave = self._wave(index)
        if wave.held.get(index) == sample:
            del wave.held[index]

    def starts(self, overdue: bool) -> list[Start]:
        """Late samples of waves that have started, and the next wave if none runs and it is complete or `overdue`."""
        found = [sample for wave in self._waves[: self._opened] for sample in wave.take()]
        while not (self.running or found) and self._opened < len(self._waves):
            wave = self._waves[self._opened]
            if wave.missing and not overdue:
                break
            self._opened += 1
            found = wave.take()
        self.running.update(found)
        return [Start(sample, self._opened > 1) for sample in found]

    @property
    def here(self) -> bool:
        """Whether any sample runs or is held."""
        return bool(self.running) or any(wave.held for wave in self._waves)

    @property
    def incomplete(self) -> bool:
        """Whether samples are still to come."""
        return any(wave.missing for wave in self._waves)

    def _wave(self, index: int) -> _Wave:
        return self._waves[min(bisect_right(self._stops, index), len(self._waves) - 1)]


class _Line:
    """Groups inside, at most `places`, and those that wait to get in, first come first served."""

    def __init__(self, places: float) -> None:
        self._places = places
        self._inside: dict[Hashable, dict[_Request, None]] = {}
        self._waiting: dict[Hashable, dict[_Request, None]] = {}

    def admits(self, its: _Request) -> bool:
        """Whether its group is inside."""
        return its.group in self._inside

    def join(self, its: _Request) -> None:
        """Let it in with its group, or behind the others."""
        enters = its.group in self._inside or len(self._inside) < self._places
        (self._inside if enters else self._waiting).setdefault(its.group, {})[its] = None

    def leave(self, its: _Request) -> Sequence[_Request]:
        """Take it out: the requests that get in for it, when it was the last of its group."""
        side = self._inside if self.admits(its) else self._waiting
        del side[its.group][its]
        if side[its.group]:
            return ()
        del side[its.group]
        if side is self._waiting or not self._waiting:
            return ()
        following = next(iter(self._waiting))
        self._inside[following] = self._waiting.pop(following)
        return list(self._inside[following])
