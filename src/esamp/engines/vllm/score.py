"""`score`: likelihoods of given samples, from vLLM's log-probabilities of prompt tokens."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from esamp.engines import text
from esamp.engines.base import Request, Sample
from esamp.engines.likelihood import Likelihood
from esamp.errors import EsampError, UnsupportedError

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput


def score(
    llm: "LLMEngine", tokenizer: PreTrainedTokenizerBase, request: Request, samples: Sequence[Sample]
) -> list[Likelihood]:
    """`Engine.score` for vLLM, without certainty and entropy. Equal samples are scored once.

    Raises:
        UnsupportedError: the engine is busy, or a sample fills the context to its last token.
    """
    prompt = text.encode(tokenizer, request)
    rows = [text.sample_ids(tokenizer, sample) for sample in samples]
    different = list(dict.fromkeys(row for row in rows if row))
    scored: dict[tuple[int, ...], Likelihood] = {(): Likelihood()}
    for row, logprobs in zip(different, token_logprobs(llm, prompt, different), strict=True):
        total = math.fsum(logprobs)
        scored[row] = Likelihood(total, total / len(row), tokens=len(row))
    return [scored[row] for row in rows]


def token_logprobs(llm: "LLMEngine", prompt: Sequence[int], rows: Sequence[tuple[int, ...]]) -> list[list[float]]:
    """log p of each token of each row after `prompt`, before temperature and filters, in nats.

    The rows enter vLLM as prompts. Each generates one token, which is discarded, as vLLM needs at least one.

    Raises:
        UnsupportedError: the engine is busy, or a row fills the context to its last token.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    if llm.has_unfinished_requests():
        raise UnsupportedError(
            "vLLM cannot score samples while other requests are running: take their completions first"
        )
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
    row_of = {f"score {place}": row for place, row in enumerate(rows)}
    logprobs: dict[str, list[float]] = {}
    try:
        for name, row in row_of.items():
            llm.add_request(name, {"prompt_token_ids": [*prompt, *row]}, params)
        while llm.has_unfinished_requests():
            for output in llm.step():
                logprobs[output.request_id] = token_table(output, prompt, row_of[output.request_id])
    except (ValueError, VLLMValidationError) as error:
        raise UnsupportedError(f"vLLM cannot score a sample: {error}") from error
    finally:
        llm.abort_request([name for name in row_of if name not in logprobs])
    return [logprobs[name] for name in row_of]


def token_table(output: "RequestOutput", prompt: Sequence[int], row: Sequence[int]) -> list[float]:
    """log p of each token of `row` from the output of a request whose prompt was `prompt` and `row`.

    Raises:
        EsampError: the output has no log-probabilities of the prompt's tokens.
    """
    table = output.prompt_logprobs
    if table is None or len(table) != len(prompt) + len(row):
        raise EsampError("vLLM returned no log-probabilities for the tokens of a prompt")
    return [step[token].logprob for step, token in zip(table[len(prompt) :], row, strict=True)]
