"""`Run`: the object of ``with explore(...) as run``."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel
from typing_extensions import override

from esamp.engines.hf import traces
from esamp.engines.hf.exploration import Driver, HFExploration
from esamp.engines.hf.generate import generate
from esamp.engines.hf.generate_call import GenerateCall
from esamp.engines.hf.hooks import Listener
from esamp.engines.hf.observed.calls import ObservedCalls
from esamp.engines.hf.token_logprobs import TokenLogprobs
from esamp.engines.hf.traces import Trace
from esamp.errors import EsampError, OptionError, UnsupportedError
from esamp.methods.base import DecodeMethod

THREADS = (
    "two threads use the explored model at the same time, and explore() cannot tell their calls apart: let one call "
    "end before the next begins, or put the prompts into one batch"
)


class Run(Listener):
    """The exploration of one ``with explore(...)`` block: `generate`, counters and traces.

    ``run.generate(...)`` takes the arguments of ``model.generate`` and returns the same. It takes part in the decoding
    loop: it is told which rows are finished, whatever ends them, learns from each sample's last token, leaves other
    uses of the model within the call alone, and offers ``candidates = "reference"``. Plain ``model.generate(...)``
    inside the block explores too, but is only observed from outside; what cannot be observed is refused, or warned of
    once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        exploration: HFExploration,
        *,
        stops: Sequence[int],
        pad: int | None,
        seed: int,
        trace: bool,
        token_logprobs: bool = False,
    ) -> None:
        """Called by `explore`, whose arguments these are."""
        self.model, self._exploration, self._trace = model, exploration, trace
        self._keeps_logprobs = token_logprobs
        self._logprobs: TokenLogprobs | None = None  # of the latest call of `generate`
        self.seeds: int | Sequence[int] = seed
        """seed of each group of the next call in batch order, or a number from which each group's seed is derived"""
        self.samples = 0
        """samples of a group over all calls; 0 if unknown"""
        self._observed = ObservedCalls(exploration, stops=stops, pad=pad, seed=seed)
        self._call: GenerateCall | None = None  # of `generate`, while it runs
        self._calls = 0  # of `generate`
        self._driver: Driver = self._observed  # of the current forward pass
        self.refused = False
        """whether a forward pass was refused with an error, which explains why nothing was explored"""
        self._pass_lock = threading.Lock()  # held during a forward pass
        self._pass_thread = 0  # thread of the latest forward pass
        self._call_thread = 0  # thread that called `generate`

    # ---- for users

    def generate(
        self,
        *args: Any,
        last: Sequence[LogitsProcessor] = (),
        on_sampled: Callable[[Tensor, Tensor], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """``model.generate(...)`` with the same arguments and result.

        Args:
            *args: of ``model.generate``.
            last: processors to run after all others.
            on_sampled: called at each step with the sampled tokens `[B]` and a mask `[B]` of the rows they finish.
            **kwargs: of ``model.generate``.

        Raises:
            UnsupportedError: the call asks for beam search or assisted decoding, or another call is still running.
            OptionError: samples_per_prompt would split the samples of a prompt.
        """
        if self._call is not None:
            raise UnsupportedError("run.generate is running already, in another thread or around this call")
        self._observed.close()  # the calls before this one
        call = GenerateCall(self._exploration, seeds=self.seeds, samples=self.samples)
        logprobs = TokenLogprobs(self._exploration.take_reference) if self._keeps_logprobs else None
        self._logprobs = logprobs

        def prompted(ids: Tensor, inputs: Mapping[str, Any], config: GenerationConfig) -> None:
            call.on_prompt(ids, inputs, config)
            self._calls += 1

        def sampled(tokens: Tensor, finished: Tensor) -> None:
            call.on_sampled(tokens, finished)
            if logprobs is not None:
                logprobs.record(tokens)
            if on_sampled is not None:
                on_sampled(tokens, finished)

        def processors(config: GenerationConfig) -> list[LogitsProcessor]:
            if logprobs is None:
                return [*call.last_processors(config), *last]
            logprobs.greedy = not config.do_sample
            return [*call.last_processors(config), logprobs.drawn, *last]

        self._call, self._call_thread = call, threading.get_ident()
        try:
            return generate(
                self.model,
                *args,
                on_prompt=prompted,
                on_sampled=sampled,
                first=[] if logprobs is None else [logprobs.own],
                last=processors,
                **kwargs,
            )
        finally:
            self._call = None
            self._exploration.stop()

    @property
    def method(self) -> DecodeMethod:
        """The decoding method of this block."""
        return self._exploration.method

    @property
    def samples_per_prompt(self) -> int | None:
        """Rows per group in the next call; None: neighbouring rows with equal prompts form a group."""
        return self._exploration.groups.block

    @samples_per_prompt.setter
    def samples_per_prompt(self, rows: int | None) -> None:
        self._exploration.groups.block = rows

    @property
    def decode_steps(self) -> int:
        """Decode steps that were steered, over all calls."""
        return self._exploration.steps

    @property
    def prompts_seen(self) -> int:
        """Generate calls, and direct calls of the model, inside the block."""
        return self._calls + self._observed.prompts

    def telemetry(self, group: int | None = None) -> dict[str, float]:
        """Telemetry of one group of the latest call (by its number in batch order), or of all groups of this run."""
        groups = self._exploration.groups
        slot = None if group is None else groups.latest[group]
        if group is not None and slot is None:
            return {"groups_refused": 1.0}
        refused = 0 if group is not None else groups.refused
        return {**self.method.telemetry(slot), "groups_refused": float(refused)}

    @property
    def trace(self) -> Trace:
        """Measurements of every token of the latest generate call; needs ``trace=True``."""
        if not self._trace:
            raise OptionError("no trace was kept: call explore(..., trace=True)")
        return traces.stacked(self._exploration.measured, unmeasured=0 if self.method.first_token else 1)

    @property
    def token_logprobs(self) -> Tensor:
        """Log-probabilities of every token of the latest ``run.generate`` call, `[2, B, T]` float32, in nats.

        First under the distribution that the token was drawn from (steered, after temperature, filters and every other
        logits processor, renormalised over the tokens that were left), then under the model's own logits at
        temperature 1. Values after a row's end have no meaning. Needs ``token_logprobs=True``.
        """
        if self._logprobs is None:
            raise OptionError(
                "no log-probabilities were kept: call explore(..., token_logprobs=True) and run.generate(...)"
            )
        return self._logprobs.table()

    def new_groups(self) -> None:
        """Forget all groups: prompts that were seen before start new groups."""
        self._exploration.groups.clear()

    def close(self) -> None:
        self._observed.close()

    # ---- for the model's hooks

    @override
    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        thread = threading.get_ident()
        foreign = self._call is not None and thread != self._call_thread
        entered = not foreign and self._pass_lock.acquire(blocking=False)
        if not entered and (foreign or thread != self._pass_thread):
            raise UnsupportedError(THREADS)
        self._pass_thread = thread
        self._driver = self._observed if self._call is None else self._call
        try:
            return self._driver.on_forward(inputs)
        except EsampError:
            self.refused = True
            raise

    @override
    def on_residual(self, layer: int, states: Tensor) -> None:
        self._exploration.read_residuals(layer, states)

    @override
    def on_head(self, states: Tensor) -> Tensor:
        return self._exploration.project(states)

    @override
    def on_logits(self, logits: Tensor) -> Tensor:
        combined = self._exploration.combine(logits)
        self._driver.on_combined(combined)
        return combined.logits.unsqueeze(1)

    @override
    def on_end(self) -> None:
        if self._pass_thread == threading.get_ident() and self._pass_lock.locked():
            self._driver.on_end()
            self._pass_lock.release()
