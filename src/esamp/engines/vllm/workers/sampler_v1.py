"""vLLM's V1 sampler, drawing from the methods' logits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.sample.sampler import Sampler

from esamp.engines.vllm.workers.changes import GREEDY, Change, apply_after_filters, apply_changes


class ExploringSampler(Sampler):
    """Draws from the methods' logits, and reports log-probabilities of the model's own.

    A step without changes is vLLM's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of vLLM's sampler."""
        super().__init__(*args, **kwargs)
        self._changes: Sequence[Change] = ()
        self._restricted = False

    def change(self, changes: Sequence[Change], *, restricted: bool) -> None:
        """Set the changes of the next call, and whether a grammar has ruled out tokens in its logits."""
        self._changes, self._restricted = changes, restricted

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._changes = ()

    @override
    def apply_logits_processors(self, logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # vLLM has copied its own logits before this, and penalties and processors act after it.
        if self._changes:
            logits = apply_changes(logits, self._changes, restricted=self._restricted)
        return super().apply_logits_processors(logits, *args, **kwargs)

    @override
    def sample(
        self, logits: Tensor, sampling_metadata: SamplingMetadata, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Sample as vLLM does, with `apply_after_filters` after the filters where a change needs it."""
        if not any(change.acts_after_filters for change in self._changes):
            return super().sample(logits, sampling_metadata, *args, **kwargs)
        greedy = None
        if not sampling_metadata.all_random:  # greedy rows: rescored, but neither filtered nor divided
            rescored = [replace(change, late=None) for change in self._changes]
            best = apply_after_filters(logits, rescored, torch.ones_like(logits[:, 0]))
            if sampling_metadata.all_greedy:
                return super().sample(best, sampling_metadata, *args, **kwargs)
            greedy = best.argmax(-1)
        temperature = sampling_metadata.temperature
        temperature = torch.where(temperature < GREEDY, 1.0, temperature)
        logits = logits.div_(temperature.unsqueeze(1))
        for processor in sampling_metadata.logitsprocs.argmax_invariant:
            logits = processor.apply(logits)
        logits = apply_top_k_top_p(logits, sampling_metadata.top_k, sampling_metadata.top_p)
        logits = apply_after_filters(logits, self._changes, temperature)
        tokens, processed = self.topk_topp_sampler(logits, sampling_metadata.generators, None, None)
        if greedy is not None:
            tokens = torch.where(sampling_metadata.temperature < GREEDY, greedy, tokens)
        return tokens, processed
