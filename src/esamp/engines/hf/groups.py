"""Which rows of a generate call belong together, and which bank slot each group has."""

import hashlib
from collections.abc import Hashable, Sequence
from itertools import groupby

from esamp.engines.hf.batch import SEEDS
from esamp.engines.hf.prompt import Prompt
from esamp.errors import InputError
from esamp.methods.base import DecodeMethod

GroupKey = tuple[Hashable, int]
"""The prompt of a group, and which of the groups with this prompt in a call it is."""


class Groups:
    """Groups by prompt: the samples of one prompt, also over successive calls, share a slot, and nobody else does.

    Neighbouring rows with equal prompts form a group, or blocks of exactly `block` rows if that is set; two blocks with
    the same prompt in one call are two groups. When all slots are taken, the group unused for longest makes room; a
    call with more groups than slots runs the rest without exploration and counts them in `refused`.
    """

    def __init__(self, method: DecodeMethod, block: int | None, slots: int) -> None:
        """`slots` is the most groups kept at a time; memory is taken as they come."""
        self._method, self._limit = method, slots
        self.block = block
        """rows of each group in the next call; None to find the groups by their prompts"""
        self._slots: dict[GroupKey, int] = {}  # least recently used first
        self._started: dict[GroupKey, int] = {}  # samples of the groups that have a slot
        self._keys: list[GroupKey] = []  # of the latest call
        self._size = 1
        self._calls = 0
        self.refused = 0
        """groups so far that ran without exploration"""
        self.latest: list[int | None] = []
        """slot of each group of the latest call"""
        self.sizes: list[int] = []
        """rows of each of them"""
        self.first: list[int] = []
        """how many samples each of them had before"""

    def assign(self, prompt: Prompt, pad: int | None) -> list[int | None]:
        """The slot of every row of `prompt`. A prompt that is not known as a whole shares with no other call.

        Raises:
            InputError: rows do not come in blocks of equal prompts, or nothing tells which rows belong together.
        """
        self._calls += 1
        rows = prompt.contents(pad)
        blocks = self._found(rows, prompt) if self.block is None else self._blocks(rows, self.block)
        self._keys, seen = [], dict[Hashable, int]()
        for content, _ in blocks:
            key = content if prompt.whole else (self._calls, content)
            self._keys.append((key, seen.setdefault(key, 0)))
            seen[key] += 1
        self.sizes = [size for _, size in blocks]
        current = set(self._keys)
        self.latest = [self._slot(key, current) for key in self._keys]
        self._forget_idle(current)
        self.first = [self._started.get(key, 0) for key in self._keys]
        new = dict(zip(self._keys, self.sizes, strict=True))
        self._started = {key: self._started.get(key, 0) + new.get(key, 0) for key in self._slots}
        return [slot for slot, size in zip(self.latest, self.sizes, strict=True) for _ in range(size)]

    @property
    def split(self) -> bool:
        """Whether neighbouring groups of the latest call had the same prompt."""
        return any(a == b for (a, _), (b, _) in zip(self._keys, self._keys[1:], strict=False))

    def seeds(self, given: int | Sequence[int]) -> Sequence[int]:
        """The seed of each group of the latest call: those given, or derived from a single one and the prompt."""
        return [_derived(given, key) for key in self._keys] if isinstance(given, int) else given

    def clear(self) -> None:
        """Release every slot."""
        for slot in self._slots.values():
            self._method.release(slot)
        self._slots.clear()
        self._started.clear()

    def _blocks(self, rows: Sequence[Hashable], block: int) -> list[tuple[Hashable, int]]:
        """The prompts of groups of `block` rows each, and that number."""
        if len(rows) % block:
            raise InputError(
                f"{len(rows)} rows do not divide into groups of samples_per_prompt = {block}: "
                "leave it out to have neighbouring rows with equal prompts form a group, or set it to "
                "num_return_sequences"
            )
        for start in range(0, len(rows), block):
            if any(row != rows[start] for row in rows[start : start + block]):
                raise InputError(
                    f"rows {start} to {start + block - 1} should be samples of one prompt, but they differ: "
                    f"samples_per_prompt = {block} must match num_return_sequences"
                )
        return [(rows[start], block) for start in range(0, len(rows), block)]

    @staticmethod
    def _found(rows: Sequence[Hashable], prompt: Prompt) -> list[tuple[Hashable, int]]:
        """The prompts of runs of equal neighbours, and the lengths of these runs."""
        blocks = [(content, len(list(run))) for content, run in groupby(rows)]
        if not prompt.whole and len(blocks) < len(rows):
            raise InputError(
                "the cache holds tokens that explore() has not seen, so that it cannot tell which rows have the same "
                "prompt: set samples_per_prompt (1 if every row is a prompt of its own)"
            )
        return blocks

    def _slot(self, key: GroupKey, current: set[GroupKey]) -> int | None:
        if key in self._slots:
            self._slots[key] = self._slots.pop(key)  # now the most recently used
            return self._slots[key]
        slot = self._method.admit()
        if slot is None and self._size < self._limit:
            self._size = min(2 * self._size, self._limit)
            self._method.grow(self._size)
            slot = self._method.admit()
        if slot is None:
            idle = next((other for other in self._slots if other not in current), None)
            if idle is None:
                self.refused += 1
                return None
            self._method.release(self._slots.pop(idle))
            slot = self._method.admit()
        if slot is not None:
            self._slots[key] = slot
        return slot

    def _forget_idle(self, current: set[GroupKey]) -> None:
        """Keep no more groups than the limit, also where they all share a slot and the method could take any number."""
        for key in list(self._slots):
            if len(self._slots) <= self._limit:
                return
            if key not in current:
                self._method.release(self._slots.pop(key))


def _derived(seed: int, key: GroupKey) -> int:
    """A seed for the group `key`, the same in every process."""
    digest = hashlib.blake2b(repr((seed, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS
