"""`PromptGroups`: finds the groups of a generate call by their prompts, and gives each group a slot."""

import hashlib
from collections.abc import Hashable, Sequence
from itertools import groupby

from esamp.engines.base import SEED_LIMIT
from esamp.engines.hf.prompt_batch import PromptBatch
from esamp.errors import InputError
from esamp.methods.base import DecodeMethod

GroupKey = tuple[Hashable, int]
"""The prompt of a group, and its number among the groups with this prompt in one call."""


class PromptGroups:
    """Groups by prompt: the samples of one prompt share a slot, also over successive calls, and no others use it.

    Neighbouring rows with equal prompts form a group, or blocks of exactly `block` rows if that is set; two blocks with
    the same prompt in one call are two groups. When all slots are taken, the least recently used group loses its slot;
    if one call has more groups than slots, the rest runs without exploration and is counted in `refused`.
    """

    def __init__(self, method: DecodeMethod, block: int | None, slots: int) -> None:
        """Keep at most `slots` groups at a time; the method's memory grows with the number of groups."""
        self._method, self._limit = method, slots
        self.block = block
        """rows of each group in the next call; None: neighbouring rows with equal prompts form a group"""
        self._slots: dict[GroupKey, int] = {}  # least recently used first
        self._started: dict[GroupKey, int] = {}  # samples of the groups that have a slot
        self._keys: list[GroupKey] = []  # of the latest call
        self._size = 1
        self._calls = 0
        self.refused = 0
        """number of groups so far that ran without exploration"""
        self.latest: list[int | None] = []
        """slot of each group of the latest call; None for groups that run without exploration"""
        self.sizes: list[int] = []
        """rows of each group of the latest call"""
        self.first: list[int] = []
        """samples that each group of the latest call had in earlier calls"""

    def assign(self, prompts: PromptBatch, pad: int | None) -> list[int | None]:
        """The slot of every row of a new call. Incompletely known prompts share no group with other calls.

        Raises:
            InputError: rows do not come in blocks of equal prompts, or prompts that end alike are not known completely.
        """
        self._calls += 1
        rows = prompts.keys(pad)
        blocks = _equal_neighbours(rows, prompts) if self.block is None else _fixed_blocks(rows, self.block)
        self._keys, seen = [], dict[Hashable, int]()
        for prompt, _ in blocks:
            key = prompt if prompts.complete else (self._calls, prompt)
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
    def has_split_prompts(self) -> bool:
        """Whether neighbouring groups of the latest call had the same prompt."""
        return any(a == b for (a, _), (b, _) in zip(self._keys, self._keys[1:], strict=False))

    def seeds(self, given: int | Sequence[int]) -> Sequence[int]:
        """The seed of each group of the latest call.

        Args:
            given: the seeds themselves, or one number from which each group's seed is derived by its prompt.
        """
        return [_derived_seed(given, key) for key in self._keys] if isinstance(given, int) else given

    def clear(self) -> None:
        """Release every slot."""
        for slot in self._slots.values():
            self._method.release(slot)
        self._slots.clear()
        self._started.clear()

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
        """Enforce the limit also for methods that put all groups into one slot and would never run out of slots."""
        for key in list(self._slots):
            if len(self._slots) <= self._limit:
                return
            if key not in current:
                self._method.release(self._slots.pop(key))


def _fixed_blocks(rows: Sequence[Hashable], block: int) -> list[tuple[Hashable, int]]:
    """Groups of `block` rows each: the prompt and the number of rows of each group.

    Args:
        rows: the key of each row's prompt.
        block: rows of a group.

    Raises:
        InputError: the rows do not divide into such blocks of equal prompts.
    """
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


def _equal_neighbours(rows: Sequence[Hashable], prompts: PromptBatch) -> list[tuple[Hashable, int]]:
    """Groups of neighbouring rows with equal keys: the key and the number of rows of each group.

    Raises:
        InputError: rows are equal, but the prompts are not known completely, so they may differ.
    """
    blocks = [(prompt, len(list(run))) for prompt, run in groupby(rows)]
    if not prompts.complete and len(blocks) < len(rows):
        raise InputError(
            "the cache holds tokens that explore() has not seen, so that it cannot tell which rows have the same "
            "prompt: set samples_per_prompt (1 if every row is a prompt of its own)"
        )
    return blocks


def _derived_seed(seed: int, key: GroupKey) -> int:
    """A seed for the group `key`, the same in every process."""
    digest = hashlib.blake2b(repr((seed, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEED_LIMIT
