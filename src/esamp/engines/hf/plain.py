"""`generate_plain`: a generate call in which no method acts on decode steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from esamp.engines.hf.generate import generate
from esamp.engines.hf.traces import PlainRecorder, Trace


def generate_plain(
    model: PreTrainedModel,
    arguments: Mapping[str, Any],
    last: Sequence[LogitsProcessor],
    on_sampled: Callable[[Tensor, Tensor], None],
    *,
    trace: bool,
) -> tuple[Tensor, Trace | None]:
    """The rows of ``model.generate(**arguments)``, and their measurements if `trace` is true.

    Args:
        model: the model.
        arguments: of ``model.generate``.
        last: processors to run after all others.
        on_sampled: called at each step with the sampled tokens `[B]` and a mask `[B]` of the rows that they finish.
        trace: whether to measure every token.
    """
    recorder = PlainRecorder() if trace else None

    def sampled(tokens: Tensor, finished: Tensor) -> None:
        on_sampled(tokens, finished)
        if recorder is not None:
            recorder.record(tokens)

    callbacks: dict[str, Any] = dict(on_prompt=lambda *_: None, on_sampled=sampled, last=lambda config: list(last))
    rows = generate(model, **arguments, **callbacks, first=[] if recorder is None else [recorder])
    return rows, None if recorder is None else recorder.trace
