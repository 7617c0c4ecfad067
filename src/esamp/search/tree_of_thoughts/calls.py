"""Calls to the model, within a budget of samples and tokens, all of one level together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from esamp.engines.base import Completion, Engine, Progress, Request, Sample, check_active
from esamp.errors import OptionError
from esamp.options import Options
from esamp.sampling import DEFAULT_TOKENS, Sampling
from esamp.search.asking import derived_seed
from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.spending import Meter, tokens_only
from esamp.search.tree_of_thoughts.prompts import Ask

Kind: TypeAlias = Literal["generate", "evaluate", "answer"]

UNLIMITED = 2**62


@dataclass
class Calls:
    """Puts questions to the engine on behalf of a request, and keeps the books.

    Budgets are hard: a call is made only if the tokens that it may at most take are there. What does not fit at once is
    tried again when the calls before it have come back shorter than they might have been.
    """

    engine: Engine
    request: Request
    sampling: Sampling
    """of one call, before a question's own limits"""
    options: TreeOfThoughtsOptions
    progress: Progress | None = None
    meter: Meter = field(default_factory=Meter)
    kinds: Counter[str] = field(default_factory=Counter)
    """samples drawn by what for"""
    left_out: Counter[str] = field(default_factory=Counter)
    """samples not drawn by which budget"""
    _serial: int = 0
    _witness: Completion | None = None

    def make(self, kind: Kind, asks: Sequence[Ask], draws: int, *, whole: bool) -> list[tuple[Sample, ...]]:
        """Ask all of `asks`, `draws` times each; earlier ones first where a budget does not reach to all.

        With `whole`, a question gets all its draws or none; an empty tuple is the reply to one that was left out.
        """
        replies: list[tuple[Sample, ...]] = [()] * len(asks)
        waiting = list(range(len(asks)))
        while waiting:
            counts = self._affordable([asks[place] for place in waiting], draws, whole)
            if not counts:
                break
            batch, waiting = waiting[: len(counts)], waiting[len(counts) :]
            requests = [self._request(asks[place], count) for place, count in zip(batch, counts, strict=True)]
            for place, completion in zip(batch, self._run(requests), strict=True):
                replies[place] = completion.samples
            self.kinds[kind] += sum(counts)
            for place, count in zip(batch, counts, strict=True):
                self._leave_out(asks[place], draws - count)
        for place in waiting:
            self._leave_out(asks[place], draws)
        return replies

    def record(self) -> dict[str, Any]:
        """What was spent of which budget, and what was not done for want of it."""
        options, spent = self.options, self.meter.cost()
        return {
            "calls": spent.calls,
            "call_budget": options.call_budget,
            "tokens": spent.tokens,
            "token_budget": options.token_budget,
            "prompt_tokens": spent.prompt_tokens,
            "calls_by_purpose": dict(self.kinds),
            "left_out": dict(self.left_out),
            "note": self._note(),
        }

    def _note(self) -> str:
        if not self.left_out:
            return "No call was left out."
        words = [f"{count} calls for want of {name}" for name, count in self.left_out.items()]
        return f"Left out: {' and '.join(words)}. What was not asked is not in the tree, or has no value."

    def _affordable(self, asks: Sequence[Ask], draws: int, whole: bool) -> list[int]:
        """Draws of the first few questions that can be paid for now, whatever they come to."""
        calls, tokens = self._calls_left, self._tokens_left
        counts: list[int] = []
        for ask in asks:
            limit = self._limit(ask) or DEFAULT_TOKENS
            count = min(draws, calls, tokens // limit)
            if count < draws and (whole or counts or not count):
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

    def _leave_out(self, ask: Ask, count: int) -> None:
        if count:
            self.left_out["calls" if self._calls_left < count else "tokens"] += count

    def _limit(self, ask: Ask) -> int | None:
        limits = [limit for limit in (ask.tokens, self.sampling.max_tokens) if limit is not None]
        return min(limits) if limits else None

    def _request(self, ask: Ask, count: int) -> Request:
        stop = (*ask.stop, *(self.sampling.stop if ask.final else ()))
        sampling = self.sampling.replace(max_tokens=self._limit(ask), stop=stop)
        self._serial += 1
        name = f"{self.request.id}/{self._serial}"
        seed = derived_seed(self.request.own_seed, self._serial)
        options = self.options
        return Request(name, ask.prompt, count, sampling, options.over, options.inner_options(), seed)

    def _run(self, requests: Sequence[Request]) -> list[Completion]:
        done: dict[str, Completion] = {}
        for completion in self.engine.generate(requests, progress=tokens_only(self.progress)):
            done[completion.request.id] = completion
            self.meter.add(completion)
            if self._witness is None or _acted(completion) > _acted(self._witness):
                self._witness = completion
        return [done[request.id] for request in requests]

    def check_active(self) -> None:
        """Refuse a search whose method underneath should have acted and did so in none of the calls.

        Raises:
            InactiveMethodError: that is so.
        """
        if self._witness is not None:
            check_active(self._witness)

    def check(self, ask: Ask) -> None:
        """Refuse budgets that do not even pay for the first question.

        Raises:
            OptionError: says how much it may take.
        """
        limit = self._limit(ask) or DEFAULT_TOKENS
        if self._tokens_left < limit:
            raise OptionError(
                f"option 'token_budget' = {self.options.token_budget}: the first call alone may take {limit} tokens; "
                "raise it, or lower max_tokens"
            )


def call_sampling(options: Options, sampling: Sampling) -> Sampling:
    """The request's sampler, at temperature .7 (Yao et al. 2023) unless it sets one."""
    return sampling if "temperature" in sampling.model_fields_set else sampling.replace(temperature=0.7)


def _acted(completion: Completion) -> tuple[float, int]:
    longest = max((len(sample.token_ids) for sample in completion.samples), default=0)
    return completion.telemetry.get("rows_steered", 0.0), longest
