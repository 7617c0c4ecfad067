"""`Groups`: which requests explore together, with which method and in which slot. Host only; nothing of vLLM in it."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from esamp.engines.vllm.installed import Installed, InstalledMethods
from esamp.engines.vllm.params import Asked, member, parse
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.methods.base import ModelShape

logger = logging.getLogger("vllm.esamp")  # vLLM shows what its own loggers say

SEEDS = 2**62
"""Seeds of groups are below this, in every engine."""
RANDOM_SUFFIX = 9
"""``-`` and eight characters, which vLLM appends to every request's id."""


@dataclass(eq=False)
class Group:
    """Requests that share what a method learns: the samples of one request, or of all that name the same group."""

    key: Hashable
    installed: Installed | None = None
    slot: int | None = None
    refused: str | None = None
    """why the group runs as plain sampling"""
    members: set[str] = field(default_factory=set)
    """engine requests that are alive"""
    expected: int | None = None
    """samples still to come; None when nobody told"""
    trace: bool = False
    report: Callable[[], Mapping[str, float]] | None = None
    """what was done, once the slot is given back"""

    def telemetry(self) -> Mapping[str, float]:
        """What was done for the group so far. Synchronises with the device."""
        if self.report is not None:
            return self.report()
        if self.installed is None or self.slot is None:
            return {"groups_refused": 1.0}
        return self.installed.method.telemetry(self.slot)


@dataclass(frozen=True)
class Facts:
    """What the engine's parameters say about a sample."""

    stops: tuple[int, ...] = ()
    """tokens that end it"""
    limit: int = 2**62
    """tokens after which it is cut off"""
    seed: int | None = None
    """vLLM adds a sample's index to that of its request"""
    temperature: float = 1.0


@dataclass
class Member:
    """One engine request that explores: a row of the batch while it is scheduled."""

    group: Group
    parent: str
    """the request that it is a sample of"""
    index: int
    count: int
    """samples of the request; 0 if nobody told"""
    facts: Facts
    measured: list[Tensor]
    """`[3]` a token, with a trace: novelty, KL and surprisal as in `esamp.engines.base.TokenTrace`"""

    @property
    def seed(self) -> int:
        """The same for all samples of a request, and on all ranks. From the request's name if it has no seed."""
        if self.facts.seed is not None:
            return (self.facts.seed - self.index) % SEEDS
        return int.from_bytes(hashlib.blake2b(self.parent.encode(), digest_size=8).digest(), "little") % SEEDS


NO_FACTS = Facts()


