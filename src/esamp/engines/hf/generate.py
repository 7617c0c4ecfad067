"""`generate`: one ``model.generate`` call that reports its prompt and every sampled token, and can add processors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import GenerationMode

from esamp.engines.hf.processors import SurroundedProcessors
from esamp.engines.hf.stopping import ReportingCriteria, with_stop_strings
from esamp.errors import UnsupportedError

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

    The decoding loop is ``model._sample``, a private method of transformers, whose documentation tells a
    ``custom_generate`` function to call it: a loop of our own would miss what future releases add to theirs.

    Args:
        model: the model.
        *args: passed on.
        on_prompt: called before prefill with the prompt's token ids `[B, L]`, the model's other inputs and the
            prepared configuration.
        on_sampled: called at each step with the sampled tokens `[B]` and a mask `[B]` of the rows that they finish.
        last: returns the processors to run after all others, given the prepared configuration.
        first: processors to run before all others.
        streamer: as in ``generate``, which does not pass it to a ``custom_generate`` function.
        **kwargs: passed on.

    Raises:
        UnsupportedError: the call asks for beam search, assisted decoding or a ``custom_generate`` of its own.
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
        sample: Any = model._sample
        return sample(
            input_ids,
            logits_processor=SurroundedProcessors(first, logits_processor, last(generation_config)),
            stopping_criteria=ReportingCriteria(stopping_criteria, on_sampled),
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
