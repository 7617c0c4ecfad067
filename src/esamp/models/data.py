"""Training batches for the embedded model: random traces, made on the fly in worker processes and packed into rows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..tasks.countdown.problem import Rules, test_problems
from ..tasks.countdown.trace import Habits, random_trace

OPEN_ROWS = 64  # rows being filled at a time: with more, less padding


class PackedTraces(IterableDataset[Tensor]):
    """Endless batches (2, rows, length) of int64: token ids, and the number of the trace each token belongs to.

    A trace is `<bos> words <eos>`, cut at the row's length where it is longer, so that the model also learns to go on
    searching up to there. Traces share a row only whole; the rest of a row is padding, trace number 0. No trace is
    about a problem of the test split.
    """

    def __init__(self, vocab: dict[str, int], rows: int, length: int, seed: int, rules: Rules, habits: Habits) -> None:
        super().__init__()
        self.vocab, self.rows, self.length, self.seed = vocab, rows, length, seed
        self.rules, self.habits = rules, habits

    def traces(self, rng: random.Random) -> Iterator[list[int]]:
        """Token ids of random traces, test problems left out."""
        held_out = {test.problem.key for test in test_problems()}
        vocab = self.vocab
        while True:
            problem, words = random_trace(rng, self.rules, self.habits)
            if problem.key not in held_out:
                ids = [vocab["<bos>"], *(vocab[word] for word in words), vocab["<eos>"]]
                yield ids[: self.length]

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        open_rows: list[list[list[int]]] = [[] for _ in range(OPEN_ROWS)]
        room = [self.length] * OPEN_ROWS
        batch: list[list[list[int]]] = []
        for ids in self.traces(rng):
            fits = [index for index in range(OPEN_ROWS) if room[index] >= len(ids)]
            if fits:
                index = min(fits, key=room.__getitem__)
            else:  # close the fullest row
                index = min(range(OPEN_ROWS), key=room.__getitem__)
                batch.append(open_rows[index])
                open_rows[index], room[index] = [], self.length
            open_rows[index].append(ids)
            room[index] -= len(ids)
            if len(batch) == self.rows:
                yield self.collate(batch)
                batch = []

    def collate(self, batch: list[list[list[int]]]) -> Tensor:
        """(2, rows, length): ids over trace numbers 1, 2, ...; 0 where padded."""
        out = torch.zeros(2, self.rows, self.length, dtype=torch.long)
        for row, traces in enumerate(batch):
            at = 0
            for number, ids in enumerate(traces, 1):
                out[0, row, at : at + len(ids)] = torch.tensor(ids)
                out[1, row, at : at + len(ids)] = number
                at += len(ids)
        return out


def batches(dataset: PackedTraces, workers: int) -> Iterator[Tensor]:
    """Batches from `workers` processes, each with its own stream of traces."""
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=8))
