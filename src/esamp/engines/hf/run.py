"""`Run`: what ``with explore(...) as run`` gives."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from esamp.engines.hf import decoding, traces
from esamp.engines.hf.exploration import Driver, Exploration
from esamp.engines.hf.observed import ObservedCalls
from esamp.engines.hf.own_call import GenerateCall
from esamp.engines.hf.traces import Trace
from esamp.errors import EsampError, OptionError, UnsupportedError
from esamp.methods.base import DecodeMethod

THREADS = (
    "two threads use the explored model at the same time, and explore() cannot tell their calls apart: let one call "
    "end before the next begins, or put the prompts into one batch"
)


class Run:
    """The exploration of one ``with explore(...)`` block: `generate`, counters and traces.

    ``run.generate(...)`` takes the arguments of ``model.generate`` and gives the same result. It learns exactly when
    each row is finished, whatever ends it, learns from the last token as well, leaves other uses of the model within
    the call alone, and offers ``candidates = "reference"``. Plain ``model.generate(...)`` inside the block explores
    too, but is only observed from outside; what cannot be observed is refused, or warned of once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        exploration: Exploration,
        *,
        stops: Sequence[int],
        pad: int | None,
        seed: int,
        trace: bool,
    ) -> None:
        """Use `explore`."""
        self.model, self._exploration, self._trace = model, exploration, trace
        self.seeds: int | Sequence[int] = seed
        """of each group of the next call in batch order, or a number from which each group's seed is derived"""
        self.samples = 0
        """of a group over all calls, if that is known beforehand"""
        self._observed = ObservedCalls(exploration, stops=stops, pad=pad, seed=seed)
        self._own: GenerateCall | None = None
        self._own_calls = 0
        self._driver: Driver = self._observed  # of the current forward pass
        self.refused = False
        """whether a forward pass was refused with an error, so that nothing explored for a reason that was told"""
        self._inside = threading.Lock()  # held while a forward pass runs
        self._thread = 0  # that runs it
        self._own_thread = 0  # that called `generate`

    # ---- the user's side

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
            last: processors to run behind all others.
            on_sampled: told at each step the sampled tokens `[B]` and which rows `[B]` they finish.
            **kwargs: of ``model.generate``.

        Raises:
            UnsupportedError: beam search or assisted decoding was asked for, or another call is not over yet.
            OptionError: samples_per_prompt would split the samples of a prompt.
        """
        if self._own is not None:
            raise UnsupportedError("run.generate is running already, in another thread or around this call")
        self._observed.close()  # the calls before this one
        call = GenerateCall(self._exploration, seeds=self.seeds, samples=self.samples)

        def prompted(ids: Tensor, inputs: Mapping[str, Any], config: GenerationConfig) -> None:
            call.on_prompt(ids, inputs, config)
            self._own_calls += 1

        def sampled(tokens: Tensor, finished: Tensor) -> None:
            call.on_sampled(tokens, finished)
            if on_sampled is not None:
                on_sampled(tokens, finished)

        def processors(config: GenerationConfig) -> list[LogitsProcessor]:
            return [*call.last_processors(config), *last]

        self._own, self._own_thread = call, threading.get_ident()
        try:
            return decoding.generate(
                self.model,
                *args,
                on_prompt=prompted,
                on_sampled=sampled,
                last=processors,
                **kwargs,
            )
        finally:
            self._own = None
            self._exploration.stop()

    @property
    def method(self) -> DecodeMethod:
        """The decoding method of this block."""
        return self._exploration.method

    @property
    def samples_per_prompt(self) -> int | None:
        """Rows per group in the next call, None to find them by their prompts; may change from call to call."""
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
        """Generate calls, and passes of the model by hand, inside the block."""
        return self._own_calls + self._observed.prompts

    def telemetry(self, group: int | None = None) -> dict[str, float]:
        """Telemetry of one group of the latest call (in batch order), or of everything in this run."""
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
        return traces.stacked(self._exploration.measured, ahead=0 if self.method.first_token else 1)

    def new_groups(self) -> None:
        """Forget all groups: prompts seen before start afresh."""
        self._exploration.groups.clear()

    def close(self) -> None:
        """The block is over."""
        self._observed.close()

    # ---- one forward pass (`Listener`)

    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        """Hand the pass to the driver of the call that it belongs to."""
        thread = threading.get_ident()
        outside = self._own is not None and thread != self._own_thread
        entered = not outside and self._inside.acquire(blocking=False)
        if not entered and (outside or thread != self._thread):
            raise UnsupportedError(THREADS)
        self._thread = thread
        self._driver = self._observed if self._own is None else self._own
        try:
            return self._driver.on_forward(inputs)
        except EsampError:
            self.refused = True
            raise

    def on_hidden(self, layer: int, states: Tensor) -> None:
        """Keep the newest token's state."""
        self._exploration.read_residuals(layer, states)

    def on_head(self, states: Tensor) -> Tensor:
        """Ask the method what to project."""
        return self._exploration.project(states)

    def on_logits(self, logits: Tensor) -> Tensor:
        """Let the method combine the logits of its states."""
        combined = self._exploration.combine(logits)
        self._driver.on_combined(combined)
        return combined.logits.unsqueeze(1)

    def on_end(self) -> None:
        """Let the next pass in."""
        if self._thread == threading.get_ident() and self._inside.locked():
            self._driver.on_end()
            self._inside.release()
