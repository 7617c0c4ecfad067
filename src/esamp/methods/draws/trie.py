"""`Trie`: a prefix tree on the device of the texts that each group's samples have drawn, with their probabilities."""

from dataclasses import dataclass

import torch
from torch import Tensor

from esamp.decoding.randomness import GOLDEN, mix
from esamp.decoding.slots import enlarged
from esamp.decoding.step import DecodeStep

UNIT = 2.0**-45
"""Nats per unit of the integers that log-probabilities are stored as, so that their sums are exact."""
FLOOR = 30.0
"""Nats: tokens less likely than exp(-FLOOR), about 1e-13, count as this likely."""
LOWEST = -(2**63 - 2**51)
"""The least log-probability of a text, in units of `UNIT`."""
LONGEST = 8192
"""Tokens of a sample that are stored at most; so many times FLOOR does not reach LOWEST."""
MANY = 64
"""The number of samples assumed for a group whose number of samples is unknown."""
EXHAUSTED = 1e-12
"""A node with a smaller remaining share counts as exhausted."""
LEAST_LEFT = 1e-9
"""The least remaining share of a subtree that is not exhausted, so that rounding alone never exhausts it."""
CELL, SAMPLE, SLOT = 20, 40, 8
"""Bytes of a stored token, of a sample and of a group."""


@dataclass(frozen=True)
class Position:
    """The positions of R rows in the tries of their groups; `[R]` each."""

    slot: Tensor
    column: Tensor
    """the column of the row's sample; the last one for rows that are not stored"""
    known: Tensor
    """whether the row's sample is stored, with all its tokens so far"""
    width: Tensor
    """W, the number of tokens stored of each of the group's samples"""
    depth: Tensor
    """the number of the row's tokens so far"""
    node: Tensor
    """the fingerprint of those tokens"""


@dataclass(frozen=True)
class Children:
    """The tokens that the group's other samples have at a row's node; `[R, N]` each, one column per sample."""

    present: Tensor
    """whether the sample has the node's prefix and a token after it"""
    token: Tensor
    """that token, int64; 0 where not present"""
    copies: Tensor
    """the number of samples with the same token, float64"""
    left: Tensor
    """the share of the subtree below the token that no finished sample has drawn; exactly 0 if it is exhausted"""
    pending: Tensor
    """the share of the subtree below the token that unfinished samples are in, 1 at most"""