class Groups:
    """Admits requests to groups and groups to slots.

    A group keeps its slot until its last sample has ended. If nobody told how many samples there are, or the group has
    a name, its slot stays with it while no other group needs one. A group for which there is no slot runs as plain
    sampling: counted, logged, and told by its telemetry.
    """

    def __init__(self, settings: VLLMSettings, shape: ModelShape) -> None:
        """Allocate the slots of the operator's default options.

        Raises:
            OptionError: the default parameters are wrong, or do not fit the model.
        """
        self._settings, self._shape = settings, shape
        self.members: dict[str, Member] = {}
        self.version = 0
        """changes whenever a member comes or goes"""
        self.counts: Counter[str] = Counter(groups_admitted=0, groups_refused=0)
        self._groups: dict[Hashable, Group] = {}  # with a slot or a member; idle ones least recently used first
        self._ended: dict[str, Group] = {}  # by parent request, oldest first
        self._alive: Counter[str] = Counter()  # samples that are members, by parent request
        self._traces: dict[str, dict[int, list[Tensor]]] = {}  # by parent request and sample
        self._parents: dict[str, str] = {}  # the id that a client knows, to the engine's
        self._installed = InstalledMethods(settings, shape)

    # ---- requests

    def add(self, request_id: str, extra_args: Mapping[str, Any] | None, facts: Facts = NO_FACTS) -> None:
        """A request enters the engine. One that comes back after preemption is known already."""
        if request_id in self.members:
            return
        try:
            asked = parse(extra_args, self._settings.defaults)
            reason = None
        except OptionError as error:  # it did not pass our admission
            asked, reason = None, str(error)
        if asked is None and reason is None:
            return
        who = member(request_id, None if asked is None else asked.samples)
        group = self._refused(who.parent, reason or "") if asked is None else self._group(who.parent, asked)
        group.members.add(request_id)
        if group.expected is not None:
            group.expected -= 1
        measured = self._traces.setdefault(who.parent, {}).setdefault(who.index, []) if group.trace else []
        if asked is not None and not asked.method.takes_first(asked.options) and not measured:
            measured.append(torch.full((3,), float("nan")))  # the method does not act on first tokens
        count = 0 if asked is None or asked.samples is None else asked.samples
        self.members[request_id] = Member(group, who.parent, who.index, count, facts, measured)
        self._alive[who.parent] += 1
        self._remember(who.parent, group)
        self.version += 1

    def finish(self, request_ids: Iterable[str]) -> None:
        """Requests have ended. In a fixed order, so that every rank of a tensor-parallel group does the same."""
        for request_id in sorted(request_ids):
            if request_id in self.members:
                ended = self.members.pop(request_id)
                group = ended.group
                group.members.discard(request_id)
                self._alive.subtract([ended.parent])
                if not self._alive[ended.parent]:
                    del self._alive[ended.parent]
                self.version += 1
            elif (found := self._groups.get(("request", member(request_id, None).parent))) is not None:
                group = found  # a sample that was aborted before it came here
                group.expected = None if group.expected is None else group.expected - 1
            else:
                continue
            if group.members:
                continue
            if group.slot is None or group.expected == 0:
                self._end(group)
            else:
                self._groups[group.key] = self._groups.pop(group.key)
        self._forget()

    def find(self, request_id: str) -> Group | None:
        """The group of a request, by the engine's id of it or of one of its samples, or by the id its client knows."""
        if request_id in self.members:
            return self.members[request_id].group
        names = (request_id, member(request_id, None).parent, self._parents.get(request_id, request_id))
        return next((self._ended[name] for name in names if name in self._ended), None)

    def trace(self, request_id: str) -> dict[int, Tensor] | None:
        """Measurements `[3, tokens]` of a request's samples by index, on the CPU. Synchronises with the device."""
        parent = self._parents.get(request_id, request_id)
        samples = self._traces.get(parent)
        if samples is None:
            return None
        none = torch.empty(3, 0)
        return {
            index: torch.cat([none, *(column.cpu().unsqueeze(1) for column in columns)], dim=1)
            for index, columns in samples.items()
        }

    # ---- numbers

    @property
    def slots_in_use(self) -> int:
        """Slots of groups with a living request."""
        return sum(group.slot is not None and bool(group.members) for group in self._groups.values())

    @property
    def slots_idle(self) -> int:
        """Slots that stay with a group until another one needs them."""
        return sum(group.slot is not None and not group.members for group in self._groups.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all banks."""
        return self._installed.nbytes

    def telemetry(self) -> dict[str, float]:
        """Sums over everything that all methods ever did. Synchronises with the device."""
        return self._installed.telemetry() | {name: float(count) for name, count in self.counts.items()}

    # ---- groups

    def _group(self, parent: str, asked: Asked) -> Group:
        what = (asked.method.name, asked.options, asked.trace)
        key: Hashable = ("request", parent) if asked.group is None else ("group", asked.group, *what)
        group = self._known(key, parent)
        if group is None:
            group = Group(key, trace=asked.trace, expected=asked.samples if asked.group is None else None)
            self._place(group, asked)
            self._groups[key] = group
        return group

    def _refused(self, parent: str, reason: str) -> Group:
        key = ("request", parent)
        group = self._known(key, parent)
        if group is None:
            group = self._groups[key] = Group(key)
            self._refuse(group, reason)
        return group

    def _known(self, key: Hashable, parent: str) -> Group | None:
        """The living group, or the one that was refused when earlier samples of the request came."""
        before = self._ended.get(parent)
        if key not in self._groups and before is not None and before.key == key and before.refused is not None:
            self._groups[key] = before
        return self._groups.get(key)

    def _place(self, group: Group, asked: Asked) -> None:
        """Find a slot for a new group, or say why there is none."""
        try:
            missing = set(asked.method.layers(asked.options, self._shape.layers)) - set(self._settings.layers)
        except OptionError as error:
            return self._refuse(group, str(error))
        if missing:
            return self._refuse(group, f"layer {min(missing)} is not kept: add it to the setting 'layers'")
        if asked.method.crosses_requests(asked.options) and not self._settings.shared:
            return self._refuse(group, "these options let requests influence each other: the setting 'shared' is off")
        if self._taken >= self._settings.slots and not self._evict():
            return self._refuse(group, f"all {self._settings.slots} slots are taken: raise the setting 'slots'")
        try:
            group.installed, group.slot = self._installed.claim(asked)
        except OptionError as error:
            return self._refuse(group, str(error))
        self.counts["groups_admitted"] += 1
        return None

    def _refuse(self, group: Group, reason: str) -> None:
        group.refused = reason
        self.counts["groups_refused"] += 1
        logger.warning("A group of requests runs as plain sampling: %s", reason)

    def _end(self, group: Group) -> None:
        """Give the slot back; what was done stays to be told."""
        self._groups.pop(group.key)
        if group.installed is None or group.slot is None:
            return
        group.report = group.installed.method.report(group.slot)
        group.installed.release(group.slot)
        group.slot = None

    def _evict(self) -> bool:
        """Free the slot of the group that has been idle for longest, rather of one that expects no more samples."""
        idle = [group for group in self._groups.values() if group.slot is not None and not group.members]
        for group in sorted(idle, key=lambda group: group.expected is not None)[:1]:
            self._end(group)
        return bool(idle)

    @property
    def _taken(self) -> int:
        return sum(group.slot is not None for group in self._groups.values())

    def _remember(self, parent: str, group: Group) -> None:
        self._ended.pop(parent, None)
        self._ended[parent] = group
        self._parents[parent[:-RANDOM_SUFFIX]] = parent
        self._forget()

    def _forget(self) -> None:
        """Forget requests beyond the bound, the oldest first, but none of those that go on."""
        while len(self._ended) > max(self._settings.kept, len(self.members)):
            oldest = next(iter(self._ended))
            group = self._ended.pop(oldest)
            if oldest in self._alive:
                self._ended[oldest] = group
                continue
            self._traces.pop(oldest, None)
            if self._parents.get(oldest[:-RANDOM_SUFFIX]) == oldest:
                self._parents.pop(oldest[:-RANDOM_SUFFIX])
