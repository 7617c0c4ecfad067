"""`Exploration`: the decode step that every generate call under `explore` shares, whichever driver runs it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from esamp.decoding.step import Combined, DecodeStep, InputTokens
from esamp.engines.hf import traces
from esamp.engines.hf.batch import UNLIMITED, Batch
from esamp.engines.hf.groups import Groups
from esamp.engines.hf.head import HFHead
from esamp.engines.hf.prompt import Prompt
from esamp.errors import UnsupportedError
from esamp.methods.base import DecodeMethod, Need


class Driver(Protocol):
    """Tells decode steps from other forward passes, and the `Exploration` which tokens were sampled."""

    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        """The model is called with these keyword arguments. True if the pass is to be steered.

        Raises:
            UnsupportedError: the pass belongs to a kind of generation that cannot be explored.
        """

    def on_combined(self, combined: Combined) -> None:
        """The method has combined the logits of a steered pass."""

    def on_end(self) -> None:
        """The pass is over, steered or not, with a result or with an error."""


class Exploration:
    """A method, its groups, and the batch that decodes now.

    A driver calls `start` once for a generate call. At each decode step the model's hooks call
    `read_residuals`, `project` and `combine`; the driver calls `learn` as soon as it knows the sampled tokens.
    """

    def __init__(
        self, method: DecodeMethod, groups: Groups, head: HFHead, device: torch.device, *, trace: bool
    ) -> None:
        """`device` is where the LM head's input lives; with `trace`, every step's measurements are kept."""
        self.method, self.groups, self.device, self._head, self._trace = method, groups, device, head, trace
        self.batch: Batch | None = None
        self.measured: list[dict[str, Tensor]] = []
        """of each step of the latest generate call"""
        self.steps = 0
        """decode steps of all calls, as the drivers count them"""
        self._residuals: dict[int, Tensor] = {}
        self._combine: Callable[..., Combined] | None = None
        self._states = 1

    def start(
        self,
        prompt: Prompt,
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
            prompt: of its rows.
            pad: the padding token, which is stripped from prompts where nothing else tells their lengths.
            stops: tokens that end a row.
            seeds: of each group in batch order, or a number from which each group's seed is derived.
            samples: of a group over all calls; 0 if that is not known.
            limit: most tokens of a sample.
            temperature: of the sampler; 0 is greedy.

        Raises:
            InputError: the rows do not come in blocks of `Groups.block` equal prompts.
        """
        slots = self.groups.assign(prompt, pad)
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

    def feed(self, ids: Tensor, mask: Tensor | None = None) -> None:
        """The model reads the tokens `ids` `[B, L]` now; `mask` `[B, L]` is 0 where there is padding."""
        if self.batch is not None and Need.TOKENS in self.method.needs:
            self.batch.input_tokens = InputTokens(ids, torch.ones_like(ids) if mask is None else mask)

    def read_residuals(self, layer: int, states: Tensor) -> None:
        """Keep the newest token's state of the residual stream `[B, T, s]` after `layer` layers."""
        self._residuals[layer] = states[:, -1]

    def project(self, states: Tensor) -> Tensor:
        """The states `[K * B, 1, d]` that the head is to project instead of `states` `[B, T, d]`."""
        batch = self.require_batch(states.shape[0])
        final = states[:, -1]
        residuals = {layer: state.to(final.device) for layer, state in self._residuals.items()}
        batch.step = DecodeStep(final, residuals, batch.layout, batch.live, self._head, batch.rows, batch.input_tokens)
        steering = self.method.steer(batch.step)
        self._combine, self._states = steering.combine, len(steering.states)
        states = steering.states[0] if self._states == 1 else torch.cat(steering.states)
        return states.unsqueeze(1)

    def combine(self, logits: Tensor) -> Combined:
        """What the sampler gets, from the logits `[K * B, 1, V]` of the states that `project` gave.

        Raises:
            UnsupportedError: the model's logits did not come from its LM head.
        """
        if self._combine is None:
            raise UnsupportedError("the model produced logits without passing its LM head")
        combined = self._combine(*logits[:, -1].chunk(self._states))
        self._combine = None
        return combined

    def learn(self, tokens: Tensor, rows: Tensor) -> None:
        """Learn from the tokens `[B]` that the latest step sampled, on `rows` `[B]` bool."""
        batch = self.require_batch(tokens.shape[0])
        if batch.step is None:
            return
        if self._trace:
            self.measured.append(traces.measure(self.method.detail(), batch.step.head, tokens, rows))
        self.method.observe(batch.step, tokens, rows)
        batch.step = None

    def stop(self) -> None:
        """The generate call is over."""
        self.batch = None

    def require_batch(self, rows: int) -> Batch:
        """The current batch, of this many rows.

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
