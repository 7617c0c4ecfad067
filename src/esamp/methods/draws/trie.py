"""`Trie`: what the samples of each group said so far and how likely it was: a prefix tree on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.randomness import GOLDEN, mix
from esamp.decoding.step import DecodeStep

UNIT = 2.0**-45
"""Log-probabilities are whole numbers of this many nats, so that their sums are exact."""
FLOOR = 30.0
"""A token counts as no less likely than exp(-FLOOR): 1e-13."""
LOWEST = -(2**63 - 2**51)
"""The least log-probability of a text."""
LONGEST = 8192
"""Most tokens of a sample that are remembered: as many times FLOOR are above LOWEST."""
MANY = 64
"""Samples that a group is prepared for where nobody told how many there will be."""
NOTHING = 1e-12
"""A share of what is below a node that counts as nothing."""
LITTLE = 1e-9
"""The least share that is left of a subtree that is not used up: rounding alone never closes it."""
CELL, SAMPLE, SLOT = 20, 40, 8
"""Bytes of a remembered token, of a sample and of a group."""


@dataclass(frozen=True)
class Stand:
    """Where R rows stand in the trie of their group; `[R]` each."""

    slot: Tensor
    column: Tensor
    """of the row's sample; the last one for rows that are not remembered"""
    known: Tensor
    """whether the row is remembered"""
    width: Tensor
    """remembered tokens of each of the group's samples"""
    depth: Tensor
    """tokens that the row has"""
    node: Tensor
    """fingerprint of those tokens"""


@dataclass(frozen=True)
class Children:
    """What other samples of its group did where a row stands; `[R, N]` each, one column a sample."""

    found: Tensor
    """whether the sample went through this node and beyond"""
    token: Tensor
    """where it went, int64; 0 where not found"""
    copies: Tensor
    """how many of the samples went there, float64"""
    left: Tensor
    """share of what is below that token that no sample has drawn; exactly 0 where all of it was"""
    pending: Tensor
    """share of what is below that token that unfinished samples may still draw, 1 at most"""


