"""`BudgetedCalls`: batches of model calls within the budgets of samples and tokens."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from esamp.engines.base import Completion, Engine, Progress, Request, Sample
from esamp.engines.checks import check_active
from esamp.errors import OptionError
from esamp.sampling import DEFAULT_TOKENS, Sampling
from esamp.search.calls import Meter, derived_seed, tokens_only
from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.prompts import Query

CallPurpose: TypeAlias = Literal["generate", "evaluate", "answer"]

UNLIMITED = 2**62


@dataclass
class BudgetedCalls:
    """Sends the queries of one request's search to the engine, and counts what they cost.

    Budgets are hard: a call is made only if the budget covers the most tokens it could generate. Queries that are not
    covered are tried again after the batch before them, which may have used less than its maximum.
    """

    engine: Engine
    request: Request
    sampling: Sampling
    """sampler settings of a call, before the limits of its query"""
    options: TreeOfThoughtsOptions
    progress: Progress | None = None
    meter: Meter = field(default_factory=Meter)
    purposes: Counter[str] = field(default_factory=Counter)
    """samples drawn, by `CallPurpose`"""
    left_out: Counter[str] = field(default_factory=Counter)
    """samples not drawn, by the budget that did not suffice: "calls" or "tokens" """
    _serial: int = 0
    _most_active: Completion | None = None
    """the completion in which the inner method acted on most rows, for `check_active`"""

    def run(
        self, purpose: CallPurpose, queries: Sequence[Query], draws: int, *, all_or_none: bool
    ) -> list[tuple[Sample, ...]]:
        """Draw `draws` samples for each query. If the budget does not suffice for all, earlier queries come first.

        With `all_or_none` a query gets either all its samples or none. A query that was left out gets an empty tuple.
        """
        replies: list[tuple[Sample, ...]] = [()] * len(queries)
        waiting = list(range(len(queries)))
        while waiting:
            counts = self._affordable([queries[place] for place in waiting], draws, all_or_none)
            if not counts:
                break
            batch, waiting = waiting[: len(counts)], waiting[len(counts) :]
            requests = [self._request(queries[place], count) for place, count in zip(batch, counts, strict=True)]
            for place, completion in zip(batch, self._generate(requests), strict=True):
                replies[place] = completion.samples
            self.purposes[purpose] += sum(counts)
            for place, count in zip(batch, counts, strict=True):
                self._leave_out(queries[place], draws - count)
        for place in waiting:
            self._leave_out(queries[place], draws)
        return replies

    def record(self) -> dict[str, Any]:
        """What was used of each budget, and what was left out, as JSON values."""
        options, spent = self.options, self.meter.cost()
        return {
            "calls": spent.calls,
            "call_budget": options.call_budget,
            "tokens": spent.tokens,
            "token_budget": options.token_budget,
            "prompt_tokens": spent.prompt_tokens,
            "calls_by_purpose": dict(self.purposes),
            "left_out": dict(self.left_out),
            "note": self._note(),
        }

    def check_budget(self, query: Query) -> None:
        """Refuse a token budget that does not cover the first query.

        Raises:
            OptionError: names the tokens that the query may generate.
        """
        limit = self._limit(query) or DEFAULT_TOKENS
        if self._tokens_left < limit:
            raise OptionError(
                f"option 'token_budget' = {self.options.token_budget}: the first call alone may generate {limit} "
                "tokens; raise it, or lower max_tokens"
            )

    def check_active(self) -> None:
        """Refuse a search whose inner method should have acted and did so in none of the calls.

        Raises:
            InactiveMethodError: the inner method never acted.
        """
        if self._most_active is not None:
            check_active(self._most_active)

    def _note(self) -> str:
        if not self.left_out:
            return "No call was left out."
        counts = [f"{count} calls beyond the budget of {name}" for name, count in self.left_out.items()]
        return f"Left out: {' and '.join(counts)}. The tree lacks their thoughts and values."

    def _affordable(self, queries: Sequence[Query], draws: int, all_or_none: bool) -> list[int]:
        """The numbers of samples for the first few queries that the budgets cover now, whatever their length."""
        calls, tokens = self._calls_left, self._tokens_left
        counts: list[int] = []
        for query in queries:
            limit = self._limit(query) or DEFAULT_TOKENS
            count = min(draws, calls, tokens // limit)
            if count < draws and (all_or_none or counts or not count):
                break
            counts.append(count)
            calls, tokens = calls - count, tokens - count * limit
        return counts

    @property
    def _calls_left(self) -> int:
        budget = self.options.call_budget
        return UNLIMITED if budget is None else budget - self.meter.cost().calls

    @property
    def _tokens_left(self) -> int:
        budget = self.options.token_budget
        return UNLIMITED if budget is None else budget - self.meter.cost().tokens

    def _leave_out(self, query: Query, count: int) -> None:
        if count:
            self.left_out["calls" if self._calls_left < count else "tokens"] += count

    def _limit(self, query: Query) -> int | None:
        limits = [limit for limit in (query.max_tokens, self.sampling.max_tokens) if limit is not None]
        return min(limits) if limits else None

    def _request(self, query: Query, count: int) -> Request:
        stop = (*query.stop, *(self.sampling.stop if query.final else ()))
        sampling = self.sampling.replace(max_tokens=self._limit(query), stop=stop)
        self._serial += 1
        name = f"{self.request.id}/{self._serial}"
        seed = derived_seed(self.request.own_seed, self._serial)
        options = self.options
        return Request(name, query.prompt, count, sampling, options.over, options.inner_options(), seed)

    def _generate(self, requests: Sequence[Request]) -> list[Completion]:
        """The completions in the order of the requests."""
        done: dict[str, Completion] = {}
        for completion in self.engine.generate(requests, progress=tokens_only(self.progress)):
            done[completion.request.id] = completion
            self.meter.add(completion)
            if self._most_active is None or _activity(completion) > _activity(self._most_active):
                self._most_active = completion
        return [done[request.id] for request in requests]


def _activity(completion: Completion) -> tuple[float, int]:
    longest = max((len(sample.token_ids) for sample in completion.samples), default=0)
    return completion.telemetry.get("rows_steered", 0.0), longest
