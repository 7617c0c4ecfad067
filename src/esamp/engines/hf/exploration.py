"""`HFExploration`: the decode step of every generate call under `explore`.

One generate call runs through these methods, in this order. The model's hooks (`ModelHooks`) and the driver of the call
(`GenerateCall` or `ObservedCalls`) call them:

    prefill      start             assign the prompts' groups to slots
    decode step  set_input_tokens  the tokens that the model reads, for methods that need them
                 read_residuals    the residual stream between layers
                 project           before the LM head: which states it projects
                 combine           after the LM head: one set of logits from those of the states
    sample                         transformers' own sampler, with processors and filters
    finish       learn             the method observes the sampled tokens
    end of call  stop
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout, on_device
from esamp.decoding.step import Combined, DecodeStep, InputTokens, Rows
from esamp.engines.base import SEED_LIMIT
from esamp.engines.hf import traces
from esamp.engines.hf.groups import PromptGroups
from esamp.engines.hf.head import HFHead
from esamp.engines.hf.prompt_batch import PromptBatch
from esamp.errors import UnsupportedError
from esamp.methods.base import DecodeMethod, Need

UNLIMITED = 2**62
"""A limit that no sample reaches."""


class Driver(Protocol):
    """Finds the decode steps among the model's forward passes, and gives the `HFExploration` the sampled tokens."""

    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        """The model is called with these keyword arguments. Returns whether to steer the pass.

        Raises:
            UnsupportedError: the pass belongs to a kind of generation that cannot be explored.
        """

    def on_combined(self, combined: Combined) -> None:
        """The method has combined the logits of a steered pass."""

    def on_end(self) -> None:
        """The pass has ended, steered or not, with a result or with an error."""


@dataclass
class Batch:
    """The rows of one generate call."""

    slots: Sequence[int | None]
    """the method's slot of each row"""
    layout: RowLayout
    rows: Rows
    live: Tensor
    """`[B]` bool: rows that have not ended"""
    input_tokens: InputTokens | None = None
    """what the model reads in the present pass"""
    step: DecodeStep | None = None
    """the step whose sampled tokens are not known yet"""
    _steps: int = 0
    _numbers: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """0, 1, 2, ...: positions are views of it, so that advancing launches no kernel"""

    @classmethod
    def start(
        cls,
        slots: Sequence[int | None],
        *,
        sizes: Sequence[int],
        first: Sequence[int],
        count: int,
        limit: int,
        seeds: Sequence[int],
        stops: Tensor,
        temperature: float,
    ) -> Self:
        """The rows of a new call, in which no sample has a token yet.

        Args:
            slots: of each row; rows come group by group.
            sizes: rows of each group.
            first: samples that each group had in earlier calls.
            count: samples of a group over all calls; 0 if unknown.
            limit: most tokens of a sample.
            seeds: of each group.
            stops: `[k]` tokens that end a row.
            temperature: of the sampler; 0 is greedy.
        """
        rows = [
            (start + lane, seed) for start, size, seed in zip(first, sizes, seeds, strict=True) for lane in range(size)
        ]
        columns = [
            [index for index, _ in rows],
            [count] * len(slots),
            [0] * len(slots),
            [limit] * len(slots),
            [seed % SEED_LIMIT for _, seed in rows],
        ]
        layout = RowLayout.build(slots, stops.device)
        index, total, position, limits, seed = on_device(columns, stops.device).unbind()
        temperatures = torch.full((len(slots),), temperature, device=stops.device)
        properties = Rows(index, total, position, limits, seed, stops.expand(len(slots), -1), temperatures)
        return cls(slots, layout, properties, layout.placed)

    def advance(self) -> None:
        """Add one to every row's number of tokens."""
        self._steps += 1
        if self._steps >= self._numbers.shape[0]:
            self._numbers = torch.arange(max(1024, 2 * self._steps), device=self.live.device)
        self.rows = self.rows.at(self._numbers[self._steps].expand(len(self.slots)))


