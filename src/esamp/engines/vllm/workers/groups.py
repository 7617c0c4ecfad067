"""`RequestGroups`: groups requests, and gives each group a method and a slot. Host memory only; independent of vLLM."""

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from esamp.engines.vllm.params import ParsedRequest, SampleId, parse, sample_id
from esamp.engines.vllm.settings import VLLMSettings
from esamp.engines.vllm.workers.group import Group, LiveSample, SampleSettings
from esamp.engines.vllm.workers.method_pool import MethodPool
from esamp.errors import OptionError
from esamp.methods.base import ModelShape

logger = logging.getLogger("vllm.esamp")  # a child of vLLM's logger, so that vLLM's handlers show its messages

RANDOM_SUFFIX = 9
"""Characters that vLLM appends to every request's id: ``-`` and eight random ones."""
DEFAULT_SETTINGS = SampleSettings()


class RequestGroups:
    """Admits samples to groups, and groups to slots.

    A group keeps its slot until its last sample has ended. If its number of samples is unknown, or the group has a
    name, it keeps the slot until another group needs it. A group for which no slot is free runs as plain sampling,
    which is counted, logged and reported in its telemetry.
    """

    def __init__(self, settings: VLLMSettings, shape: ModelShape) -> None:
        """Allocate the slots for the operator's default options.

        Raises:
            OptionError: the default parameters are wrong, or do not fit the model.
        """
        self._settings, self._shape = settings, shape
        self.samples: dict[str, LiveSample] = {}
        self.version = 0
        """changes whenever a sample arrives or ends"""
        self.counts: Counter[str] = Counter(groups_admitted=0, groups_refused=0)
        self._pool = MethodPool(settings, shape)
        self._groups: dict[Hashable, Group] = {}  # with a slot or a live sample; idle ones least recently used first
        self._known: dict[str, Group] = {}  # by parent request, the oldest first
        self._live: Counter[str] = Counter()  # number of live samples, by parent request
        self._traces: dict[str, dict[int, list[Tensor]]] = {}  # by parent request and sample
        self._parents: dict[str, str] = {}  # the engine's id of a request, by the client's

    # ---- samples

    def add(
        self, request_id: str, extra_args: Mapping[str, Any] | None, settings: SampleSettings = DEFAULT_SETTINGS
    ) -> None:
        """Add a sample that enters the engine. One that returns after preemption is known already."""
        if request_id in self.samples:
            return
        try:
            parsed = parse(extra_args, self._settings.defaults)
        except OptionError as error:  # the request did not pass our admission
            sample = sample_id(request_id, None)
            self._join(self._refused_group(sample.parent, str(error)), request_id, sample, None, settings)
            return
        if parsed is not None:
            sample = sample_id(request_id, parsed.samples)
            self._join(self._group(sample.parent, parsed), request_id, sample, parsed, settings)

    def finish(self, request_ids: Iterable[str]) -> None:
        """Remove samples that have ended, in a fixed order, so that all tensor-parallel ranks free the same slots."""
        for request_id in sorted(request_ids):
            group = self._leave(request_id)
            if group is None or group.live:
                continue
            if group.slot is None or group.expected == 0:
                self._end(group)
            else:
                self._groups[group.key] = self._groups.pop(group.key)  # now the most recently used one
        self._forget()

    def find(self, request_id: str) -> Group | None:
        """The group of a request, by the engine's id of the request or of a sample, or by the client's id."""
        if request_id in self.samples:
            return self.samples[request_id].group
        names = (request_id, sample_id(request_id, None).parent, self._parents.get(request_id, request_id))
        return next((self._known[name] for name in names if name in self._known), None)

    def trace(self, request_id: str) -> dict[int, Tensor] | None:
        """Measurements `[3, tokens]` of a request's samples by index, on the CPU. Synchronises with the device."""
        parent = self._parents.get(request_id, request_id)
        samples = self._traces.get(parent)
        if samples is None:
            return None
        empty = torch.empty(3, 0)
        return {
            index: torch.cat([empty, *(column.cpu().unsqueeze(1) for column in columns)], dim=1)
            for index, columns in samples.items()
        }

    # ---- totals

    @property
    def slots_in_use(self) -> int:
        """Slots of groups with a live sample."""
        return sum(group.slot is not None and bool(group.live) for group in self._groups.values())

    @property
    def slots_idle(self) -> int:
        """Slots of groups without a live sample, which keep them until another group needs one."""
        return sum(group.slot is not None and not group.live for group in self._groups.values())

    @property
    def nbytes(self) -> int:
        return self._pool.nbytes

    def telemetry(self) -> dict[str, float]:
        """Sums over all groups since the start. Synchronises with the device."""
        return self._pool.telemetry() | {name: float(count) for name, count in self.counts.items()}

    # ---- groups

    def _join(
        self,
        group: Group,
        request_id: str,
        sample: SampleId,
        parsed: ParsedRequest | None,
        settings: SampleSettings,
    ) -> None:
        """Add a sample to its group; `parsed` is None if its parameters were wrong."""
        group.live.add(request_id)
        if group.expected is not None:
            group.expected -= 1
        trace = self._traces.setdefault(sample.parent, {}).setdefault(sample.index, []) if group.trace else []
        if parsed is not None and not parsed.method.takes_first(parsed.options) and not trace:
            trace.append(torch.full((3,), float("nan")))  # the method does not act on first tokens
        count = 0 if parsed is None or parsed.samples is None else parsed.samples
        self.samples[request_id] = LiveSample(group, sample.parent, sample.index, count, settings, trace)
        self._live[sample.parent] += 1
        self._remember(sample.parent, group)
        self.version += 1

    def _leave(self, request_id: str) -> Group | None:
        """Remove a sample from its group, also one that was aborted before it arrived; None if it has no group."""
        if request_id in self.samples:
            sample = self.samples.pop(request_id)
            sample.group.live.discard(request_id)
            self._live.subtract([sample.parent])
            if not self._live[sample.parent]:
                del self._live[sample.parent]
            self.version += 1
            return sample.group
        group = self._groups.get(("request", sample_id(request_id, None).parent))
        if group is not None and group.expected is not None:
            group.expected -= 1
        return group

    def _group(self, parent: str, parsed: ParsedRequest) -> Group:
        shared_key = ("group", parsed.group, parsed.method.name, parsed.options, parsed.trace)
        key: Hashable = ("request", parent) if parsed.group is None else shared_key
        group = self._existing(key, parent)
        if group is None:
            group = Group(key, trace=parsed.trace, expected=parsed.samples if parsed.group is None else None)
            self._place(group, parsed)
            self._groups[key] = group
        return group

    def _refused_group(self, parent: str, reason: str) -> Group:
        key = ("request", parent)
        group = self._existing(key, parent)
        if group is None:
            group = self._groups[key] = Group(key)
            self._refuse(group, reason)
        return group

    def _existing(self, key: Hashable, parent: str) -> Group | None:
        """The group with this key; also a refused one whose earlier samples have all ended."""
        before = self._known.get(parent)
        if key not in self._groups and before is not None and before.key == key and before.refused is not None:
            self._groups[key] = before
        return self._groups.get(key)

    def _place(self, group: Group, parsed: ParsedRequest) -> None:
        """Claim a slot for a new group, or refuse it."""
        try:
            missing = set(parsed.method.layers(parsed.options, self._shape.layers)) - set(self._settings.layers)
        except OptionError as error:
            return self._refuse(group, str(error))
        if missing:
            return self._refuse(group, f"layer {min(missing)} is not kept: add it to the setting 'layers'")
        if parsed.method.crosses_requests(parsed.options) and not self._settings.shared:
            return self._refuse(group, "these options let requests influence each other: the setting 'shared' is off")
        if self._taken >= self._settings.slots and not self._evict():
            return self._refuse(group, f"all {self._settings.slots} slots are taken: raise the setting 'slots'")
        try:
            group.built, group.slot = self._pool.claim(parsed)
        except OptionError as error:
            return self._refuse(group, str(error))
        self.counts["groups_admitted"] += 1
        return None

    def _refuse(self, group: Group, reason: str) -> None:
        group.refused = reason
        self.counts["groups_refused"] += 1
        logger.warning("A group of requests runs as plain sampling: %s", reason)

    def _end(self, group: Group) -> None:
        """Release the slot. The group's telemetry stays available."""
        self._groups.pop(group.key)
        if group.built is None or group.slot is None:
            return
        group.report = group.built.method.report(group.slot)
        group.built.release(group.slot)
        group.slot = None

    def _evict(self) -> bool:
        """End an idle group: the least recently used one, but one that expects more samples only if there is no other.

        Returns whether there was one.
        """
        idle = [group for group in self._groups.values() if group.slot is not None and not group.live]
        for group in sorted(idle, key=lambda group: group.expected is not None)[:1]:
            self._end(group)
        return bool(idle)

    @property
    def _taken(self) -> int:
        return sum(group.slot is not None for group in self._groups.values())

    def _remember(self, parent: str, group: Group) -> None:
        self._known.pop(parent, None)
        self._known[parent] = group
        self._parents[parent[:-RANDOM_SUFFIX]] = parent
        self._forget()

    def _forget(self) -> None:
        """Forget requests beyond the limit, the oldest first, but none with a live sample."""
        while len(self._known) > max(self._settings.kept, len(self.samples)):
            oldest = next(iter(self._known))
            group = self._known.pop(oldest)
            if oldest in self._live:
                self._known[oldest] = group
                continue
            self._traces.pop(oldest, None)
            if self._parents.get(oldest[:-RANDOM_SUFFIX]) == oldest:
                self._parents.pop(oldest[:-RANDOM_SUFFIX])