class Trie:
    """Texts and log-probabilities of up to N samples in each of S slots, in M cells a slot.

    A sample is one column of W cells, one a token; ``W = min(limit, M / n)`` is fixed by the group's first row. A node
    is known by the fingerprint of its prefix, 64 bits that `mix` makes of the tokens. The tree itself is not stored:
    the share of the subtree below a prefix that a sample has drawn is ``exp(log P(text) - log P(prefix))``, so what is
    taken below any node is a sum over the samples whose prefix has its fingerprint.

    Beside these sums, a finished sample knows from which prefix on it was the last one: at every later node all that
    was left went its way. Subtrees that are used up are told exactly by that, whatever the rounding of probabilities
    that were computed in different batches.
    """

    def __init__(self, samples: int, cells: int, device: torch.device) -> None:
        """For up to `samples` samples a slot in `cells` cells; `grow` allocates the slots."""
        self.samples, self.cells = samples, cells

        def table(columns: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(0, columns, dtype=dtype, device=device)

        with torch.inference_mode(False):  # an inference tensor could never be written to outside of that mode
            self._tables = {  # the last column of each is for rows that are not remembered
                "node": table(cells + 1),  # the prefix that a token came after
                "token": table(cells + 1, torch.int32),
                "log": table(cells + 1),  # log-probability of the text up to a token, in UNITs
                "length": table(samples + 1),
                "end": table(samples + 1),  # fingerprint of the sample's text so far
                "total": table(samples + 1),  # its log-probability
                "last": table(samples + 1),  # length of the shortest prefix from which on nothing else was left
                "done": table(samples + 1),  # 1 for a finished sample, 2 for one that said what another had said
                "width": table(1),  # W; 0 before the first row
            }

    @staticmethod
    def size(samples: int, cells: int, slots: int) -> int:
        """Bytes of so many slots."""
        return slots * (CELL * (cells + 1) + SAMPLE * (samples + 1) + SLOT)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return sum(table.nbytes for table in self._tables.values())

    @property
    def slots(self) -> int:
        """S."""
        return self._tables["width"].shape[0]

    def grow(self, slots: int) -> None:
        """Make room for at least this many slots."""
        extra = slots - self.slots
        if extra > 0:
            with torch.inference_mode(False):
                for name, table in self._tables.items():
                    self._tables[name] = torch.cat([table, table.new_zeros(extra, table.shape[1])])

    def clear(self, slot: int) -> None:
        """Forget all samples of a slot."""
        for name in ("length", "done", "width"):
            self._tables[name][slot] = 0

    def stand(self, step: DecodeStep) -> Stand:
        """Where the rows of `step` stand. Rows are not remembered that came too late or whose sample missed a token."""
        rows, placed = step.rows, step.live & step.layout.placed
        slot = step.layout.spread(step.layout.slots)
        width = self._width(step, slot, placed)
        columns = torch.div(self.cells, width, rounding_mode="floor").clamp_max(self.samples)
        inside = placed & (rows.index < columns)
        column = torch.where(inside, rows.index, self.samples)
        fresh = rows.position == 0
        known = inside & (fresh | (self._tables["length"][slot, column] == rows.position))
        column = torch.where(known, column, self.samples)
        node = torch.where(fresh, 0, self._tables["end"][slot, column])
        return Stand(slot, column, known, width, rows.position, node)

    def children(self, stand: Stand) -> Children:
        """What other samples did there."""
        sample = torch.arange(self.samples, device=stand.slot.device)
        slot, depth = stand.slot.unsqueeze(1), stand.depth.unsqueeze(1)
        length, total, last, done = (
            self._tables[name][stand.slot, :-1] for name in ("length", "total", "last", "done")
        )
        inside = (depth < stand.width.unsqueeze(1)) & stand.known.unsqueeze(1) & (length > depth)
        inside = inside & (sample != stand.column.unsqueeze(1))  # what the sample's own column holds is another text's
        cell = torch.where(inside, sample * stand.width.unsqueeze(1) + depth, self.cells)
        found = inside & (self._tables["node"][slot, cell] == stand.node.unsqueeze(1))
        token = torch.where(found, self._tables["token"][slot, cell].long(), 0)
        share = torch.where(found, (total - self._tables["log"][slot, cell]).double() * UNIT, 0.0).exp()
        facts = torch.stack([found, done == 1, done == 0, (done > 0) & (last <= depth + 1)], -1).double()
        facts[..., 1:3] *= share.unsqueeze(-1)
        copies, taken, pending, closed = _sums_by_token(token, found, facts).unbind(-1)
        left = (1 - taken).clamp_min(LITTLE).masked_fill(closed > 0, 0.0)
        return Children(found, token, copies, left, pending.clamp_max(1))

    def extend(self, stand: Stand, tokens: Tensor, log_p: Tensor, alone: Tensor, ends: Tensor, live: Tensor) -> None:
        """The rows go on by `tokens` `[R]` of log-probability `log_p` `[R]` float64.

        `alone` `[R]` bool: nothing else was left where the row stood. `ends` `[R]` bool: the sample is finished.
        """
        live = live & stand.known
        slot, column = stand.slot, torch.where(live, stand.column, self.samples)
        fresh, depth = stand.depth == 0, stand.depth
        step = (log_p.nan_to_num(nan=-FLOOR).clamp(-FLOOR, 0) / UNIT).round().long()
        total = (torch.where(fresh, 0, self._tables["total"][slot, column]) + step).clamp_min(LOWEST)
        last = torch.where(alone, torch.where(fresh, 0, self._tables["last"][slot, column]), depth + 1)
        end = mix((stand.node ^ (tokens + 1)) * GOLDEN + GOLDEN)
        done = ends.long() * (1 + self._said_before(slot, column, end, live & ends).long())
        new = dict(length=depth + 1, total=total, last=last, end=end, done=done)
        for name, value in new.items():
            self._tables[name][slot, column] = value
        cell = torch.where(live & (depth < stand.width), column * stand.width + depth, self.cells)
        self._tables["node"][slot, cell] = stand.node
        self._tables["token"][slot, cell] = tokens.int()
        self._tables["log"][slot, cell] = total

    def _width(self, step: DecodeStep, slot: Tensor, placed: Tensor) -> Tensor:
        """`[R]`: W of each row's slot, set by the first rows there."""
        count = torch.where(step.rows.count > 0, step.rows.count, MANY).clamp_max(self.samples)
        room = torch.div(self.cells, count, rounding_mode="floor").clamp(1, LONGEST)
        known = self._tables["width"][slot, 0]
        known = torch.where(known > 0, known, torch.minimum(room, step.rows.limit).clamp_min(1))
        grid = step.layout.to_grid(known, placed).amax(1)  # one for all rows of a group; 0 if none takes part
        old = self._tables["width"].index_select(0, step.layout.slots).squeeze(1)
        new = torch.where(grid > 0, grid, old)
        self._tables["width"].index_copy_(0, step.layout.slots, new.unsqueeze(1))
        return step.layout.spread(new).clamp_min(1)

    def _said_before(self, slot: Tensor, column: Tensor, end: Tensor, ended: Tensor) -> Tensor:
        """`[R]` bool: whether another finished sample has this text, or one of a lower column that ends now as well."""
        there = (self._tables["end"][slot] == end.unsqueeze(1)) & (self._tables["done"][slot] == 1)
        there[:, -1] = False
        twins = (slot.unsqueeze(1) == slot) & (end.unsqueeze(1) == end) & ended
        return there.any(1) | (twins & (column < column.unsqueeze(1))).any(1)


def _sums_by_token(token: Tensor, found: Tensor, values: Tensor) -> Tensor:
    """`values` `[R, N, K]` of each entry found summed over those found with the same `token` `[R, N]`; else zeros."""
    keys = torch.where(found, token, torch.iinfo(torch.int64).max)
    first = torch.searchsorted(keys.sort(1).values, keys).unsqueeze(-1).expand_as(values)
    values = values * found.unsqueeze(-1)
    return torch.zeros_like(values).scatter_add_(1, first, values).gather(1, first) * found.unsqueeze(-1)
