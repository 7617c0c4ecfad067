"""`ObservedCalls`: the driver of plain ``model.generate(...)`` calls, which sees nothing but the model's inputs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from typing_extensions import override

from esamp.decoding.step import Combined
from esamp.engines.hf.exploration import Driver, HFExploration
from esamp.engines.hf.observed.endings import Endings
from esamp.engines.hf.observed.passes import Pass, PassTracker
from esamp.errors import OptionError, UnsupportedError
from esamp.methods.base import Need


class GroupingWarning(UserWarning):
    """Neighbouring groups of a ``model.generate`` call have the same prompt."""


class ObservedCalls(Driver):
    """Generate calls seen from outside: a step's tokens become known when they are the model's input at the next one.

    The tokens of a call's last step are therefore never learned from, and the rows that have ended are inferred from
    their tokens (`Endings`). What cannot be inferred is refused, or warned of once with the remedy.
    """

    def __init__(self, exploration: HFExploration, *, stops: Sequence[int], pad: int | None, seed: int) -> None:
        """`stops` and `pad` are the known end-of-sequence and padding tokens."""
        self._exploration, self._stops, self._pad, self._seed = exploration, list(stops), pad, seed
        self._passes = PassTracker()
        self._endings: Endings | None = None
        self._logits: Tensor | None = None  # of the latest step
        self._warned = False
        self.prompts = 0
        """number of calls whose prompt was seen"""

    @override
    def on_forward(self, inputs: Mapping[str, Any]) -> bool:
        kind, tokens = self._passes.enter(inputs), inputs.get("input_ids")
        if kind is not Pass.STEP:
            if kind is Pass.PROMPT:
                self._refuse_method()
                self.close()
                self.prompts += 1
            return False
        if not isinstance(tokens, Tensor):
            raise UnsupportedError(
                "a decode step was called with embeddings: explore() learns from token ids (input_ids)"
            )
        self._exploration.steps += 1
        if self._endings is None:
            self._endings = self._start()
        self._finish_step(tokens[:, -1], self._endings)
        return True

    @override
    def on_combined(self, combined: Combined) -> None:
        if combined.rescore is not None:  # only a logits processor of our own could apply it
            raise OptionError(
                "candidates = 'reference' sees the filtered logits: call run.generate(...), not model.generate(...)"
            )
        self._logits = combined.logits

    @override
    def on_end(self) -> None:
        self._passes.leave()

    def close(self) -> None:
        """End the latest call, which no other event marks, and warn of tokens that contradict the known ones."""
        self._exploration.stop()
        endings, self._endings, self._logits = self._endings, None, None
        if endings is not None:
            endings.report()

    def _refuse_method(self) -> None:
        method = self._exploration.method
        if method.first_token or Need.TOKENS in method.needs:
            raise OptionError(
                f"method {method.name!r} acts on the first token as well, or reads the prompt: "
                "call run.generate(...), not model.generate(...)"
            )

    def _finish_step(self, tokens: Tensor, endings: Endings) -> None:
        """Finish the previous step, which sampled `tokens` `[B]`."""
        exploration = self._exploration
        batch = exploration.require_batch(tokens.shape[0])
        tokens = tokens.to(batch.live.device)
        seen = endings.see(tokens, self._logits)
        exploration.learn(tokens, seen.learnable)
        batch.live = seen.live
        batch.advance()

    def _start(self) -> Endings:
        exploration = self._exploration
        pad = self._pad if self._pad not in self._stops else None
        batch = exploration.start(self._passes.prompts, pad=pad, stops=self._stops, seeds=self._seed)
        self._warn_of_split_prompts()
        return Endings(batch.layout.placed, self._stops, self._pad)

    def _warn_of_split_prompts(self) -> None:
        groups = self._exploration.groups
        if groups.has_split_prompts and not self._warned:
            self._warned = True
            warnings.warn(
                f"samples_per_prompt = {groups.block}, but neighbouring groups have the same prompt and "
                "learn nothing from each other. If they are samples of one prompt (num_return_sequences), leave "
                "samples_per_prompt out or raise it; if not, call run.generate(...), which gives no such warning.",
                GroupingWarning,
                stacklevel=2,
            )
