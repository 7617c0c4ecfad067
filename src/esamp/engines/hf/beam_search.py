"""The decoding loop of a `BeamMethod`: one prefill for each prompt, then its hypotheses as rows of one batch.

Two private methods of transformers keep the model's other inputs in step with the rows, as its own beam search does:
``_update_model_kwargs_for_generation`` after each forward pass and ``_expand_inputs_for_generation`` after prefill.
What these inputs are differs from model to model, and only transformers knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, MaxLengthCriteria, PreTrainedModel, StoppingCriteriaList

from esamp.engines.base import Progress
from esamp.engines.hf.prompt_batch import find_cache, holds_tokens, left_padded
from esamp.engines.hf.stopping import with_stop_strings
from esamp.errors import OptionError, UnsupportedError
from esamp.methods.beams import BeamMethod, Beams, Hypotheses

CHECK = 8
"""Steps between two checks whether any hypothesis is live; each check waits for the device."""


@dataclass(frozen=True)
class BeamResult:
    """The result of a beam search for one prompt."""

    tokens: tuple[list[int], ...]
    """token ids of the n samples, best first"""
    generated: int
    """number of tokens of all hypotheses, including those that were dropped"""
    telemetry: Mapping[str, float]
    """log p of the best sample, the mean over all of them, and the number of different ones"""
    details: Mapping[str, list[float]]
    """the method's numbers for each sample, by name"""


def beam_search(
    model: PreTrainedModel,
    method: BeamMethod,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    n: int,
    arguments: Mapping[str, Any],
    rows: int,
    progress: Progress | None,
) -> list[BeamResult]:
    """Search the continuations of `prompts`, all at once.

    Where fewer than n different texts have a probability above zero (a short limit and a narrow filter), the existing
    ones come first and are then repeated in their order; ``distinct`` in the telemetry counts them.

    Args:
        model: the model.
        method: ranks the hypotheses.
        prompts: token ids.
        seeds: one for each prompt.
        n: hypotheses of a prompt.
        arguments: of ``generate``: sampler, limit, stop texts.
        rows: most rows of a batch.
        progress: gets the number of tokens every few steps, and the number of samples at the end.

    Raises:
        OptionError: n hypotheses are more than `rows`.
        UnsupportedError: the rows of the model's cache cannot be reordered.
    """
    if n > rows:
        raise OptionError(
            f"{method.name} decodes n = {n} hypotheses of a prompt side by side, but batch_rows = {rows}: "
            f"set batch_rows (--batch-rows) to {n} or more, or ask for fewer samples"
        )
    device = model.device
    padded, mask = left_padded(prompts, method.pad)
    loop = _Loop(method, torch.tensor(seeds).to(device), n, progress)
    generative: Any = model
    generative.generate(
        inputs=padded.to(device),
        attention_mask=mask.to(device),
        custom_generate=loop.decode,
        **with_stop_strings(dict(arguments)),
    )
    results = loop.results()
    if progress is not None:
        progress(len(prompts) * n, 0)
    return results


