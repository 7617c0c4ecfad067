"""`generate_plain`: a generate call in which no method acts on decode steps, measured if that is wanted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from esamp.engines.hf.generate import generate
from esamp.engines.hf.samples import Measured
from esamp.engines.hf.token_logprobs import TokenLogprobs
from esamp.engines.hf.traces import PlainRecorder


def generate_plain(
    model: PreTrainedModel,
    arguments: Mapping[str, Any],
    *,
    sampler: Sequence[LogitsProcessor],
    on_sampled: Callable[[Tensor, Tensor], None],
    trace: bool,
    token_logprobs: bool,
) -> tuple[Tensor, Measured]:
    """The token ids `[B, L]` of a call, and what was measured at its tokens.

    Args:
        model: the model.
        arguments: of ``model.generate``.
        sampler: processors that choose the token; empty with greedy decoding.
        on_sampled: called at each step with the tokens `[B]` and a mask `[B]` of the rows that they finish.
        trace: measure a trace.
        token_logprobs: measure log-probabilities.
    """
    first: list[LogitsProcessor] = []
    last: list[LogitsProcessor] = []
    recorder, logprobs = PlainRecorder(), TokenLogprobs()
    if trace:
        first.append(recorder)
    if token_logprobs:
        logprobs.greedy = not sampler
        first.append(logprobs.own)
        last.append(logprobs.drawn)

    def sampled(tokens: Tensor, finished: Tensor) -> None:
        on_sampled(tokens, finished)
        if trace:
            recorder.record(tokens)
        if token_logprobs:
            logprobs.record(tokens)

    rows = generate(
        model,
        **arguments,
        on_prompt=lambda *_: None,
        on_sampled=sampled,
        first=first,
        last=lambda config: [*last, *sampler],
    )
    return rows, Measured(recorder.trace if trace else None, logprobs.table() if token_logprobs else None)