class HFExploration:
    """A method, its groups, and the batch of the present generate call."""

    def __init__(
        self,
        method: DecodeMethod,
        groups: PromptGroups,
        head: HFHead,
        device: torch.device,
        *,
        trace: bool,
        keep_reference: bool = False,
    ) -> None:
        """Explore with one method.

        Args:
            method: built for the model.
            groups: of the method.
            head: the model's LM head.
            device: of the LM head's input.
            trace: keep the measurements of every step.
            keep_reference: project the model's own state at every step as well, for `take_reference`.
        """
        self.method, self.groups, self.device, self._head, self._trace = method, groups, device, head, trace
        self.batch: Batch | None = None
        self.measured: list[dict[str, Tensor]] = []
        """measurements of each step of the latest generate call, see `traces.measure`"""
        self.steps = 0
        """number of decode steps of all calls, which the drivers count"""
        self._residuals: dict[int, Tensor] = {}
        self._combine: Callable[..., Combined] | None = None
        self._states = 1  # number of states per row that the head projects in this step
        self._keep_reference = keep_reference
        self._extra = False  # whether the last of them is the model's own state, which the method did not ask for
        self._own = 0  # which of them is the model's own state
        self._reference: Tensor | None = None

    def start(
        self,
        prompts: PromptBatch,
        *,
        pad: int | None,
        stops: Sequence[int],
        seeds: int | Sequence[int],
        samples: int = 0,
        limit: int = UNLIMITED,
        temperature: float = 1.0,
    ) -> Batch:
        """Begin a generate call.

        Args:
            prompts: of its rows.
            pad: the padding token, which is stripped from prompts of unknown length.
            stops: tokens that end a row.
            seeds: of each group in batch order, or a number from which each group's seed is derived.
            samples: of a group over all calls; 0 if unknown.
            limit: most tokens of a sample.
            temperature: of the sampler; 0 is greedy.

        Raises:
            InputError: see `PromptGroups.assign`.
        """
        slots = self.groups.assign(prompts, pad)
        self.measured = []
        self.batch = Batch.start(
            slots,
            sizes=self.groups.sizes,
            first=self.groups.first,
            count=samples,
            limit=limit,
            seeds=self.groups.seeds(seeds),
            stops=torch.tensor(stops, dtype=torch.long, device=self.device),
            temperature=temperature,
        )
        return self.batch

    def set_input_tokens(self, ids: Tensor, mask: Tensor | None = None) -> None:
        """Set the tokens `[B, L]` that the model reads in this pass; `mask` `[B, L]` is 0 where there is padding."""
        if self.batch is not None and Need.TOKENS in self.method.needs:
            self.batch.input_tokens = InputTokens(ids, torch.ones_like(ids) if mask is None else mask)

    def read_residuals(self, layer: int, states: Tensor) -> None:
        """Keep the newest token's state of the residual stream `[B, T, s]` after `layer` layers."""
        self._residuals[layer] = states[:, -1]

    def project(self, states: Tensor) -> Tensor:
        """The states `[K * B, 1, d]` that the LM head projects instead of its input `states` `[B, T, d]`."""
        batch = self.require_batch(states.shape[0])
        final = states[:, -1]
        residuals = {layer: state.to(final.device) for layer, state in self._residuals.items()}
        batch.step = DecodeStep(final, residuals, batch.layout, batch.live, self._head, batch.rows, batch.input_tokens)
        steering = self.method.steer(batch.step)
        projected = self._with_own(steering.states, final)
        self._combine, self._states = steering.combine, len(projected)
        states = projected[0] if self._states == 1 else torch.cat(projected)
        return states.unsqueeze(1)

    def combine(self, logits: Tensor) -> Combined:
        """The sampler's logits, from the logits `[K * B, 1, V]` of the states that `project` returned.

        Raises:
            UnsupportedError: the model's logits did not come from its LM head.
        """
        if self._combine is None:
            raise UnsupportedError("the model produced logits without passing its LM head")
        newest = logits[:, -1]
        parts = (newest,) if self._states == 1 else newest.chunk(self._states)
        if self._keep_reference:
            self._reference = parts[self._own]
        combined = self._combine(*(parts[:-1] if self._extra else parts))
        self._combine = None
        return combined

    def take_reference(self) -> Tensor | None:
        """The model's own logits `[B, V]` of the latest steered pass, once; None if it was not steered."""
        reference, self._reference = self._reference, None
        return reference

    def learn(self, tokens: Tensor, rows: Tensor) -> None:
        """Let the method observe the tokens `[B]` that the latest step sampled, on `rows` `[B]` bool."""
        batch = self.require_batch(tokens.shape[0])
        if batch.step is None:
            return
        if self._trace:
            self.measured.append(traces.measure(self.method.detail(), batch.step.head, tokens, rows))
        self.method.observe(batch.step, tokens, rows)
        batch.step = None

    def stop(self) -> None:
        """End the generate call."""
        self.batch = None

    def _with_own(self, states: Sequence[Tensor], final: Tensor) -> tuple[Tensor, ...]:
        """The states to project: the method's, and the model's own `final` where it is wanted and not among them."""
        if not self._keep_reference:
            return tuple(states)
        own = [place for place, state in enumerate(states) if state is final]
        self._extra, self._own = not own, own[0] if own else len(states)
        return (*states, final) if self._extra else tuple(states)

    def require_batch(self, rows: int) -> Batch:
        """The present batch, which must have this many rows.

        Raises:
            UnsupportedError: there is none, or it has another number of rows.
        """
        if self.batch is None:
            raise UnsupportedError("a decode step came before any prompt")
        if rows != len(self.batch.slots):
            raise UnsupportedError(
                f"the batch went from {len(self.batch.slots)} to {rows} rows within one generate call: explore() "
                "follows generate calls that keep their rows to the end"
            )
        return self.batch
