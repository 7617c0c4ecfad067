"""Training batches for the embedded model: random traces, generated in worker processes and grouped by length."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from esamp.tasks.countdown.problem import Rules, held_out_problems
from esamp.tasks.countdown.trace import Habits, random_trace

PAD = 0
POOL = 32  # batches' worth of traces that are sorted by length together: with more, less padding


class Traces(IterableDataset[Tensor]):
    """Endless batches (rows, length) of int64 token ids, padded on the right; rows * length is at most `tokens`.

    A trace is `<bos> words <eos>`, cut at the context length, so that the model also learns to continue a search up to
    that length. No trace is about a problem of the test split.
    """

    def __init__(
        self, vocab: dict[str, int], tokens: int, context: int, seed: int, rules: Rules, habits: Habits
    ) -> None:
        super().__init__()
        self.vocab, self.tokens, self.context, self.seed = vocab, tokens, context, seed
        self.rules, self.habits = rules, habits

    def traces(self, rng: random.Random) -> Iterator[list[int]]:
        """Token ids of random traces, without traces of test problems."""
        held_out = {test.problem.key for test in held_out_problems()}
        vocab = self.vocab
        while True:
            problem, words = random_trace(rng, self.rules, self.habits)
            if problem.key not in held_out:
                ids = [vocab["<bos>"], *(vocab[word] for word in words), vocab["<eos>"]]
                yield ids[: self.context]

    def __iter__(self) -> Iterator[Tensor]:
        """Batches of one worker: pools of traces are sorted by length and cut into batches, which are shuffled."""
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        pool: list[list[int]] = []
        size = 0
        for ids in self.traces(rng):
            pool.append(ids)
            size += len(ids)
            if size >= POOL * self.tokens:
                batches = self.cut(sorted(pool, key=len))
                rng.shuffle(batches)
                yield from map(pad, batches)
                pool, size = [], 0

    def cut(self, traces: list[list[int]]) -> list[list[list[int]]]:
        """Batches of neighbours in a list sorted by length; the last is dropped unless it is the only one."""
        batches: list[list[list[int]]] = [[]]
        for ids in traces:
            if (len(batches[-1]) + 1) * len(ids) > self.tokens:
                batches.append([])
            batches[-1].append(ids)
        return batches[:-1] or batches


def pad(traces: list[list[int]]) -> Tensor:
    """(rows, longest) token ids, PAD on the right."""
    longest = max(map(len, traces))
    return torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in traces])


def stream(dataset: Traces, workers: int) -> Iterator[Tensor]:
    """Batches from `workers` processes, each with its own stream of traces."""
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=8))