class Trie:
    """Texts and log-probabilities of up to N samples in each of S slots, in M cells per slot.

    A sample is one column of W cells, one per token; ``W = min(limit, M / n)`` is fixed by the group's first row. A
    node is identified by the fingerprint of its prefix, a 64-bit hash of the tokens. The tree itself is not stored: of
    the subtree below a prefix, a text takes the share ``exp(log P(text) - log P(prefix))``, so that the share taken
    below a node is a sum over the samples with its fingerprint.

    A finished sample also stores the length of the shortest prefix after which its tokens were the only ones left.
    Exhausted subtrees are found from these lengths, and therefore exactly, despite the rounding of probabilities that
    were computed in different batches.
    """

    def __init__(self, samples: int, cells: int, device: torch.device) -> None:
        """Up to `samples` samples per slot in `cells` cells; `grow` allocates the slots."""
        self.samples, self.cells = samples, cells

        def table(columns: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(0, columns, dtype=dtype, device=device)

        with torch.inference_mode(False):  # an inference tensor could never be written to outside of that mode
            self._tables = {  # the last column of each takes the writes of rows that are not stored
                "node": table(cells + 1),  # fingerprint of the prefix before a token
                "token": table(cells + 1, torch.int32),
                "log": table(cells + 1),  # log-probability of the text up to a token, in UNITs
                "length": table(samples + 1),
                "end": table(samples + 1),  # fingerprint of the sample's text so far
                "total": table(samples + 1),  # its log-probability
                "last": table(samples + 1),  # length of the shortest prefix after which nothing else was left
                "done": table(samples + 1),  # 1 for a finished sample, 2 for one whose text another had drawn before
                "width": table(1),  # W; 0 before the first row
            }

    @staticmethod
    def size(samples: int, cells: int, slots: int) -> int:
        """Bytes of `slots` slots."""
        return slots * (CELL * (cells + 1) + SAMPLE * (samples + 1) + SLOT)

    @property
    def nbytes(self) -> int:
        return sum(table.nbytes for table in self._tables.values())

    @property
    def slots(self) -> int:
        """Number of slots S."""
        return self._tables["width"].shape[0]

    def grow(self, slots: int) -> None:
        """Make room for at least this many slots."""
        extra = slots - self.slots
        if extra > 0:
            for name, table in self._tables.items():
                self._tables[name] = enlarged(table, table.new_zeros(extra, table.shape[1]))

    def clear(self, slot: int) -> None:
        """Forget all samples of a slot."""
        for name in ("length", "done", "width"):
            self._tables[name][slot] = 0

    def position(self, step: DecodeStep) -> Position:
        """The positions of the rows of `step`. Samples without a column, or with a token missing, are not stored."""
        rows, placed = step.rows, step.active
        slot = step.layout.spread(step.layout.slots)
        width = self._width(step, slot, placed)
        columns = torch.div(self.cells, width, rounding_mode="floor").clamp_max(self.samples)
        inside = placed & (rows.index < columns)
        column = torch.where(inside, rows.index, self.samples)
        fresh = rows.position == 0
        known = inside & (fresh | (self._tables["length"][slot, column] == rows.position))
        column = torch.where(known, column, self.samples)
        node = torch.where(fresh, 0, self._tables["end"][slot, column])
        return Position(slot, column, known, width, rows.position, node)

    def children(self, at: Position) -> Children:
        """The tokens of other samples at the rows' nodes."""
        sample = torch.arange(self.samples, device=at.slot.device)
        slot, depth = at.slot.unsqueeze(1), at.depth.unsqueeze(1)
        length, total, last, done = (self._tables[name][at.slot, :-1] for name in ("length", "total", "last", "done"))
        inside = (depth < at.width.unsqueeze(1)) & at.known.unsqueeze(1) & (length > depth)
        inside = inside & (sample != at.column.unsqueeze(1))  # the own column may hold an earlier text
        cell = torch.where(inside, sample * at.width.unsqueeze(1) + depth, self.cells)
        present = inside & (self._tables["node"][slot, cell] == at.node.unsqueeze(1))
        token = torch.where(present, self._tables["token"][slot, cell].long(), 0)
        share = torch.where(present, (total - self._tables["log"][slot, cell]).double() * UNIT, 0.0).exp()
        facts = torch.stack([present, done == 1, done == 0, (done > 0) & (last <= depth + 1)], -1).double()
        facts[..., 1:3] *= share.unsqueeze(-1)
        copies, taken, pending, closed = _sums_by_token(token, present, facts).unbind(-1)
        left = (1 - taken).clamp_min(LEAST_LEFT).masked_fill(closed > 0, 0.0)
        return Children(present, token, copies, left, pending.clamp_max(1))

    def extend(self, at: Position, tokens: Tensor, log_p: Tensor, alone: Tensor, ends: Tensor, live: Tensor) -> None:
        """Append `tokens` `[R]` of log-probability `log_p` `[R]` float64 to the samples of the rows in `live`.

        `alone` `[R]` bool: rows at whose node nothing else was left. `ends` `[R]` bool: rows whose sample is finished.
        """
        live = live & at.known
        slot, column = at.slot, torch.where(live, at.column, self.samples)
        fresh, depth = at.depth == 0, at.depth
        step = (log_p.nan_to_num(nan=-FLOOR).clamp(-FLOOR, 0) / UNIT).round().long()
        total = (torch.where(fresh, 0, self._tables["total"][slot, column]) + step).clamp_min(LOWEST)
        last = torch.where(alone, torch.where(fresh, 0, self._tables["last"][slot, column]), depth + 1)
        end = mix((at.node ^ (tokens + 1)) * GOLDEN + GOLDEN)
        done = ends.long() * (1 + self._drawn_before(slot, column, end, live & ends).long())
        new = dict(length=depth + 1, total=total, last=last, end=end, done=done)
        for name, value in new.items():
            self._tables[name][slot, column] = value
        cell = torch.where(live & (depth < at.width), column * at.width + depth, self.cells)
        self._tables["node"][slot, cell] = at.node
        self._tables["token"][slot, cell] = tokens.int()
        self._tables["log"][slot, cell] = total

    def _width(self, step: DecodeStep, slot: Tensor, placed: Tensor) -> Tensor:
        """`[R]`: W of each row's slot, which the slot's first rows set."""
        count = torch.where(step.rows.count > 0, step.rows.count, MANY).clamp_max(self.samples)
        room = torch.div(self.cells, count, rounding_mode="floor").clamp(1, LONGEST)
        known = self._tables["width"][slot, 0]
        known = torch.where(known > 0, known, torch.minimum(room, step.rows.limit).clamp_min(1))
        grid = step.layout.to_grid(known, placed).amax(1)  # one for all rows of a group; 0 if none takes part
        old = self._tables["width"].index_select(0, step.layout.slots).squeeze(1)
        new = torch.where(grid > 0, grid, old)
        self._tables["width"].index_copy_(0, step.layout.slots, new.unsqueeze(1))
        return step.layout.spread(new).clamp_min(1)

    def _drawn_before(self, slot: Tensor, column: Tensor, end: Tensor, ended: Tensor) -> Tensor:
        """`[R]` bool: whether a finished sample has the same text, or one of a lower column that ends at this step."""
        there = (self._tables["end"][slot] == end.unsqueeze(1)) & (self._tables["done"][slot] == 1)
        there[:, -1] = False
        twins = (slot.unsqueeze(1) == slot) & (end.unsqueeze(1) == end) & ended
        return there.any(1) | (twins & (column < column.unsqueeze(1))).any(1)


def _sums_by_token(token: Tensor, present: Tensor, values: Tensor) -> Tensor:
    """`values` `[R, N, K]` summed over the `present` entries with the same `token` `[R, N]`; zeros elsewhere."""
    keys = torch.where(present, token, torch.iinfo(torch.int64).max)
    first = torch.searchsorted(keys.sort(1).values, keys).unsqueeze(-1).expand_as(values)
    values = values * present.unsqueeze(-1)
    return torch.zeros_like(values).scatter_add_(1, first, values).gather(1, first) * present.unsqueeze(-1)
