"""`finished_sample`: a row of a generate call as a `Sample`, with what was measured at its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from esamp.engines import text
from esamp.engines.base import Sample
from esamp.engines.hf.batched_request import BatchedRequest
from esamp.engines.hf.traces import Trace
from esamp.engines.token_trace import TokenTrace


@dataclass(frozen=True)
class Measured:
    """What was measured at the tokens of a generate call."""

    trace: Trace | None = None
    logprobs: Tensor | None = None
    """`[2, B, T]`, see `TokenLogprobs.table`"""


def finished_sample(
    tokenizer: PreTrainedTokenizerBase,
    batched: BatchedRequest,
    index: int,
    tokens: Sequence[int],
    *,
    stops: Sequence[int],
    measured: Measured,
    row: int,
) -> Sample:
    """Sample `index` of a request.

    Args:
        tokenizer: the model's.
        batched: the request.
        index: of the sample in its request.
        tokens: generated token ids, without padding.
        stops: tokens that end a sample.
        measured: of the generate call.
        row: of the sample in that call.
    """
    ended = len(tokens) < batched.limit or tokens[-1] in stops
    ending = text.end(tokenizer, batched.prompt, tokens, batched.request, ended=ended)
    length, trace = len(ending.tokens), None
    if measured.trace is not None:
        series = {name: values[row, :length].clone() for name, values in vars(measured.trace).items()}
        trace = TokenTrace(**series, pieces=text.pieces(tokenizer, batched.prompt, ending.tokens))
    drawn = own = None
    if measured.logprobs is not None:
        drawn, own = (tuple(values) for values in measured.logprobs[:, row, :length].tolist())
    return Sample(
        index,
        ending.text,
        ending.tokens,
        "stop" if ending.stopped else "length",
        trace,
        logprobs=drawn,
        reference_logprobs=own,
    )
