"""How far samples in progress are, from the tokens generated so far."""

from esamp.sampling import DEFAULT_TOKENS


class SampleProgress:
    """Counts finished samples, and estimates how many the running ones amount to; the estimate never falls.

    A running sample counts by its share of the most tokens it can have. Tokens are reported for all running samples
    together, so a finished sample is taken to have had the most tokens.
    """

    def __init__(self, total: int, limit: int | None, done: int = 0) -> None:
        """Count from `done` to `total` samples of at most `limit` tokens each (None: the default of requests)."""
        self.total, self.done = total, done
        self.limit = limit or DEFAULT_TOKENS
        self.tokens = 0
        self._running = 0  # tokens of samples that have not finished
        self._estimate = float(done)

    def add(self, samples: int, tokens: int) -> float:
        """Add samples that finished and tokens that were generated. Returns the estimate, at most `total`."""
        self.done, self.tokens = self.done + samples, self.tokens + tokens
        self._running = max(0, self._running + tokens - samples * self.limit)
        self._estimate = max(self._estimate, min(self.total, self.done + self._running / self.limit))
        return self._estimate