class _Loop:
    """The decoding loop of one generate call."""

    def __init__(self, method: BeamMethod, seeds: Tensor, n: int, progress: Progress | None) -> None:
        self._method, self._seeds, self._n, self._progress = method, seeds, n, progress
        self._beams: Beams | None = None
        self._reported = 0  # tokens that `progress` has been given

    def decode(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **inputs: Any,
    ) -> Tensor:
        """Prefill, then one step after the other; called by transformers as ``custom_generate``. See `results`."""
        method, n = self._method, self._n
        prompts, length = input_ids.shape
        limit = (generation_config.max_length or length) - length
        first_row = torch.arange(prompts, device=input_ids.device).unsqueeze(1) * n  # of each prompt
        criteria: Any = StoppingCriteriaList(
            criterion for criterion in stopping_criteria if not isinstance(criterion, MaxLengthCriteria)
        )

        def texts(tokens: Tensor) -> Tensor:
            """Prompts and `tokens` `[P, H, t]` as rows `[P * H, L + t]`."""
            return torch.cat([input_ids.repeat_interleave(tokens.shape[1], 0), tokens.flatten(0, 1)], 1)

        def ends(tokens: Tensor) -> Tensor:
            done: Tensor = criteria(texts(tokens), None)
            return done.view(tokens.shape[:2])

        def distributions(ids: Tensor, logits: Tensor) -> Tensor:
            scores: Tensor = logits_processor(ids, logits[:, -1].float()).log_softmax(-1)
            return scores.view(prompts, -1, scores.shape[-1])  # (P, K, V)

        beams = method.start(self._seeds, n, limit)
        outputs = model(
            **model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **inputs), return_dict=True
        )
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        beams, _ = method.advance(beams, distributions(input_ids, outputs.logits).expand(-1, n, -1), ends)
        _reorder_cache(model, inputs, (first_row // n).expand(-1, n).flatten())  # one prefill for all rows
        inputs = _per_row(model, inputs, n)
        while beams.step < limit and self._any_live(beams):
            ids = texts(beams.rows.tokens[:, :, : beams.step])
            outputs = model(
                **model.prepare_inputs_for_generation(ids, next_sequence_length=1, **inputs), return_dict=True
            )
            inputs = model._update_model_kwargs_for_generation(outputs, inputs)
            beams, parents = method.advance(beams, distributions(ids, outputs.logits), ends)
            _reorder_cache(model, inputs, (first_row + parents).flatten())
        self._beams = beams
        return input_ids

    def results(self) -> list[BeamResult]:
        """The result of each prompt, after `decode`."""
        beams = self._beams
        assert beams is not None
        self._report_tokens(int(beams.generated.sum()))
        ranked = self._method.ranked(beams)
        described = {name: column.tolist() for name, column in self._method.described(ranked).items()}
        generated = beams.generated.tolist()
        return [
            _result(tokens, count, {name: column[prompt] for name, column in described.items()}, generated[prompt])
            for prompt, (tokens, count) in enumerate(zip(_texts(ranked), ranked.exist.sum(1).tolist(), strict=True))
        ]

    def _any_live(self, beams: Beams) -> bool:
        """Whether a hypothesis may be live, checked every `CHECK` steps."""
        if beams.step % CHECK:
            return True
        live, generated = torch.stack([beams.live.sum(), beams.generated.sum()]).tolist()
        self._report_tokens(generated)
        return bool(live)

    def _report_tokens(self, generated: int) -> None:
        if self._progress is not None and generated > self._reported:
            self._progress(0, generated - self._reported)
            self._reported = generated


def _result(texts: list[list[int]], count: int, described: Mapping[str, list[float]], generated: int) -> BeamResult:
    """The first `count` of `texts`, repeated to the length of `texts`."""
    if not count:
        raise UnsupportedError("the model gave no probability to any token: are its logits finite in this dtype?")
    order = [place % count for place in range(len(texts))]
    columns = {name: [values[place] for place in order] for name, values in described.items()}
    logs = columns["log_probability"]
    telemetry = {
        "log_probability_best": max(logs),
        "log_probability_mean": sum(logs) / len(logs),
        "distinct": float(len(set(map(tuple, texts[:count])))),
    }
    return BeamResult(tuple(texts[place] for place in order), generated, telemetry, columns)


def _texts(ranked: Hypotheses) -> list[list[list[int]]]:
    """The token ids of each hypothesis of each prompt."""
    pairs = zip(ranked.tokens.tolist(), ranked.length.tolist(), strict=True)
    return [[text[:length] for text, length in zip(*pair, strict=True)] for pair in pairs]


def _reorder_cache(model: Any, inputs: Mapping[str, Any], rows: Tensor) -> None:
    """Copy rows of the model's cache: row i becomes what row ``rows[i]`` was, for `rows` `[R]` int64."""
    cache: Any = find_cache(inputs)
    if not (isinstance(cache, Cache) and holds_tokens(cache)):  # an empty one: the model keeps its state elsewhere
        raise UnsupportedError(
            f"{type(model).__name__} keeps no cache that can follow hypotheses from row to row, which beam searches "
            "need: choose a sampling method for it"
        )
    reorder: Any = cache.reorder_cache  # annotated with torch.LongTensor, which type checkers cannot tell apart
    reorder(rows)


def _per_row(model: Any, inputs: dict[str, Any], n: int) -> dict[str, Any]:
    """The model's inputs for each prompt, repeated for its n rows; the cache is not among them."""
    _, expanded = model._expand_inputs_for_generation(expand_size=n, **inputs)
    rows: dict[str, Any] = expanded
    return rows
