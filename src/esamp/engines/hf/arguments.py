"""The arguments of ``model.generate`` for a request's sampler settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteriaList

from esamp.engines.hf.processors import CountPenalties, MinPProcessor, RepetitionPenalty
from esamp.engines.hf.stopping import GeneratedTokensCriterion, stop_criterion
from esamp.sampling import Sampling

NEUTRAL: Mapping[str, Any] = dict(
    # one hypothesis a row, one token a step
    num_beams=1,
    num_return_sequences=1,
    guidance_scale=None,
    prompt_lookup_num_tokens=None,
    token_healing=False,
    # filters that `Sampling` does not have
    typical_p=1.0,
    epsilon_cutoff=0.0,
    eta_cutoff=0.0,
    top_h=None,
    # changes of the scores of single tokens
    encoder_repetition_penalty=1.0,
    no_repeat_ngram_size=0,
    encoder_no_repeat_ngram_size=0,
    bad_words_ids=None,
    suppress_tokens=None,
    begin_suppress_tokens=None,
    sequence_bias=None,
    forced_bos_token_id=None,
    forced_eos_token_id=None,
    watermarking_config=None,
    renormalize_logits=False,
    remove_invalid_values=False,
    # when a sample ends
    min_length=0,
    min_new_tokens=None,
    max_time=None,
    stop_strings=None,
    exponential_decay_length_penalty=None,
    # the cache and the returned values
    use_cache=True,
    cache_implementation=None,
    cache_config=None,
    return_dict_in_generate=False,
    output_scores=False,
    output_logits=False,
    output_attentions=False,
    output_hidden_states=False,
)
"""Settings that a model's generation_config.json may change, but that the request decides or does not have, each with
the value that has no effect. The model's own begin, end and padding tokens are not among them: those are used."""


def neutral_arguments() -> dict[str, Any]:
    """The part of `NEUTRAL` that the installed version of transformers has."""
    known = vars(GenerationConfig())
    return {name: value for name, value in NEUTRAL.items() if name in known}


def generate_arguments(
    sampling: Sampling, limit: int, *, prompts: Sequence[Sequence[int]], pad: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """All sampler settings as arguments of ``generate``, so that no default of the model's folder applies.

    Args:
        sampling: the request's settings.
        limit: most tokens of a sample.
        prompts: token ids of the batch's prompts, which will be padded on the left to one length.
        pad: the padding token.
        tokenizer: encodes stop texts.
    """
    arguments: dict[str, Any] = dict(
        max_new_tokens=limit,
        repetition_penalty=1.0,
        pad_token_id=pad,
        **neutral_arguments(),
    )
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        processors.append(RepetitionPenalty(sampling.repetition_penalty, padding))
    if sampling.presence_penalty or sampling.frequency_penalty:
        processors.append(CountPenalties(sampling.presence_penalty, sampling.frequency_penalty))
    if sampling.min_p and sampling.temperature:
        processors.append(MinPProcessor(sampling.min_p, sampling.temperature))
    if processors:
        arguments["logits_processor"] = processors
    if sampling.stop:
        arguments["stopping_criteria"] = StoppingCriteriaList(
            [GeneratedTokensCriterion(stop_criterion(tokenizer, sampling.stop))]
        )
    if sampling.temperature == 0:
        return arguments | dict(do_sample=False, temperature=None, top_k=None, top_p=None, min_p=None)
    return arguments | dict(
        do_sample=True, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, min_p=None
    )
