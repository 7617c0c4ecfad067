"""One generate call with processors behind all others and an ear at the stopping criteria."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation.configuration_utils import GenerationMode

from esamp.engines.hf.processors import DecodedStopTexts, WatchedCriteria
from esamp.errors import OptionError, UnsupportedError

ASSISTED = "assisted decoding proposes tokens that no method steered: no assistant_model, no prompt_lookup_num_tokens"


def generate(
    model: PreTrainedModel,
    *args: Any,
    on_prompt: Callable[[Tensor, Mapping[str, Any], GenerationConfig], None],
    on_sampled: Callable[[Tensor, Tensor], None],
    last: Callable[[GenerationConfig], list[LogitsProcessor]],
    first: Sequence[LogitsProcessor] = (),
    streamer: Any = None,
    **kwargs: Any,
) -> Any:
    """``model.generate(*args, **kwargs)`` through transformers' own ``custom_generate``.

    Args:
        model: the model.
        *args: passed on.
        on_prompt: called with the prompt's token ids `[B, L]`, the model's other inputs and the prepared configuration
            before all else.
        on_sampled: called at each step with the sampled tokens `[B]` and which rows `[B]` are finished by them.
        last: gives the processors to run behind all others, for the prepared configuration.
        first: processors to run before all others.
        streamer: as in ``generate``, which does not pass it on by itself.
        **kwargs: passed on.

    Raises:
        UnsupportedError: beam search or assisted decoding was asked for.
    """
    if kwargs.get("custom_generate") is not None:
        raise UnsupportedError("this call brings its own custom_generate: leave that argument out")
    if kwargs.get("assistant_model") is not None:
        raise UnsupportedError(ASSISTED)

    def decode(
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Any:
        _refuse_modes(generation_config)
        on_prompt(input_ids, model_kwargs, generation_config)
        sample: Any = model._sample  # what transformers' documentation has a custom_generate call
        return sample(
            input_ids,
            logits_processor=LogitsProcessorList([*first, *logits_processor, *last(generation_config)]),
            stopping_criteria=WatchedCriteria(stopping_criteria, on_sampled),
            generation_config=generation_config,
            streamer=streamer,
            **model_kwargs,
        )

    generative: Any = model
    return generative.generate(*args, streamer=streamer, custom_generate=decode, **with_stop_strings(kwargs))


def _refuse_modes(config: GenerationConfig) -> None:
    mode = config.get_generation_mode()
    if mode == GenerationMode.ASSISTED_GENERATION:
        raise UnsupportedError(ASSISTED)
    if mode not in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH):
        raise UnsupportedError(
            f"{mode.value.replace('_', ' ')} keeps several hypotheses a row, which no method can follow: "
            "use sampling or greedy decoding (num_beams=1)"
        )


def with_stop_strings(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Turn ``stop_strings`` into a criterion: transformers does not hand the tokenizer on to a custom_generate."""
    stop_strings, tokenizer = kwargs.get("stop_strings"), kwargs.pop("tokenizer", None)
    if stop_strings is None:
        return kwargs
    if tokenizer is None:
        raise OptionError("stop_strings needs tokenizer=... as well")
    criteria = StoppingCriteriaList(kwargs.pop("stopping_criteria", None) or [])
    stops = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
    criteria.append(stop_criterion(tokenizer, stops))
    return {**kwargs, "stopping_criteria": criteria, "stop_strings": None}


def stop_criterion(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> StoppingCriteria:
    """Ends a row when its newest token completes one of `stops`."""
    try:
        return StopStringCriteria(tokenizer, list(stops))
    except ValueError:  # it takes the vocabulary apart, which fails for tokenizers that cannot spell any text
        return DecodedStopTexts(tokenizer, list(stops))
