"""`Gate`: decides which samples may start now, from their ids and arrival times alone. Independent of vLLM.

The samples of a request arrive one by one and start wave by wave: a wave starts when all of its samples have arrived
and those of the wave before have ended. It starts incomplete if no sample has arrived for `patience` seconds. Groups
may have to wait for one of a limited number of places.
"""

import math
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


@dataclass(frozen=True)
class WavePlan:
    """How the samples of one request start."""

    group: Hashable
    """occupies one place: the request itself, or a group that it shares with other requests"""
    sizes: tuple[int, ...] = ()
    """samples in each wave; empty where the number of samples is unknown, so that each starts when it arrives"""


class Start(NamedTuple):
    """A sample that starts now."""

    sample: str
    later: bool
    """whether a wave of its request has started before this one"""


class Gate:
    """Holds samples back until they may start. Every sample starts once, or ends while it is held."""

    def __init__(self, *, places: int | None = None, patience: float) -> None:
        """Admit `places` groups at a time (None: all); wait `patience` seconds after the last arrival of a request."""
        self._groups = _GroupQueue(math.inf if places is None else places)
        self._patience = patience
        self._requests: dict[str, _Request] = {}
        self._samples: dict[str, tuple[_Request, int]] = {}  # arrived and not ended
        self._pending: dict[_Request, None] = {}  # may have something to start, or wait for samples to arrive

    def __contains__(self, request_id: str) -> bool:
        """Whether samples of the request have arrived, and not all expected ones have ended."""
        return request_id in self._requests

    def __len__(self) -> int:
        """Samples that are held or running."""
        return len(self._samples)

    def arrive(self, sample: str, request_id: str, index: int, plan: WavePlan, now: float) -> list[Start]:
        """Add sample `index` of a request at time `now`. Returns the samples that start: often none, or this one.

        `plan` is used when the request is new (not ``in`` the gate). A sample that is running already starts again.
        """
        if sample in self._samples:
            return [Start(sample, later=False)] if sample in self._samples[sample][0].running else []
        if request_id not in self._requests:
            self._requests[request_id] = _Request(request_id, plan)
            self._groups.join(self._requests[request_id])
        request = self._requests[request_id]
        request.arrive(sample, index, now)
        self._samples[sample] = request, index
        return self._update(request, now)

    def ended(self, sample: str) -> None:
        """Note that a running or held sample has ended. Samples that start because of it come with the next `ready`."""
        request, index = self._samples.pop(sample, (None, 0))
        if request is not None:
            request.end(sample, index)
            self._pending[request] = None

    def ready(self, now: float) -> list[Start]:
        """Samples that start at time `now`, in the order in which they run."""
        starts: list[Start] = []
        while True:
            requests = list(self._pending)
            starts += [start for request in requests for start in self._update(request, now)]
            if self._pending.keys() <= set(requests):  # no further group was admitted meanwhile
                return starts

    def _update(self, request: "_Request", now: float) -> list[Start]:
        """Start what may start of a request, and forget it once nothing of it is left."""
        admitted, overdue = self._groups.admits(request), now - request.latest >= self._patience
        started = request.starts(overdue=overdue) if admitted else []
        if not request.has_samples and (overdue or not admitted or not request.incomplete):
            del self._requests[request.name]
            self._pending.pop(request, None)
            self._pending.update(dict.fromkeys(self._groups.leave(request)))
        elif admitted and not request.running:
            self._pending[request] = None
        else:
            self._pending.pop(request, None)
        return started


class _Wave:
    """Samples of a request that start together."""

    def __init__(self, size: int) -> None:
        self.held: dict[int, str] = {}
        self._size = size
        self._arrived: set[int] = set()

    @property
    def incomplete(self) -> bool:
        """Whether some of its samples have not arrived."""
        return len(self._arrived) < self._size

    def arrive(self, sample: str, index: int) -> None:
        self._arrived.add(index)
        self.held[index] = sample

    def take(self) -> list[str]:
        """Release the held samples, in the order of their indexes."""
        taken = [self.held[index] for index in sorted(self.held)]
        self.held.clear()
        return taken


class _Request:
    def __init__(self, name: str, plan: WavePlan) -> None:
        self.name, self.group = name, plan.group
        self.running: set[str] = set()
        self.latest = -math.inf
        self._stops = list(accumulate(plan.sizes or (0,)))
        self._waves = [_Wave(size) for size in plan.sizes or (0,)]
        self._started = 0

    def arrive(self, sample: str, index: int, now: float) -> None:
        self._wave(index).arrive(sample, index)
        self.latest = now

    def end(self, sample: str, index: int) -> None:
        self.running.discard(sample)
        wave = self._wave(index)
        if wave.held.get(index) == sample:
            del wave.held[index]

    def starts(self, *, overdue: bool) -> list[Start]:
        """Late samples of started waves, and the next wave if no sample runs and it is complete or `overdue`."""
        samples = [sample for wave in self._waves[: self._started] for sample in wave.take()]
        while not (self.running or samples) and self._started < len(self._waves):
            wave = self._waves[self._started]
            if wave.incomplete and not overdue:
                break
            self._started += 1
            samples = wave.take()
        self.running.update(samples)
        return [Start(sample, later=self._started > 1) for sample in samples]

    @property
    def has_samples(self) -> bool:
        """Whether any sample is running or held."""
        return bool(self.running) or any(wave.held for wave in self._waves)

    @property
    def incomplete(self) -> bool:
        """Whether samples of any wave have not arrived."""
        return any(wave.incomplete for wave in self._waves)

    def _wave(self, index: int) -> _Wave:
        return self._waves[min(bisect_right(self._stops, index), len(self._waves) - 1)]


class _GroupQueue:
    """At most `places` admitted groups, and those that wait to be admitted, first come first served."""

    def __init__(self, places: float) -> None:
        self._places = places
        self._admitted: dict[Hashable, dict[_Request, None]] = {}
        self._waiting: dict[Hashable, dict[_Request, None]] = {}

    def admits(self, request: _Request) -> bool:
        """Whether the request's group is admitted."""
        return request.group in self._admitted

    def join(self, request: _Request) -> None:
        """Admit the request if its group is admitted or a place is free; else queue it."""
        enters = request.group in self._admitted or len(self._admitted) < self._places
        (self._admitted if enters else self._waiting).setdefault(request.group, {})[request] = None

    def leave(self, request: _Request) -> Sequence[_Request]:
        """Remove the request. Returns the requests of the group that is admitted in place of its own, if any."""
        side = self._admitted if self.admits(request) else self._waiting
        del side[request.group][request]
        if side[request.group]:
            return ()
        del side[request.group]
        if side is self._waiting or not self._waiting:
            return ()
        admitted = next(iter(self._waiting))
        self._admitted[admitted] = self._waiting.pop(admitted)
        return list(self._admitted[admitted])
